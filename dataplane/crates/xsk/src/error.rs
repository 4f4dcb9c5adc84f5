//! What can go wrong, each with its mend.

use std::io;

/// Why a UMEM or a socket could not be made, or why a socket died.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A UMEM has at least one chunk, and its size must be an address range.
    #[error("a UMEM of {chunks} chunks: it takes 1..={max}")]
    ChunkCount {
        /// What was asked for.
        chunks: usize,
        /// The most that this chunk size allows.
        max: usize,
    },
    /// The process cannot have that much memory.
    #[error("cannot map {octets} octets of packet memory: {source}")]
    Memory {
        /// The size of the UMEM.
        octets: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Ring positions are taken modulo the size.
    #[error("a {ring} ring of {size} entries: it takes a power of two, 2..=1048576")]
    RingSize {
        /// `rx`, `tx`, `fill` or `completion`.
        ring: &'static str,
        /// What was asked for.
        size: u32,
    },
    /// EAFNOSUPPORT: built without CONFIG_XDP_SOCKETS.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)")]
    NoAfXdp,
    /// EPERM, EACCES.
    #[error("AF_XDP needs the capability CAP_NET_RAW: run as root, or grant it")]
    Permission,
    /// ENODEV: it may just have been deleted.
    #[error("no interface with index {ifindex} in this network namespace")]
    NoInterface {
        /// The index.
        ifindex: u32,
    },
    /// ENETDOWN: the driver has no queues while the interface is down.
    #[error("interface {ifindex} is down: set it up first")]
    InterfaceDown {
        /// The index.
        ifindex: u32,
    },
    /// EBUSY, for longer than a former owner's release takes.
    #[error("queue {queue} of interface {ifindex} is in use by another AF_XDP socket: stop that program")]
    Busy {
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// ENOBUFS: pinned pages are charged to the user.
    #[error(
        "the locked-memory limit of {limit} octets does not allow {octets} of packet memory: grant CAP_IPC_LOCK, or raise it (`ulimit -l`, LimitMEMLOCK= in a systemd unit)"
    )]
    LockedMemory {
        /// The size of the UMEM.
        octets: usize,
        /// The limit in force.
        limit: u64,
    },
    /// ENOMEM: rings, pinned pages, or what the driver wanted.
    #[error("the kernel has not enough memory for {what}: use smaller rings or fewer frames")]
    KernelMemory {
        /// What it was for.
        what: &'static str,
    },
    /// EOPNOTSUPP, when nothing but zero-copy will do.
    #[error("queue {queue} of interface {ifindex} cannot do zero-copy: {reason}: ask for `auto` or `copy`")]
    ZeroCopyRefused {
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
        /// Why.
        reason: NotZeroCopy,
    },
    /// EOPNOTSUPP in copy mode.
    #[error("interface {ifindex} does not support AF_XDP")]
    Unsupported {
        /// The interface.
        ifindex: u32,
    },
    /// XDP_USE_SG came with Linux 6.6.
    #[error(
        "this kernel cannot receive a frame in several chunks (that takes Linux 6.6): use an MTU that fits one chunk"
    )]
    NoMultiBuffer,
    /// EINVAL at bind.
    #[error("the kernel refused queue {queue} of interface {ifindex}: is there such a queue?")]
    NoQueue {
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// The device of a bound socket is gone, or its TX ring is stuck: close it and bind again.
    #[error("the AF_XDP socket is dead ({source}): its interface is gone or was reset")]
    Dead {
        /// ENXIO or EINVAL as a rule.
        source: io::Error,
    },
    /// Anything else that a system call said.
    #[error("{what}: {source}")]
    System {
        /// Which call, on what.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a queue runs in copy mode although zero-copy was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotZeroCopy {
    pub(crate) errno: i32,
    pub(crate) multi_buffer: bool,
}

impl NotZeroCopy {
    /// What the driver answered.
    pub const fn errno(&self) -> i32 {
        self.errno
    }
}

impl std::fmt::Display for NotZeroCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            libc::EOPNOTSUPP if self.multi_buffer => {
                f.write_str("its driver has no AF_XDP zero-copy, or none for frames of several chunks")
            }
            libc::EOPNOTSUPP => f.write_str("its driver has no AF_XDP zero-copy"),
            libc::EINVAL => {
                f.write_str("its driver refuses zero-copy as configured (MTU, ring sizes or number of queues)")
            }
            libc::EBUSY => f.write_str("the queue's memory is in use by another subsystem"),
            libc::ENOMEM | libc::ENOSPC => f.write_str("its driver has not enough memory or queues for zero-copy"),
            errno => write!(f, "its driver refuses zero-copy: {}", io::Error::from_raw_os_error(errno)),
        }
    }
}
