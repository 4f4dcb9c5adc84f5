//! Frames as the sink's kernel sees them.

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use sys::poll::{PollFd, PollFlags, poll};

/// A packet socket on all devices of a namespace.
pub struct Capture(OwnedFd);

impl Capture {
    /// In the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// As socket(2): EPERM without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        const ETH_P_IP: u32 = 0x0800;
        // In network order, and 16 bits wide.
        let protocol = std::num::NonZeroU32::new(u32::from((ETH_P_IP as u16).to_be())).map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
        // A short frame may occupy a page of the kernel's.
        sys::netdev::set_receive_buffer(&socket, 4 << 20)?;
        Ok(Self(socket))
    }

    /// Up to `count` frames, as far as they come within a time.
    ///
    /// # Errors
    ///
    /// As recv(2).
    pub fn frames(&self, count: usize, patience: Duration) -> io::Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while frames.len() < count {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => frames.push(buffer[..length].to_vec()),
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(left))? == 0 && left.is_zero() {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(frames)
    }
}
