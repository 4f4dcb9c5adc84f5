//! How a socket comes to its queue: the ladder of modes, and who registers the memory.
//!
//! The kernel lets a socket share the registration of another, as long as that one is bound. But
//! interfaces come and go, and a registration fixes one mode for all who share it. So any living
//! socket of the same mode may be the donor; when there is none (or its device is gone, EBADF) the
//! same memory is registered again, which the kernel allows: addresses are offsets from the same
//! base, and a frame goes from a ring of one registration to that of another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, NotZeroCopy};
use crate::pool::Pool;
use crate::release::Probe;
use crate::ring::{Consumer, Parts, Producer};
use crate::socket::{Kernel, Socket};
use crate::sys::{self, Mapping, RingOffsets, UmemReg};
use crate::umem::{HEADROOM, Umem};

/// How long a queue may stay busy: a former owner's release is deferred work of up to 40 ms, longer
/// under load. And how often to ask.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The mode that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Zero-copy if the driver has it, else copy.
    #[default]
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// The kernel copies each packet; works with every interface.
    Copy,
    /// Copy, for an XDP program that is attached in generic (skb) mode.
    Generic,
}

/// The mode that a socket runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The device reads and writes the frames itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// What to bind to, and how. Ring sizes are entries, powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kernel's number of the interface, in the calling thread's network namespace.
    pub ifindex: u32,
    /// Which of its queues.
    pub queue: u32,
    /// Received packets that wait for us.
    pub rx_size: u32,
    /// Packets that wait for the kernel.
    pub tx_size: u32,
    /// Chunks for the kernel to receive into: at least the device's own ring and the RX ring. The
    /// kernel then holds up to this and `rx_size` chunks, and a UMEM must have these for every socket
    /// and more for what is queued: [`Socket::refill`] keeps nothing back.
    pub fill_size: u32,
    /// Sent chunks that wait for us: twice the TX ring, because the kernel's view of it lags.
    pub completion_size: u32,
    /// Zero-copy or copy.
    pub mode: Mode,
    /// Frames of several chunks, both ways (XDP_USE_SG, Linux 6.6). The XDP program must then be
    /// loaded with `xdp.frags`.
    pub multi_buffer: bool,
    /// Packets that one kick sends in copy mode (Linux 6.17; before, always 32); brought into
    /// 32..=`tx_size`.
    pub tx_budget: u32,
}

