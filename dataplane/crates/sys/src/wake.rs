//! Waking a thread that sleeps in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd: readable from the first [`notify`](Self::notify) until it is drained.
///
/// Any number of threads may notify; notifications before a drain count as one.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// # Errors
    /// EMFILE or ENFILE when there are no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable. A system call: for threads that sleep, not per packet.
    pub fn notify(&self) {
        // EAGAIN (a counter of 2^64 - 2) leaves it readable, which is all that was wanted;
        // nothing else can happen to an eventfd that is open.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again; whether it had been notified.
    ///
    /// Drain first, then look at what the notifier changed: the other way round loses one.
    pub fn drain(&self) -> bool {
        rustix::io::read(&self.0, &mut [0_u8; 8]).is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Wake;
    use crate::poll::{PollFd, PollFlags, poll};
    use std::time::Duration;

    fn readable(wake: &Wake) -> bool {
        let mut fds = [PollFd::new(wake, PollFlags::IN)];
        poll(&mut fds, Some(Duration::ZERO)).expect("one open descriptor") == 1
    }

    #[test]
    fn many_notifications_are_one_drain() {
        let wake = Wake::new().expect("a descriptor is free");
        assert!(!readable(&wake));
        assert!(!wake.drain());
        wake.notify();
        wake.notify();
        assert!(readable(&wake));
        assert!(wake.drain());
        assert!(!readable(&wake));
        assert!(!wake.drain());
    }

    #[test]
    fn wakes_a_thread_that_sleeps_without_a_timeout() {
        let wake = Wake::new().expect("a descriptor is free");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut fds = [PollFd::new(&wake, PollFlags::IN)];
                while poll(&mut fds, None).expect("one open descriptor") == 0 {}
            });
            wake.notify();
        });
    }
}
