//! Sleeping until one of several descriptors is ready.

use std::io;
use std::time::Duration;

use rustix::event::Timespec;
pub use rustix::event::{PollFd, PollFlags};

/// Sleeps until a descriptor is ready, at most `timeout` (`None`: without end; zero: not at
/// all). How many are ready; a signal counts as none, so callers look again.
///
/// # Errors
/// As ppoll(2), without EINTR: EINVAL for more descriptors than RLIMIT_NOFILE, ENOMEM.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| Timespec {
        // A wait of more than 292 years is one of 292 years.
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_end_of_a_pipe_is_ready() {
        let (reader, writer) = std::io::pipe().expect("descriptors are free");
        let mut fds = [PollFd::new(&reader, PollFlags::IN), PollFd::new(&writer, PollFlags::OUT)];
        assert_eq!(poll(&mut fds, Some(Duration::ZERO)).expect("open"), 1);
        assert!(fds[0].revents().is_empty());
        assert!(fds[1].revents().contains(PollFlags::OUT));
    }
}
