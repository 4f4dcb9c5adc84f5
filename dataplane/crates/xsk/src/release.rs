//! When a driver has let go of a queue.
//!
//! Closing a socket ends reception for good in copy mode: the kernel waits for all who still write. In
//! zero-copy mode the device's own ring keeps pointing into the memory until deferred work has taken
//! the queue back, and nothing tells when that was. But as long as it was not, the queue refuses
//! another registration with EBUSY. So a second, tiny socket asks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::thread;
use std::time::{Duration, Instant};

use crate::bind::{new_socket, set_ring};
use crate::error::Error;
use crate::sys::{self, UmemReg};

/// How long a driver may take: it stops and restarts a queue.
const LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// A socket ready to be bound to the same queue. Made while the queue is in use, so that it belongs to
/// the same network namespace whatever thread closes.
pub(crate) struct Probe {
    fd: OwnedFd,
    ifindex: u32,
    queue: u32,
}

impl Probe {
    pub(crate) fn new(ifindex: u32, queue: u32) -> Result<Self, Error> {
        let fd = new_socket()?;
        let memory =
            UmemReg { addr: page().as_ptr() as u64, len: PAGE as u64, chunk_size: PAGE as u32, ..UmemReg::default() };
        // SAFETY: the page is mapped for ever, and no ring entry will name it.
        unsafe { sys::register(fd.as_fd(), &memory) }
            .map_err(|source| Error::System { what: "registering the memory of a probe", source })?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            set_ring(fd.as_fd(), ring, 2)?;
        }
        Ok(Self { fd, ifindex, queue })
    }

    /// Waits until the queue is free, or its device is gone; `false` if it still is not.
    pub(crate) fn wait(self) -> bool {
        let deadline = Instant::now() + LIMIT;
        loop {
            // Copy mode: such a bind does not touch the driver.
            match sys::bind(self.fd.as_fd(), libc::XDP_COPY, self.ifindex, self.queue, None) {
                Err(error) if is_busy(&error) => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    thread::sleep(PAUSE);
                }
                // Bound, or refused for another reason, which is looked at after the queue's owner.
                _ => return true,
            }
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

const PAGE: usize = 4_096;

/// One page that is never used, never freed and shared by all probes.
fn page() -> NonNull<u8> {
    #[repr(align(4096))]
    struct Page([u8; PAGE]);
    static UNUSED: std::sync::OnceLock<&'static Page> = std::sync::OnceLock::new();
    let page: &'static Page = UNUSED.get_or_init(|| Box::leak(Box::new(Page([0; PAGE]))));
    NonNull::from(&page.0).cast()
}

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::support::{Namespace, ifindex, lacks_privilege};
    use super::*;
    use crate::{ChunkSize, Config, Socket, Umem};

    #[test]
    fn a_probe_waits_for_as_long_as_the_queue_is_owned() {
        if lacks_privilege() {
            return;
        }
        let space = Namespace::new();
        space.veth("a", "b", 1, 1500);
        space.enter(|| {
            let umem = Umem::new(64, ChunkSize::Octets2048).expect("a little memory");
            let mut pool = umem.pool(8, 32);
            let config = Config::new(ifindex("a"), 0);
            let mut socket = Socket::bind(&umem, &mut pool, &config).expect("a free queue");
            let probe = || Probe::new(config.ifindex, 0).expect("a probe");
            assert!(!probe().wait());
            socket.books.probe = Some(probe());
            socket.close(&mut pool);
            assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
            assert_eq!(umem.account().lost, 0);

            // A driver that does not let go, as another owner of the queue that is asked about: what
            // it may still write to is written off.
            let other = Umem::new(64, ChunkSize::Octets2048).expect("a little memory");
            let mut other_pool = other.pool(8, 32);
            let holder = Socket::bind(&other, &mut other_pool, &config).expect("a free queue");
            let small = Config { fill_size: 16, ..Config::new(ifindex("b"), 0) };
            let mut socket = Socket::bind(&umem, &mut pool, &small).expect("a free queue");
            socket.books.probe = Some(probe());
            socket.close(&mut pool);
            let account = umem.account().with_pool(&pool);
            assert_eq!((account.lost, account.in_packets()), (16, 0));
            holder.close(&mut other_pool);
        });
    }
}
