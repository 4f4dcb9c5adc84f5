//! TUN and TAP devices (the kernel's `tun` driver).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::netdev;

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IP packets (IFF_TUN).
    Tun,
    /// Ethernet frames (IFF_TAP).
    Tap,
}

/// The program's end of a TUN or TAP device: what the kernel sends out of the device is read
/// here, what is written here the kernel receives on it. Non-blocking.
///
/// Without packet information and without virtio headers: each read or write is one bare
/// packet (TUN) or frame (TAP), which the kernel has segmented and whose checksums it has completed.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    kind: Kind,
}

impl Tun {
    /// Makes the device `name`, or attaches to it if it is there without a program.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN; EBUSY when another program has it; EINVAL when a device
    /// of that name is of another kind, or the name is not of 1 to 15 octets;
    /// ENOENT when the kernel lacks the `tun` driver.
    pub fn open(name: &str, kind: Kind) -> io::Result<Self> {
        let mut request = netdev::request(name)?;
        let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        let flags = match kind {
            Kind::Tun => libc::IFF_TUN,
            Kind::Tap => libc::IFF_TAP,
        } | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, and keeps no
        // pointer to it. The descriptor is open.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
        // The kernel writes back the name it took: it expands a `%d` in ours.
        let name = request.ifr_name.iter().map(|&letter| letter as u8).take_while(|&letter| letter != 0).collect();
        Ok(Self { fd, name: String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData)?, kind })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it carries.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the device outlives this value. A new one does not, one that was attached to
    /// stays as it was.
    ///
    /// # Errors
    /// As ioctl(2); none is known for an open device.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its argument as a number, not as a pointer. The
        // descriptor is open.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETPERSIST as _, libc::c_ulong::from(persistent)) })
    }

    /// Takes one packet that the kernel sent: its length, or `None` when none waits. What
    /// does not fit into `buffer` is lost, so make that the MTU and a link header at least.
    ///
    /// # Errors
    /// EBADFD when the device was deleted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(octets) => Ok(Some(octets)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands one packet to the kernel; `false` when it has no room now.
    ///
    /// # Errors
    /// EIO when the device is down, EINVAL when the packet is neither IPv4 nor IPv6 (TUN) or shorter
    /// than an Ethernet header (TAP), EBADFD when the device was deleted.
    pub fn write(&self, packet: &[u8]) -> io::Result<bool> {
        Self::written(rustix::io::write(&self.fd, packet))
    }

    /// Hands over one packet that lies in several pieces, as [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write); EINVAL for more than 1,024 pieces.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<bool> {
        Self::written(rustix::io::writev(&self.fd, pieces))
    }

    fn written(result: Result<usize, Errno>) -> io::Result<bool> {
        match result {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::{Capability, testable};
    use crate::netns;
    use crate::poll::{PollFd, PollFlags, poll};
    use std::process::Command;
    use std::time::{Duration, Instant};

    fn in_namespace(story: impl FnOnce() + Send) {
        if testable(Capability::NetAdmin) && testable(Capability::SysAdmin) {
            netns::in_new(story).expect("we may unshare");
        }
    }

    #[track_caller]
    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments}");
    }

    /// The next packet that `wanted` takes for the one meant; the kernel sends others too.
    #[track_caller]
    fn receive(tun: &Tun, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 2048];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let mut fds = [PollFd::new(tun, PollFlags::IN)];
            poll(&mut fds, Some(left)).expect("one open descriptor");
            while let Some(octets) = tun.read(&mut buffer).expect("the device is up") {
                if wanted(&buffer[..octets]) {
                    return buffer[..octets].to_vec();
                }
            }
        }
        panic!("no such packet in 10 s");
    }

    /// The answer to an ICMP echo request in IPv4 without options: addresses swapped,
    /// type 0, and the checksum corrected for that (RFC 1624).
    fn answer(request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[12..16].copy_from_slice(&request[16..20]);
        reply[16..20].copy_from_slice(&request[12..16]);
        reply[20] = 0;
        let sum = u32::from(u16::from_be_bytes([request[22], request[23]])) + 0x0800;
        let sum = (sum & 0xffff) + (sum >> 16);
        reply[22..24].copy_from_slice(&(sum as u16).to_be_bytes());
        reply
    }

    fn is_echo_request(packet: &[u8]) -> bool {
        packet.len() > 24 && packet[0] == 0x45 && packet[9] == 1 && packet[20] == 8
    }

    #[test]
    fn the_kernels_ping_over_a_tun_is_answered() {
        in_namespace(|| {
            let tun = Tun::open("tun0", Kind::Tun).expect("the namespace is ours");
            assert_eq!((tun.name(), tun.kind()), ("tun0", Kind::Tun));
            ip("address add 192.0.2.1/24 dev tun0");
            ip("link set tun0 up");
            let mut ping = Command::new("ping")
                .args(["-c", "1", "-W", "10", "192.0.2.2"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("ping is installed");
            let reply = answer(&receive(&tun, is_echo_request));
            // In pieces, as a chain of frames would be.
            let pieces = [IoSlice::new(&reply[..20]), IoSlice::new(&reply[20..21]), IoSlice::new(&reply[21..])];
            assert!(tun.write_vectored(&pieces).expect("the device is up"));
            assert!(ping.wait().expect("ping ends").success());
        });
    }

    #[test]
    fn the_kernels_ping_over_a_tap_is_answered() {
        in_namespace(|| {
            let tap = Tun::open("tap0", Kind::Tap).expect("the namespace is ours");
            ip("address add 192.0.2.1/24 dev tap0");
            ip("link set tap0 up");
            ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0");
            let mut ping = Command::new("ping")
                .args(["-c", "1", "-W", "10", "192.0.2.2"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("ping is installed");
            let frame = receive(&tap, |frame| frame.len() > 14 && is_echo_request(&frame[14..]));
            assert_eq!(frame[..6], [2, 0, 0, 0, 0, 2]);
            let reply = [&frame[6..12], &frame[..6], &frame[12..14], &answer(&frame[14..])].concat();
            assert!(tap.write(&reply).expect("the device is up"));
            assert!(ping.wait().expect("ping ends").success());
        });
    }

    /// Tries until other tests' children let go: between fork and exec they hold copies of
    /// our descriptors.
    #[track_caller]
    fn eventually<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match attempt() {
                Ok(result) => return result,
                Err(error) => assert!(Instant::now() < deadline, "10 s long: {error}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_a_persistent_device_outlives_its_program() {
        in_namespace(|| {
            let tun = Tun::open("tun0", Kind::Tun).expect("the namespace is ours");
            let index = netdev::index("tun0").expect("made");
            tun.set_persistent(true).expect("ours");
            drop(tun);
            assert_eq!(netdev::index("tun0").expect("persistent"), index);

            let tun = eventually(|| Tun::open("tun0", Kind::Tun));
            assert_eq!(netdev::index("tun0").expect("the same device"), index);
            tun.set_persistent(false).expect("ours");
            drop(tun);
            eventually(|| match netdev::index("tun0") {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                _ => Err(io::ErrorKind::AlreadyExists.into()),
            });
        });
    }

    #[test]
    fn a_device_in_use_or_of_another_kind_is_refused() {
        in_namespace(|| {
            let tun = Tun::open("tun0", Kind::Tun).expect("the namespace is ours");
            let error = Tun::open("tun0", Kind::Tun).expect_err("in use");
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
            tun.set_persistent(true).expect("ours");
            drop(tun);
            for (name, kind) in [("tun0", Kind::Tap), ("lo", Kind::Tun)] {
                let error = Tun::open(name, kind).expect_err("another kind");
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name}");
            }
        });
    }

    #[test]
    fn rubbish_and_a_device_that_is_down_are_errors_not_losses() {
        in_namespace(|| {
            let tun = Tun::open("tun0", Kind::Tun).expect("the namespace is ours");
            assert_eq!(tun.read(&mut [0; 64]).expect("nothing waits"), None);
            let down = tun.write(&[0x45; 20]).expect_err("the device is down");
            assert_eq!(down.raw_os_error(), Some(libc::EIO));
            ip("link set tun0 up");
            let rubbish = tun.write(&[0x15; 20]).expect_err("neither IPv4 nor IPv6");
            assert_eq!(rubbish.raw_os_error(), Some(libc::EINVAL));
        });
    }
}
