//! The system calls of AF_XDP, each behind a safe function.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// `struct xdp_umem_reg`: all 32 octets are fields, so none goes to the kernel uninitialised.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct UmemReg {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) chunk_size: u32,
    pub(crate) headroom: u32,
    pub(crate) flags: u32,
    pub(crate) tx_metadata_len: u32,
}
const _: () = assert!(size_of::<UmemReg>() == 32);

/// `struct xdp_desc`: one entry of the RX and TX rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}
const _: () = assert!(size_of::<Descriptor>() == 16);

/// `struct xdp_ring_offset`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct RingOffsets {
    pub(crate) producer: u64,
    pub(crate) consumer: u64,
    pub(crate) desc: u64,
    pub(crate) flags: u64,
}

/// `struct xdp_mmap_offsets`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct MapOffsets {
    pub(crate) rx: RingOffsets,
    pub(crate) tx: RingOffsets,
    pub(crate) fill: RingOffsets,
    pub(crate) completion: RingOffsets,
}
const _: () = assert!(size_of::<MapOffsets>() == 128);

/// `struct xdp_statistics`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct RawStatistics {
    pub(crate) rx_dropped: u64,
    pub(crate) rx_invalid_descs: u64,
    pub(crate) tx_invalid_descs: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) rx_fill_ring_empty_descs: u64,
    pub(crate) tx_ring_empty_descs: u64,
}

/// XDP_MAX_TX_SKB_BUDGET, which `libc` does not have (Linux 6.17).
pub(crate) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Plain data of the kernel's interface.
///
/// # Safety
///
/// No padding, and every bit pattern is a value.
pub(crate) unsafe trait Plain: Copy + Default {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: two u64 and four u32 (2 x 8 + 4 x 4 = 32 octets, asserted above).
unsafe impl Plain for UmemReg {}
// SAFETY: sixteen u64.
unsafe impl Plain for MapOffsets {}
// SAFETY: six u64.
unsafe impl Plain for RawStatistics {}

/// A new AF_XDP socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers memory for packets.
///
/// # Safety
///
/// The range is mapped and stays so for the life of the process, and nobody refers to the part of it
/// that a ring entry names while the kernel holds that entry.
pub(crate) unsafe fn register(fd: BorrowedFd<'_>, memory: &UmemReg) -> io::Result<()> {
    set(fd, libc::XDP_UMEM_REG, memory)
}

/// Sets a numeric option of level SOL_XDP.
pub(crate) fn set_option(fd: BorrowedFd<'_>, name: libc::c_int, value: u32) -> io::Result<()> {
    set(fd, name, &value)
}

fn set<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<T>() octets at a valid reference.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result as isize)
}

/// Reads an option of level SOL_XDP. What an older kernel does not know stays zero.
pub(crate) fn option<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets, the size of `value`; any bits are a value of T.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, ptr::from_mut(&mut value).cast(), &mut len) };
    check(result as isize)?;
    Ok(value)
}

/// Binds to one queue of an interface.
pub(crate) fn bind(
    fd: BorrowedFd<'_>,
    flags: u16,
    ifindex: u32,
    queue: u32,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: the kernel reads one sockaddr_xdp (16 octets without padding) at a valid address.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_xdp>() as libc::socklen_t)
    };
    check(result as isize)
}

/// Tells the kernel that the TX ring has work. In copy mode this sends it.
pub(crate) fn wake_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no message, no address: the kernel reads nothing.
    let result = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    check(result)
}

/// Tells the kernel that the fill ring has chunks.
pub(crate) fn wake_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a buffer of no octets and no address: the kernel writes nothing.
    let result = unsafe {
        libc::recvfrom(fd.as_raw_fd(), ptr::null_mut(), 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut())
    };
    check(result)
}

/// Waits until one of `fds` is ready; `None` waits for ever.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<libc::timespec>) -> io::Result<usize> {
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `fds` is a valid slice of its length; the timeout is null or valid for the call.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, ptr::null()) };
    check(ready as isize)?;
    Ok(ready as usize)
}

/// Lets this process lock as much memory as it may; whether that is more than before.
pub(crate) fn raise_locked_memory() -> bool {
    let Some(mut limit) = locked_memory() else {
        return false;
    };
    let before = limit.rlim_cur;
    // With CAP_SYS_RESOURCE there is no limit; else the hard one is as far as we may go.
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads one rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) } == 0 {
        return before != libc::RLIM_INFINITY;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) } == 0;
    raised && limit.rlim_cur > before
}

/// RLIMIT_MEMLOCK, in octets.
pub(crate) fn locked_memory() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (result == 0).then_some(limit)
}

/// A shared mapping of a ring; unmapped when dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an owned mapping, not tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` octets of `fd` from `offset` on.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: i64, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(address.cast()) {
            Some(base) => Ok(Self { base, len }),
            None => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
        }
    }

    /// A pointer to `count` values of T at `offset`, if they are inside and aligned.
    pub(crate) fn at<T>(&self, offset: u64, count: usize) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = count.checked_mul(size_of::<T>()).and_then(|size| size.checked_add(offset))?;
        // Mappings are page-aligned, so the offset decides.
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: offset <= end <= len, so this is within the mapping.
        Some(unsafe { self.base.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; pointers from `at` are kept beside the mapping only.
        // It can fail only for arguments that mmap did not give.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn check(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
