//! rtnetlink: a mirror of the host's tables, and orders to the kernel.
//!
//! Synchronous, on two sockets: the [`Mirror`] only listens and asks for dumps, the
//! [`Commander`] only orders. What the messages look like is known in `message` alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

mod commander;
mod message;
mod mirror;

pub use commander::{Commander, ExportedRoute, PROTOCOL, Target};
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

type Message = NetlinkMessage<RouteNetlinkMessage>;

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
        Ok(Self { socket, port: address.port_number(), sequence: 0, buffer: vec![0; BUFFER_OCTETS] })
    }

    /// Sends a request; its sequence number.
    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        self.socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
        Ok(self.sequence)
    }

    /// Reads one datagram and hands each message in it to `each`, `None` for one that could
    /// not be decoded. Whether there was a datagram.
    ///
    /// # Errors
    /// ENOBUFS when messages were lost; also for a datagram that was longer than the buffer.
    fn receive(&mut self, mut each: impl FnMut(Option<Message>)) -> io::Result<bool> {
        let length = match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(mut rest) = self.buffer.get(..length) else {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        };
        while let Some(octets) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*octets) as usize;
            // A header is 16 octets; shorter or longer than what is there means rubbish.
            let Some(message) = rest.get(..length).filter(|_| length >= 16) else {
                each(None);
                break;
            };
            each(NetlinkMessage::deserialize(message).ok());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }

    /// Whether a message answers the request of that number, rather than tell of an event
    /// (which carries the number and port of whoever caused it).
    fn answers(&self, message: &Message, sequence: u32) -> bool {
        message.header.sequence_number == sequence && message.header.port_number == self.port
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The error that ends a dump or acknowledges a request, if it is one.
fn failure(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<io::Error> {
    let code = match payload {
        NetlinkPayload::Error(error) => error.code.map_or(0, |code| code.get()),
        NetlinkPayload::Done(done) => done.code,
        _ => 0,
    };
    (code < 0).then(|| io::Error::from_raw_os_error(-code))
}

#[cfg(test)]
pub(crate) mod tests;
