//! Sleeping until one of several descriptors is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use rustix::event::{PollFd, PollFlags};
use rustix::event::{Timespec, epoll};

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

/// Several descriptors behind one, which is readable while any of them is (epoll(7)). A member that is closed leaves.
#[derive(Debug)]
pub struct AnyReadable(OwnedFd);

impl AnyReadable {
    /// # Errors
    /// As epoll_create1(2) and epoll_ctl(2): no descriptor left, or a member that cannot be waited for, as a file.
    pub fn new<'a>(members: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for member in members {
            // Nobody asks the set which of them it is.
            epoll::add(&set, member, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Self(set))
    }
}

impl AsFd for AnyReadable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn says_which_end_of_a_pipe_is_ready() {
        let (reader, writer) = std::io::pipe().expect("descriptors are free");
        let mut fds = [PollFd::new(&reader, PollFlags::IN), PollFd::new(&writer, PollFlags::OUT)];
        assert_eq!(poll(&mut fds, Some(Duration::ZERO)).expect("open"), 1);
        assert!(fds[0].revents().is_empty());
        assert!(fds[1].revents().contains(PollFlags::OUT));
    }

    #[test]
    fn a_set_is_readable_while_any_member_is() {
        let (mut first, mut to_first) = std::io::pipe().expect("descriptors are free");
        let (second, mut to_second) = std::io::pipe().expect("descriptors are free");
        let set = AnyReadable::new([first.as_fd(), second.as_fd()]).expect("pipes can be waited for");
        let readable = || poll(&mut [PollFd::new(&set, PollFlags::IN)], Some(Duration::ZERO)).expect("open") == 1;
        assert!(!readable());
        to_first.write_all(b"1").expect("there is room");
        assert!(readable());
        first.read_exact(&mut [0]).expect("written");
        assert!(!readable());
        to_second.write_all(b"1").expect("there is room");
        assert!(readable() && readable(), "until it is read");
    }
}