impl Config {
    /// The defaults for one queue.
    pub const fn new(ifindex: u32, queue: u32) -> Self {
        Self {
            ifindex,
            queue,
            rx_size: 2_048,
            tx_size: 2_048,
            fill_size: 4_096,
            completion_size: 4_096,
            mode: Mode::Auto,
            multi_buffer: false,
            tx_budget: 256,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let rings = [
            ("rx", self.rx_size),
            ("tx", self.tx_size),
            ("fill", self.fill_size),
            ("completion", self.completion_size),
        ];
        for (ring, size) in rings {
            if !size.is_power_of_two() || !(2..=1 << 20).contains(&size) {
                return Err(Error::RingSize { ring, size });
            }
        }
        Ok(())
    }

    /// What `source` at bind means here.
    fn explain(&self, wanted: Bound, source: io::Error) -> Error {
        let (ifindex, queue) = (self.ifindex, self.queue);
        let errno = source.raw_os_error().unwrap_or(0);
        match errno {
            libc::EPERM | libc::EACCES => Error::Permission,
            libc::ENODEV | libc::ENXIO => Error::NoInterface { ifindex },
            libc::ENETDOWN => Error::InterfaceDown { ifindex },
            libc::EBUSY => Error::Busy { ifindex, queue },
            _ if wanted == Bound::ZeroCopy => {
                Error::ZeroCopyRefused { ifindex, queue, reason: self.not_zero_copy(errno) }
            }
            libc::EOPNOTSUPP => Error::Unsupported { ifindex },
            libc::ENOMEM | libc::ENOBUFS => Error::KernelMemory { what: "the queue" },
            libc::EINVAL => Error::NoQueue { ifindex, queue },
            _ => Error::System { what: "binding an AF_XDP socket", source },
        }
    }

    fn not_zero_copy(&self, errno: i32) -> NotZeroCopy {
        NotZeroCopy { errno, multi_buffer: self.multi_buffer }
    }
}

/// A bound socket whose registration of the memory others may share.
pub(crate) struct Donor {
    /// Open as long as the entry exists: [`Donor::withdraw`] comes before the close.
    fd: RawFd,
    bound: Bound,
    multi_buffer: bool,
}

impl Donor {
    fn lock(umem: &Umem) -> MutexGuard<'static, Vec<Donor>> {
        // A panic elsewhere cannot leave the list half changed.
        umem.area().donors.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The socket is about to be closed.
    pub(crate) fn withdraw(umem: &Umem, fd: &OwnedFd) {
        Self::lock(umem).retain(|donor| donor.fd != fd.as_raw_fd());
    }
}

/// Why one rung of the ladder did not hold.
enum Failure {
    /// Before bind: no other mode would help.
    Open(Error),
    /// The queue or its driver refused this mode.
    Bind(io::Error),
}

/// The ladder.
pub(crate) fn bind(umem: &Umem, pool: &mut Pool, config: &Config) -> Result<Socket, Error> {
    assert!(pool.umem().is(umem), "the pool is of the same UMEM");
    config.check()?;
    let deadline = Instant::now() + BUSY_LIMIT;
    let mut not_zero_copy = None;
    if matches!(config.mode, Mode::Auto | Mode::ZeroCopy) {
        match rung(umem, pool, config, Bound::ZeroCopy, deadline) {
            Ok(socket) => return Ok(socket),
            Err(Failure::Open(error)) => return Err(error),
            Err(Failure::Bind(source)) if config.mode == Mode::ZeroCopy => {
                return Err(config.explain(Bound::ZeroCopy, source));
            }
            Err(Failure::Bind(source)) => {
                not_zero_copy = Some(config.not_zero_copy(source.raw_os_error().unwrap_or(0)));
            }
        }
    }
    match rung(umem, pool, config, Bound::Copy, deadline) {
        Ok(mut socket) => {
            socket.not_zero_copy = not_zero_copy;
            Ok(socket)
        }
        Err(Failure::Open(error)) => Err(error),
        Err(Failure::Bind(source)) => {
            // An old kernel says EINVAL to the flag: see whether it is the flag.
            if source.raw_os_error() == Some(libc::EINVAL) && config.multi_buffer {
                let single = Config { multi_buffer: false, ..config.clone() };
                if let Ok(socket) = rung(umem, pool, &single, Bound::Copy, deadline) {
                    socket.close(pool);
                    return Err(Error::NoMultiBuffer);
                }
            }
            Err(config.explain(Bound::Copy, source))
        }
    }
}

/// One mode: as a sharer if there is a donor for it, else with a registration of its own.
fn rung(umem: &Umem, pool: &mut Pool, config: &Config, wanted: Bound, deadline: Instant) -> Result<Socket, Failure> {
    // Made before the bind: a zero-copy socket that exists must be able to ask when it is gone.
    let probe = match wanted {
        Bound::ZeroCopy => Some(Probe::new(config.ifindex, config.queue).map_err(Failure::Open)?),
        Bound::Copy => None,
    };
    let fits = |donor: &Donor| donor.bound == wanted && donor.multi_buffer == config.multi_buffer;
    if Donor::lock(umem).iter().any(fits) {
        let socket = open(umem, pool, config, false).map_err(Failure::Open)?;
        let result = until(deadline, || {
            let mut donors = Donor::lock(umem);
            while let Some(at) = donors.iter().position(fits) {
                // SAFETY: an entry's descriptor is open while the entry exists, and the lock is held.
                let donor = unsafe { BorrowedFd::borrow_raw(donors[at].fd) };
                let flags = libc::XDP_SHARED_UMEM;
                let result = sys::bind(socket.as_fd(), flags, config.ifindex, config.queue, Some(donor));
                match result {
                    // The donor's device is gone, and with it the bond: it cannot lend again.
                    Err(error) if error.raw_os_error() == Some(libc::EBADF) => donors.remove(at),
                    other => return other,
                };
            }
            Err(io::Error::from_raw_os_error(libc::EBADF))
        });
        match result {
            Ok(()) => {
                return finish(umem, config, true, probe, socket).map_err(Failure::Open);
            }
            Err(error) => {
                socket.close(pool);
                if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENODEV | libc::EPERM)) {
                    return Err(Failure::Bind(error));
                }
                // Something that sharing cannot do; perhaps a registration of its own can.
            }
        }
    }
    let socket = open(umem, pool, config, true).map_err(Failure::Open)?;
    let mode = match wanted {
        Bound::ZeroCopy => libc::XDP_ZEROCOPY,
        Bound::Copy => libc::XDP_COPY,
    };
    let scatter = if config.multi_buffer { libc::XDP_USE_SG } else { 0 };
    let flags = mode | libc::XDP_USE_NEED_WAKEUP | scatter;
    let result = until(deadline, || sys::bind(socket.as_fd(), flags, config.ifindex, config.queue, None));
    match result {
        Ok(()) => finish(umem, config, false, probe, socket).map_err(Failure::Open),
        Err(error) => {
            socket.close(pool);
            Err(Failure::Bind(error))
        }
    }
}

