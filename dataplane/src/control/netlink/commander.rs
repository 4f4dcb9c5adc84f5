//! Orders to the kernel, each acknowledged before the next but for [`routes`], which are many.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use sys::poll::{PollFd, PollFlags};

use super::{Channel, Error, Order, Raw, message};
use crate::control::host::{IfIndex, Link, Neigh, NeighState};

pub(super) mod routes;

/// Receive buffer in octets of kernel memory, of which a refusal takes about a thousand.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;

/// Configures links, addresses, routes and neighbours of the network namespace in which it was
/// opened. Needs CAP_NET_ADMIN for all but reading. Waits for the kernel's answer, microseconds.
pub struct Commander(Channel);

impl Commander {
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open().map_err(Error::Open)?;
        // Dumps come as fast as they are read; what takes room is a thousand refusals at once.
        sys::netdev::set_receive_buffer(&channel, RECEIVE_BUFFER_OCTETS).map_err(Error::Open)?;
        Ok(Self(channel))
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that cannot be one.
    pub fn link(&mut self, name: &str) -> Result<Option<(IfIndex, Link)>, Error> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut found = None;
        let result = self.exchange(RouteNetlinkMessage::GetLink(request), 0, |answer| {
            if let Some(RouteNetlinkMessage::NewLink(link)) = answer.decode() {
                found = message::link(&link);
            }
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            other => refused(other, || format!("look up {name}")).map(|()| found),
        }
    }

    /// Switches a link on or off.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_up(&mut self, ifindex: IfIndex, up: bool) -> Result<(), Error> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        request.header.change_mask = LinkFlags::Up;
        if up {
            request.header.flags = LinkFlags::Up;
        }
        let state = if up { "up" } else { "down" };
        self.order(RouteNetlinkMessage::SetLink(request), 0, || format!("set {} {state}", name(ifindex)))
    }

    /// Sets the MTU of a link, in octets of layer 3.
    ///
    /// # Errors
    /// [`Error::Refused`]: EINVAL outside what the driver allows.
    pub fn set_mtu(&mut self, ifindex: IfIndex, mtu: u32) -> Result<(), Error> {
        self.set_link(ifindex, LinkAttribute::Mtu(mtu), || format!("set the MTU of {} to {mtu}", name(ifindex)))
    }

    /// Sets the hardware address of a link.
    ///
    /// # Errors
    /// [`Error::Refused`]: EADDRNOTAVAIL for a group address, EOPNOTSUPP on a TUN.
    pub fn set_mac(&mut self, ifindex: IfIndex, mac: [u8; 6]) -> Result<(), Error> {
        self.set_link(ifindex, LinkAttribute::Address(mac.to_vec()), || format!("set the MAC of {}", name(ifindex)))
    }

    /// Puts an address on a link; nothing if it is there. IPv6 addresses are used at once, without
    /// duplicate address detection: there is nobody to ask at the end of a tunnel, and
    /// daemons could not bind for a second.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn add_address(&mut self, ifindex: IfIndex, address: IpNet) -> Result<(), Error> {
        let mut request = address_message(ifindex, address);
        if address.addr().is_ipv6() {
            request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.order(RouteNetlinkMessage::NewAddress(request), NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("put the address {address} on {}", name(ifindex))
        })
    }

    /// Takes an address off a link; nothing if it is not there.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn delete_address(&mut self, ifindex: IfIndex, address: IpNet) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelAddress(address_message(ifindex, address));
        let result = self.order(request, 0, || format!("take the address {address} off {}", name(ifindex)));
        unless(result, &[libc::EADDRNOTAVAIL])
    }

    /// The addresses of a link.
    ///
    /// # Errors
    /// [`Error::Dump`].
    pub fn addresses(&mut self, ifindex: IfIndex) -> Result<Vec<IpNet>, Error> {
        let mut request = AddressMessage::default();
        request.header.index = ifindex;
        let mut addresses = Vec::new();
        self.dump("addresses", RouteNetlinkMessage::GetAddress(request), |answer| {
            if let Some(RouteNetlinkMessage::NewAddress(found)) = answer.decode()
                    && let Some(((index, address), _)) = message::address(&found)
                    // IPv4 lists all of them to whom it cannot filter for.
                    && index == ifindex
            {
                addresses.push(address);
            }
        })?;
        Ok(addresses)
    }

    /// Asks the kernel to resolve a neighbour, as if it had a packet for it (NTF_USE): starts
    /// resolution or, when it is stale, has it confirmed. Undoes [`manage`](Self::manage).
    ///
    /// `known` is what the mirror knows of it. What was set by hand or needs no resolution
    /// is left alone, since the request would unset it: then `false`.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn resolve(&mut self, ifindex: IfIndex, address: IpAddr, known: Option<&Neigh>) -> Result<bool, Error> {
        self.ask(ifindex, address, known, None, "resolve")
    }

    /// Has the kernel keep a neighbour resolved from now on, by probing it before it goes
    /// stale (NTF_EXT_MANAGED, Linux 5.16). Asked again it changes nothing.
    ///
    /// `known` as in [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn manage(&mut self, ifindex: IfIndex, address: IpAddr, known: Option<&Neigh>) -> Result<bool, Error> {
        let managed = NeighbourExtFlags::Managed;
        self.ask(ifindex, address, known, Some(managed), "keep resolved")
    }

    /// Has the kernel ask a neighbour that it believes to know, now: one that does not answer at its old hardware
    /// address is resolved anew. Until then packets go where they went. Nothing for one that is not known, or set by
    /// hand. `managed` keeps what [`manage`](Self::manage) set.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn probe(
        &mut self,
        ifindex: IfIndex,
        address: IpAddr,
        known: Option<&Neigh>,
        managed: bool,
    ) -> Result<(), Error> {
        let believed =
            |known: &Neigh| matches!(known.state, NeighState::Reachable | NeighState::Stale | NeighState::Delay);
        let Some(mac) = known.filter(|known| believed(known)).and_then(|known| known.mac) else { return Ok(()) };
        let mut request = neighbour_message(ifindex, address);
        request.header.state = NeighbourState::Probe;
        request.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let result = self.order(RouteNetlinkMessage::NewNeighbour(request), NLM_F_REPLACE, || {
            format!("probe the neighbour {address} on {}", name(ifindex))
        });
        unless(result, &[libc::ENOENT])?;
        if managed {
            // A request that says "managed" changes no state, and one that does not ends it: so it takes two.
            self.manage(ifindex, address, known)?;
        }
        Ok(())
    }

    /// Forgets a neighbour; nothing if it is not known.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn delete_neighbour(&mut self, ifindex: IfIndex, address: IpAddr) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelNeighbour(neighbour_message(ifindex, address));
        let result = self.order(request, 0, || format!("delete the neighbour {address} of {}", name(ifindex)));
        unless(result, &[libc::ENOENT])
    }

    fn ask(
        &mut self,
        ifindex: IfIndex,
        address: IpAddr,
        known: Option<&Neigh>,
        managed: Option<NeighbourExtFlags>,
        verb: &str,
    ) -> Result<bool, Error> {
        if known.is_some_and(|known| matches!(known.state, NeighState::Permanent | NeighState::Noarp)) {
            return Ok(false);
        }
        let mut request = neighbour_message(ifindex, address);
        match managed {
            Some(flags) => request.attributes.push(NeighbourAttribute::ExtFlags(flags)),
            None => request.header.flags = NeighbourFlags::Use,
        }
        self.order(RouteNetlinkMessage::NewNeighbour(request), NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("{verb} the neighbour {address} on {}", name(ifindex))
        })?;
        Ok(true)
    }

    fn set_link(
        &mut self,
        ifindex: IfIndex,
        attribute: LinkAttribute,
        order: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        request.attributes.push(attribute);
        self.order(RouteNetlinkMessage::SetLink(request), 0, order)
    }

    fn order(&mut self, request: RouteNetlinkMessage, flags: u16, order: impl FnOnce() -> String) -> Result<(), Error> {
        refused(self.exchange(request, flags | NLM_F_ACK, |_| {}), order)
    }

    fn dump(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        each: impl FnMut(&Raw<'_>),
    ) -> Result<(), Error> {
        match self.exchange(request, NLM_F_DUMP, each) {
            Ok(()) => Ok(()),
            // A kernel without IPv6 has none of its tables.
            Err(source) if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => Ok(()),
            Err(source) => Err(Error::Dump { what, source }),
        }
    }

    /// Sends a request and reads its answers to the end: an acknowledgement, the end of a
    /// dump, or the one message that answers a plain question.
    fn exchange(&mut self, request: RouteNetlinkMessage, flags: u16, mut each: impl FnMut(&Raw<'_>)) -> io::Result<()> {
        let plain = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
        let mut octets = Vec::new();
        let sequence = self.0.append(request, flags, &mut octets);
        self.0.send(&octets)?;
        self.answers(|answer| {
            // What belongs to an earlier request that timed out is passed over.
            if answer.sequence != sequence {
                return None;
            }
            let outcome = answer.outcome();
            if outcome.is_none() {
                each(answer);
            }
            outcome.or_else(|| plain.then_some(Ok(())))
        })?
    }

    /// Hands every message for us to `each`, until that has the last one.
    fn answers<T>(&mut self, mut each: impl FnMut(&Raw<'_>) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let Some(datagram) = self.0.receive()? else {
                let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
                let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
                sys::poll::poll(&mut fds, Some(left))?;
                continue;
            };
            let port = self.0.port;
            let mut messages = datagram.messages().flatten();
            let last = messages.find_map(|message| if message.port == port { each(&message) } else { None });
            drop(messages);
            self.0.reuse(datagram);
            if let Some(last) = last {
                return Ok(last);
            }
        }
    }
}

