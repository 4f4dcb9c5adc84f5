//! Signals as something to `poll` for.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that a daemon answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop, from a terminal.
    Interrupt,
    /// SIGHUP: reload.
    HangUp,
}

/// Readable while one of the [`Signal`]s waits. They stay blocked when this is dropped.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the three signals in the calling thread and all that it starts from now on,
    /// and takes them here instead. So call it before any thread is started: one that does
    /// not block them dies of them, and the process with it.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no file descriptors left.
    pub fn take() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes the whole set, so it is a value from then on;
        // sigaddset gets that value and numbers that exist, so neither can fail.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            set
        };
        // SAFETY: `set` is a value and outlives the call; a null old set is allowed.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is a value and outlives the call; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just made the descriptor, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits, `None` when none does.
    ///
    /// # Errors
    /// As read(2); none is known for an open descriptor.
    pub fn read(&mut self) -> io::Result<Option<Signal>> {
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // ssi_signo is the record's first field; the kernel writes whole records.
        let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Ok(match number as libc::c_int {
            libc::SIGTERM => Some(Signal::Terminate),
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGHUP => Some(Signal::HangUp),
            // Not in the set, so it cannot come.
            _ => None,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To the calling thread alone, so that the other tests' threads live on.
    fn raise(signal: libc::c_int) {
        // SAFETY: pthread_self names the calling thread, which exists.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
    }

    #[test]
    fn each_signal_is_read_once_and_does_not_kill() {
        std::thread::spawn(|| {
            let mut signals = Signals::take().expect("a descriptor is free");
            assert_eq!(signals.read().expect("open"), None);
            raise(libc::SIGHUP);
            raise(libc::SIGTERM);
            raise(libc::SIGINT);
            let mut seen: Vec<_> = std::iter::from_fn(|| signals.read().expect("open")).collect();
            seen.sort_by_key(|signal| format!("{signal:?}"));
            assert_eq!(seen, [Signal::HangUp, Signal::Interrupt, Signal::Terminate]);
        })
        .join()
        .expect("the thread's own asserts");
    }
}
