//! Network namespaces, for tests and tools.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves the calling thread into the namespace that `path` names, such as
/// `/run/netns/left` or `/proc/1234/ns/net`.
///
/// Sockets and TUN devices that the thread opens later, and processes and threads that it
/// starts, live there; what is open already stays where it was.
///
/// # Errors
/// As open(2) and setns(2): EPERM without CAP_SYS_ADMIN, EINVAL when `path` is no network namespace.
pub fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Moves the calling thread into a new, empty network namespace that goes when the last
/// thread and descriptor in it do. Its `lo` is down.
///
/// # Errors
/// As unshare(2): EPERM without CAP_SYS_ADMIN, ENOSPC at the limit of namespaces.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: takes no pointer. CLONE_NEWNET changes only which network namespace the
    // calling thread's later system calls mean; unlike CLONE_FILES it leaves descriptors
    // alone, so no owner of one is surprised.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs `story` on a thread in a new, empty network namespace, for tests.
///
/// # Errors
/// As [`enter_new`].
///
/// # Panics
/// When `story` does.
pub fn in_new<T: Send>(story: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter_new().map(|()| story()));
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::{self, Capability};

    fn own() -> std::path::PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").expect("/proc is mounted")
    }

    #[test]
    fn a_new_namespace_is_the_threads_alone_and_can_be_left() {
        if !caps::testable(Capability::SysAdmin) {
            return;
        }
        let home = own();
        in_new(|| {
            assert_ne!(own(), home);
            enter(Path::new("/proc/self/ns/net")).expect("the main thread's namespace");
            assert_eq!(own(), home);
        })
        .expect("we may unshare");
        assert_eq!(own(), home);
    }

    #[test]
    fn refuses_what_is_no_namespace() {
        assert!(enter(Path::new("/proc/self/status")).is_err());
        assert_eq!(enter(Path::new("/proc/self/ns/none")).expect_err("no such file").kind(), io::ErrorKind::NotFound);
    }
}