/// The kernel answers as it takes a request; only a machine without memory keeps us waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

fn refused(result: io::Result<()>, order: impl FnOnce() -> String) -> Result<(), Error> {
    result.map_err(|source| Error::Refused { order: Order(order().into()), source })
}

/// Takes a refusal for success if it says that all is as it should be already.
fn unless(result: Result<(), Error>, fine: &[i32]) -> Result<(), Error> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| fine.contains(&errno)) => Ok(()),
        other => other,
    }
}

/// How an error message names a link.
fn name(ifindex: IfIndex) -> String {
    sys::netdev::name(ifindex).unwrap_or_else(|_| format!("interface {ifindex}"))
}

fn address_message(ifindex: IfIndex, address: IpNet) -> AddressMessage {
    let mut request = AddressMessage::default();
    request.header.family = message::family(address.addr());
    request.header.prefix_len = address.prefix_len();
    request.header.index = ifindex;
    request.header.scope = AddressScope::Universe;
    request.attributes.push(AddressAttribute::Local(address.addr()));
    request.attributes.push(AddressAttribute::Address(address.addr()));
    request
}

fn neighbour_message(ifindex: IfIndex, address: IpAddr) -> NeighbourMessage {
    let mut request = NeighbourMessage::default();
    request.header.family = message::family(address);
    request.header.ifindex = ifindex;
    request.header.state = NeighbourState::None;
    request.attributes.push(NeighbourAttribute::Destination(address.into()));
    request
}