/// Tries again while the queue is busy.
fn until(deadline: Instant, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}

/// A bound socket: reads back what it became, and offers it as a donor.
fn finish(
    umem: &Umem,
    config: &Config,
    sharer: bool,
    probe: Option<Probe>,
    mut socket: Socket,
) -> Result<Socket, Error> {
    // First, so that the way out by `?` waits for the driver too.
    socket.books.probe = probe;
    let options: u32 = sys::option(socket.as_fd(), libc::XDP_OPTIONS)
        .map_err(|source| Error::System { what: "reading back the mode of an AF_XDP socket", source })?;
    let bound = if options & libc::XDP_OPTIONS_ZEROCOPY != 0 { Bound::ZeroCopy } else { Bound::Copy };
    debug_assert_eq!(bound == Bound::ZeroCopy, socket.books.probe.is_some(), "the flags leave no choice");
    socket.bound = bound;
    socket.sharer = sharer;
    Donor::lock(umem).push(Donor { fd: socket.as_fd().as_raw_fd(), bound, multi_buffer: config.multi_buffer });
    Ok(socket)
}

/// An unbound socket with its four rings, the fill ring full: some drivers lose buffers for good if
/// it is empty when they are bound.
fn open(umem: &Umem, pool: &mut Pool, config: &Config, own: bool) -> Result<Socket, Error> {
    let fd = new_socket()?;
    if own {
        register(umem, fd.as_fd())?;
    }
    let sizes = [
        (libc::XDP_UMEM_FILL_RING, config.fill_size),
        (libc::XDP_UMEM_COMPLETION_RING, config.completion_size),
        (libc::XDP_RX_RING, config.rx_size),
        (libc::XDP_TX_RING, config.tx_size),
    ];
    for (name, size) in sizes {
        set_ring(fd.as_fd(), name, size)?;
    }
    let budget = config.tx_budget.min(config.tx_size).max(32);
    // An older kernel has no such option and sends 32 at a time; a smaller TX ring is its own bound.
    let _ = sys::set_option(fd.as_fd(), sys::XDP_MAX_TX_SKB_BUDGET, budget);

    let offsets: sys::MapOffsets = sys::option(fd.as_fd(), libc::XDP_MMAP_OFFSETS)
        .map_err(|source| Error::System { what: "asking for the layout of AF_XDP rings", source })?;
    let rx = parts(fd.as_fd(), libc::XDP_PGOFF_RX_RING, &offsets.rx, config.rx_size)?;
    let tx = parts(fd.as_fd(), libc::XDP_PGOFF_TX_RING, &offsets.tx, config.tx_size)?;
    let fill = parts(fd.as_fd(), libc::XDP_UMEM_PGOFF_FILL_RING as i64, &offsets.fill, config.fill_size)?;
    let completion =
        parts(fd.as_fd(), libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64, &offsets.completion, config.completion_size)?;
    // SAFETY: `parts` checked that words and entries are inside their mapping and aligned, and each
    // mapping moves into its ring. The socket is new, so we are the only user side, and the kernel
    // follows the protocol of its own rings.
    let kernel = unsafe {
        Kernel {
            rx: Consumer::new(rx),
            tx: Producer::new(tx),
            fill: Producer::new(fill),
            completion: Consumer::new(completion),
            umem: *umem,
            fd,
        }
    };
    let mut socket = Socket::new(kernel, config);
    socket.refill(pool);
    Ok(socket)
}

