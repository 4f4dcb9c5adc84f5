//! Sleeping until there is something to do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::sys;

/// What a worker sleeps on: several sockets and, to be woken by others, an eventfd or pipe.
#[derive(Default)]
pub struct Waiter {
    fds: Vec<libc::pollfd>,
}

impl Waiter {
    /// Nothing to wait for yet.
    pub const fn new() -> Self {
        Self { fds: Vec::new() }
    }

    /// Sleeps until one of `fds` is readable, `timeout` is over (`None`: never), or a signal came.
    /// Returns whether one is readable. Allocates only when there are more `fds` than ever before.
    ///
    /// In copy mode polling a socket also sends what waits on its TX ring. A deleted device is not
    /// reported here: that is netlink's to tell.
    ///
    /// # Errors
    ///
    /// What `ppoll` says, except EINTR.
    pub fn wait<'a>(
        &mut self,
        fds: impl IntoIterator<Item = BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        self.fds.clear();
        self.fds.extend(fds.into_iter().map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }));
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match sys::poll(&mut self.fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn wakes_for_any_of_its_descriptors_and_else_when_time_is_over() {
        let (quiet, _keep) = io::pipe().expect("a pipe");
        let (loud, mut writer) = io::pipe().expect("a pipe");
        let mut waiter = Waiter::new();
        let mut wait = |timeout| waiter.wait([quiet.as_fd(), loud.as_fd()], timeout).expect("poll works");
        assert!(!wait(Some(Duration::ZERO)));
        writer.write_all(&[1]).expect("a pipe takes an octet");
        assert!(wait(Some(Duration::ZERO)));
        assert!(wait(None));
    }
}
