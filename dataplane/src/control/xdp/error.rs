//! What can go wrong, and which of it an error of the kernel's is.

use super::BPFFS;
use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use rustix::io::Errno;
use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

/// What can go wrong with the XDP program.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Not allowed.
    #[error("{action} needs CAP_BPF and CAP_NET_ADMIN: run as root, or grant them")]
    Privilege {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel does not take the program or its maps.
    #[error("the kernel refuses the XDP program: Linux 6.1 or newer is needed, with BPF and BTF")]
    Load(#[source] EbpfError),
    /// The verifier or the loader does not take the program.
    #[error("the kernel refuses the XDP program: {0}: Linux 6.1 or newer is needed")]
    Verify(Refusal),
    /// The embedded object lacks something: it is not the one that this version was built with.
    #[error("the embedded XDP object has no `{name}`: rebuild it from its source")]
    Object {
        /// A program or map.
        name: &'static str,
    },
    /// No such device.
    #[error("{device}: no such device")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// Somebody else's program.
    #[error(
        "{device}: another XDP program is attached: stop whoever attached it, `ip link set dev {device} xdp off`, or \
         remove the file that keeps it below {BPFFS}"
    )]
    Busy {
        /// The device.
        device: String,
    },
    /// Frames that do not fit the driver's buffers.
    #[error("{device}: its MTU is larger than its driver takes with XDP: lower it, or use `mode = \"generic\"`")]
    Mtu {
        /// The device.
        device: String,
    },
    /// No XDP in the driver.
    #[error("{device}: its driver cannot run XDP: use `mode = \"generic\"`")]
    Driver {
        /// The device.
        device: String,
    },
    /// Anything else about attaching.
    #[error("{device}: the XDP program cannot be attached")]
    Attach {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A map has no room.
    #[error("more than {limit} {what}: that is what the XDP program has room for")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How many would fit.
        limit: u32,
    },
    /// A number that has no place in the tables.
    #[error("{what} {value}: it must be below {limit}")]
    Range {
        /// What the number counts.
        what: &'static str,
        /// The number.
        value: u32,
        /// The first that is too large.
        limit: u32,
    },
    /// A map cannot be read or written.
    #[error("the XDP program's {what} cannot be changed or read")]
    Map {
        /// What is in the map.
        what: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// No place to leave a program behind.
    #[error(
        "{0}: `fallback = \"drop\"` needs a BPF file system there, and mounting it failed: `mount -t bpf bpf {0}` as root",
        path.display()
    )]
    Bpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A link cannot be left behind, or one that was left is in the way.
    #[error("{}: the link of the XDP program cannot be kept there", path.display())]
    Pin {
        /// The file in bpffs.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the verifier minds: of its log, which lists every instruction on the way, what it says last.
#[derive(Debug)]
pub struct Refusal(pub(super) ProgramError);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProgramError::LoadError { io_error, verifier_log } = &self.0 else { return write!(f, "{}", self.0) };
        write!(f, "{io_error}")?;
        last_words(&verifier_log.to_string()).map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

pub(super) fn last_words(log: &str) -> Option<&str> {
    // Statistics come after them.
    let reason = log.split("verification time").next()?;
    reason.lines().map(str::trim).rfind(|line| !line.is_empty())
}

pub(super) fn attach_error(name: &str, error: ProgramError) -> XdpError {
    let device = name.into();
    match errno(&error) {
        Some(Errno::PERM | Errno::ACCESS) => XdpError::Privilege { action: "attaching the XDP program" },
        Some(Errno::NODEV | Errno::NXIO) => XdpError::NoDevice { device },
        _ if is_busy(&error) => XdpError::Busy { device },
        Some(Errno::RANGE) => XdpError::Mtu { device },
        Some(Errno::OPNOTSUPP) => XdpError::Driver { device },
        _ => XdpError::Attach { device, source: error },
    }
}

/// Another program is there: in this mode, or (EEXIST) in the other.
pub(super) fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(Errno::BUSY | Errno::EXIST))
}

pub(super) fn map_error(what: &'static str, limit: u32, error: MapError) -> XdpError {
    match errno(&error) {
        Some(Errno::TOOBIG | Errno::NOSPC) => XdpError::Full { what, limit },
        Some(Errno::PERM) => XdpError::Privilege { action: "changing the XDP program's maps" },
        _ => XdpError::Map { what, source: error },
    }
}

/// The system's error behind one of aya's, wherever in the chain it is.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Errno::from_io_error(io);
        }
        next = error.source();
    }
    None
}

pub(super) fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    match errno(error) {
        Some(errno) => errno.into(),
        None => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_verifier_says_its_reason_is_kept() {
        let log = "3: (61) r8 = *(u32 *)(r1 +0) ; R8=pkt(r=0)\n4: (16) if w8 == 0x0 goto pc+180\n\
            R8 pointer comparison prohibited\nverification time 479 usec\nstack depth 96\n";
        assert_eq!(last_words(log), Some("R8 pointer comparison prohibited"));
        assert_eq!(last_words(""), None);
    }
}