/// A socket of the address family.
pub(crate) fn new_socket() -> Result<OwnedFd, Error> {
    sys::socket().map_err(|source| match source.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => Error::NoAfXdp,
        Some(libc::EPERM | libc::EACCES) => Error::Permission,
        _ => Error::System { what: "opening an AF_XDP socket", source },
    })
}

/// Sets the size of a ring.
pub(crate) fn set_ring(fd: BorrowedFd<'_>, name: libc::c_int, size: u32) -> Result<(), Error> {
    sys::set_option(fd, name, size).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOBUFS) => Error::KernelMemory { what: "the rings of an AF_XDP socket" },
        _ => Error::System { what: "setting the size of an AF_XDP ring", source },
    })
}

/// Registers the memory with a socket of its own.
fn register(umem: &Umem, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let octets = umem.octets();
    let memory = UmemReg {
        addr: umem.base().as_ptr() as u64,
        len: octets as u64,
        chunk_size: umem.chunk_size().octets() as u32,
        headroom: HEADROOM as u32,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: a UMEM is never unmapped. What is put on a ring comes out of a `Frame` or `Chunk`, which
    // is consumed, and `Held` lets it be owned again only when the kernel has given it back.
    let register = || unsafe { sys::register(fd, &memory) };
    let mut result = register();
    if let Err(error) = &result
        && matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN))
        && sys::raise_locked_memory()
    {
        result = register();
    }
    result.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOBUFS | libc::EAGAIN) => {
            Error::LockedMemory { octets, limit: sys::locked_memory().map_or(0, |limit| limit.rlim_cur) }
        }
        Some(libc::ENOMEM) => Error::KernelMemory { what: "registering packet memory" },
        _ => Error::System { what: "registering packet memory", source },
    })
}

/// Maps a ring and finds its words.
pub(crate) fn parts<T>(
    fd: BorrowedFd<'_>,
    page_offset: i64,
    offsets: &RingOffsets,
    size: u32,
) -> Result<Parts<T, Mapping>, Error> {
    let failed = |source| Error::System { what: "mapping an AF_XDP ring", source };
    let entries = size as usize * size_of::<T>();
    let memory = Mapping::new(fd, page_offset, offsets.desc as usize + entries).map_err(failed)?;
    // A layout that does not fit the size just mapped would be a kernel that we do not know.
    let strange = || failed(io::Error::from_raw_os_error(libc::EPROTO));
    let word = |offset| memory.at::<AtomicU32>(offset, 1).ok_or_else(strange);
    Ok(Parts {
        producer: word(offsets.producer)?,
        consumer: word(offsets.consumer)?,
        flags: word(offsets.flags)?,
        entries: memory.at(offsets.desc, size as usize).ok_or_else(strange)?,
        size,
        _memory: memory,
    })
}
