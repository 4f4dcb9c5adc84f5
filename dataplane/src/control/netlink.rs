//! rtnetlink: a mirror of the host's tables, and orders to the kernel.
//!
//! Synchronous, on sockets of their own: the [`Mirror`] only listens and asks for dumps, the
//! [`Commander`] only orders. What the messages look like is known in `message` and `route` alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

mod commander;
mod message;
mod mirror;
mod route;

pub use commander::Commander;
pub use commander::routes::{ExportedRoute, PROTOCOL, RouteOrder, Target};
pub use mirror::{Changes, Mirror};

/// What can go wrong between us and the kernel's tables.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket to be had.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The socket failed; a bug or a kernel without memory.
    #[error("netlink: {0}")]
    Socket(#[source] io::Error),
    /// A table could not be read.
    #[error("cannot read the kernel's {what}: {source}")]
    Dump {
        /// Which one: `links`, `IPv4 routes`…
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the kernel did not finish listing its {what} within {seconds} s")]
    Silent {
        /// Which table.
        what: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// The kernel refused an order.
    #[error("cannot {order}: {source}")]
    Refused {
        /// What was ordered, the interface named.
        order: Order,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Socket(source) | Self::Dump { source, .. } | Self::Refused { source, .. } => {
                source.raw_os_error()
            }
            Self::Silent { .. } => None,
        }
    }
}

/// What was ordered, in the words of an error message: `set the MTU of aws-a to 1450`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order(Box<str>);

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A netlink socket and the buffer that it reads into.
struct Channel {
    socket: Socket,
    /// The kernel's name for the socket: what answers to us is addressed to this.
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Datagrams are at most 32 KiB for dumps, except for a link with hundreds of virtual functions.
const BUFFER_OCTETS: usize = 256 << 10;

impl Channel {
    /// Non-blocking, in the calling thread's network namespace.
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let address = socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Checks dump requests, and filters by what they say (Linux 4.20).
        socket.set_netlink_get_strict_chk(true)?;
        // A refusal need not quote the whole request.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, port: address.port_number(), sequence: 0, buffer: vec![0; BUFFER_OCTETS] })
    }

    /// Appends a request to `batch`; its sequence number.
    fn append(&mut self, request: RouteNetlinkMessage, flags: u16, batch: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = batch.len();
        batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut batch[start..]);
        self.sequence
    }

    /// Appends a request that `netlink-packet-route` has no words for; its sequence number.
    fn append_raw(&mut self, kind: u16, body: &[u8], flags: u16, batch: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        batch.extend((Raw::HEADER_OCTETS as u32 + body.len() as u32).to_ne_bytes());
        batch.extend(kind.to_ne_bytes());
        batch.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        batch.extend(self.sequence.to_ne_bytes());
        // Who asks, the kernel knows.
        batch.extend(0_u32.to_ne_bytes());
        batch.extend(body);
        batch.resize(batch.len().next_multiple_of(4), 0);
        self.sequence
    }

    /// Sends what was appended. The kernel has dealt with all of it when this returns, but for the rest of a dump.
    fn send(&self, batch: &[u8]) -> io::Result<()> {
        self.socket.send_to(batch, &SocketAddr::new(0, 0), 0).map(|_| ())
    }

    /// Reads one datagram, if there is one. It holds the channel's buffer, to be [given back](Self::reuse).
    ///
    /// # Errors
    /// ENOBUFS when messages were lost; also for a datagram that was longer than the buffer.
    fn receive(&mut self) -> io::Result<Option<Datagram>> {
        let length = loop {
            match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if length > self.buffer.len() {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        Ok(Some(Datagram { buffer: std::mem::take(&mut self.buffer), length }))
    }

    fn reuse(&mut self, datagram: Datagram) {
        self.buffer = datagram.buffer;
    }

    /// Whether a message answers the request of that number, rather than tell of an event
    /// (which carries the number and port of whoever caused it).
    fn answers(&self, message: &Raw<'_>, sequence: u32) -> bool {
        message.sequence == sequence && message.port == self.port
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What one read from a socket gave: some messages.
struct Datagram {
    buffer: Vec<u8>,
    length: usize,
}

impl Datagram {
    /// Its messages; the last may be rubbish, and is then `None`.
    fn messages(&self) -> impl Iterator<Item = Option<Raw<'_>>> {
        let mut rest = &self.buffer[..self.length];
        std::iter::from_fn(move || {
            let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
            let message = rest.get(..length).and_then(Raw::new);
            rest = match message {
                Some(_) => rest.get(length.next_multiple_of(4)..).unwrap_or_default(),
                None => &[],
            };
            Some(message)
        })
    }
}

/// A message as it came: struct nlmsghdr and what follows it.
#[derive(Clone, Copy)]
struct Raw<'a> {
    /// RTM_* or NLMSG_*.
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    octets: &'a [u8],
}

impl<'a> Raw<'a> {
    const HEADER_OCTETS: usize = 16;

    fn new(octets: &'a [u8]) -> Option<Self> {
        let (&[_, _, _, _, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3], _) = octets.split_first_chunk::<16>()?;
        Some(Self {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            octets,
        })
    }

    fn body(&self) -> &'a [u8] {
        &self.octets[Self::HEADER_OCTETS..]
    }

    /// In the words of `netlink-packet-route`, where it has them.
    fn decode(&self) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::deserialize(self.octets).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }

    /// How a request went, if this is its last answer: an acknowledgement, an error, or the end of a dump.
    fn outcome(&self) -> Option<io::Result<()>> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let code = self.body().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        Some(if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) })
    }
}

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const RTM_NEWNEXTHOPBUCKET: u16 = 116;
const RTM_DELNEXTHOPBUCKET: u16 = 117;

#[cfg(test)]
pub(crate) mod tests;
