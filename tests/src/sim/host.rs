//! A host at the edge: smoltcp with the habits that it lacks, behind a link without ARP.

use crate::frames::decode;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets that a host buffers of a TCP connection, each way.
const WINDOW: usize = 64 * 1024;
/// Pings that wait to be sent or read at most, and their octets.
const PINGS: (usize, usize) = (8, 64 * 1024);

/// A host with one address of each family.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    ping: SocketHandle,
    /// What its pings are known by: smoltcp shows a socket requests with its number too.
    ident: u16,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// Whether routers may not fragment what it sends; off, every IPv4 packet has a number and DF clear.
    pub dont_fragment: bool,
    /// Numbers IPv4 packets that may be fragmented.
    identification: u16,
    /// Largest packet that a router said would fit, octets; smoltcp does not keep it.
    pub told_mtu: Option<u32>,
}

/// Its network card: queues of IP packets.
struct Link {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Host {
    /// On the network `net` of the plan, with random numbers from `seed`.
    pub fn new(net: u8, mtu: u16, seed: u64) -> Self {
        let (v4, v6) = (Ipv4Addr::new(198, 18, net, 10), Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, 0x10));
        let mut link = Link { inbound: VecDeque::new(), outbound: VecDeque::new(), mtu: mtu.into() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|own| {
            for (address, length) in [(IpAddress::from(v4), 24), (v6.into(), 64)] {
                own.push(IpCidr::new(address, length)).expect("it has room for two");
            }
        });
        let (gateway4, gateway6) =
            (Ipv4Addr::new(198, 18, net, 1), Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, 1));
        interface.routes_mut().add_default_ipv4_route(gateway4).expect("it has room for two");
        interface.routes_mut().add_default_ipv6_route(gateway6).expect("it has room for two");
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; PINGS.0], vec![0; PINGS.1]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let ident = 0x5000 | u16::from(net);
        socket.bind(icmp::Endpoint::Ident(ident)).expect("it is not bound yet");
        let mut sockets = SocketSet::new(Vec::new());
        let ping = sockets.add(socket);
        Self { interface, sockets, link, ping, ident, v4, v6, dont_fragment: true, identification: 0, told_mtu: None }
    }

    /// Its address of a family.
    pub const fn address(&self, is_v6: bool) -> IpAddr {
        if is_v6 { IpAddr::V6(self.v6) } else { IpAddr::V4(self.v4) }
    }

    /// Takes a frame that its link delivers.
    pub fn receive(&mut self, frame: &[u8]) {
        // Path MTU discovery (RFC 1191 §3, RFC 8201 §4), which smoltcp leaves to others.
        if let Ok(decoded) = decode(frame)
            && let Some(ip) = decoded.ip
            && let Some((3, 4) | (2, 0)) = ip.icmp
            && let Some(mtu) = ip.payload.get(4..8).and_then(|rest| rest.first_chunk())
        {
            self.told_mtu = Some(u32::from_be_bytes(*mtu));
        }
        self.link.inbound.push_back(frame[14..].to_vec());
    }

    /// Answers what came and sends what is due.
    pub fn poll(&mut self, now_ns: u64) {
        self.interface.poll(instant(now_ns), &mut self.link, &mut self.sockets);
    }

    /// When it wants to be polled next, in nanoseconds.
    pub fn due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.interface.poll_at(instant(now_ns), &self.sockets)?;
        Some(due.total_micros().unsigned_abs() * 1_000)
    }

    /// The next IP packet that it sends.
    pub fn sent(&mut self) -> Option<Vec<u8>> {
        let mut packet = self.link.outbound.pop_front()?;
        if !self.dont_fragment && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            self.identification = self.identification.wrapping_add(1);
            packet[4..6].copy_from_slice(&self.identification.to_be_bytes());
            packet[6] &= !0x40;
            let mut header = smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet);
            header.fill_checksum();
        }
        Some(packet)
    }

    /// Sends an echo request as a packet of `length` octets, IP header included.
    pub fn send_ping(&mut self, to: IpAddr, sequence: u16, length: usize) {
        let data = pattern(sequence.into(), length - if to.is_ipv6() { 48 } else { 28 });
        let ident = self.ident;
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.ping);
        let checksums = checksums();
        match (self.v6, to) {
            (_, IpAddr::V4(_)) => {
                let echo = Icmpv4Repr::EchoRequest { ident, seq_no: sequence, data: &data };
                let room = socket.send(echo.buffer_len(), to.into()).expect("one ping at a time fits");
                echo.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums);
            }
            (from, IpAddr::V6(to6)) => {
                let echo = Icmpv6Repr::EchoRequest { ident, seq_no: sequence, data: &data };
                let room = socket.send(echo.buffer_len(), to.into()).expect("one ping at a time fits");
                echo.emit(&from, &to6, &mut Icmpv6Packet::new_unchecked(room), &checksums);
            }
        }
    }

    /// Whether the answer to ping `sequence` has come, with the data that was sent.
    pub fn has_answer(&mut self, from: IpAddr, sequence: u16) -> bool {
        let own = self.v6;
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.ping);
        while let Ok((octets, source)) = socket.recv() {
            if IpAddr::from(source) != from {
                continue;
            }
            let sum = checksums();
            let answer = match from {
                IpAddr::V4(_) => {
                    let packet = Icmpv4Packet::new_checked(octets).expect("smoltcp has looked");
                    match Icmpv4Repr::parse(&packet, &sum) {
                        Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) => Some((seq_no, data)),
                        _ => None,
                    }
                }
                IpAddr::V6(from) => {
                    let packet = Icmpv6Packet::new_checked(octets).expect("smoltcp has looked");
                    match Icmpv6Repr::parse(&from, &own, &packet, &sum) {
                        Ok(Icmpv6Repr::EchoReply { seq_no, data, .. }) => Some((seq_no, data)),
                        _ => None,
                    }
                }
            };
            if answer.is_some_and(|(number, data)| number == sequence && data == pattern(sequence.into(), data.len())) {
                return true;
            }
        }
        false
    }

    /// Waits for a connection.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = socket();
        socket.listen(port).expect("a port, and a fresh socket");
        self.sockets.add(socket)
    }

    /// Opens a connection.
    pub fn connect(&mut self, to: IpAddr, ports: (u16, u16)) -> SocketHandle {
        let mut socket = socket();
        socket.connect(self.interface.context(), (to, ports.1), ports.0).expect("ports, and a fresh socket");
        self.sockets.add(socket)
    }

    /// A connection.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Forgets a connection.
    pub fn close(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
    tcp::Socket::new(buffer(), buffer())
}

/// Every checksum is made and looked at.
fn checksums() -> smoltcp::phy::ChecksumCapabilities {
    let mut all = smoltcp::phy::ChecksumCapabilities::default();
    (all.icmpv4, all.icmpv6) = (Checksum::Both, Checksum::Both);
    all
}

/// Octets that differ with place and kind.
pub fn pattern(kind: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ kind.wrapping_mul(97)) as u8).collect()
}

const fn instant(ns: u64) -> Instant {
    Instant::from_micros_const((ns / 1_000) as i64)
}

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outlet<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Outlet<'_>)> {
        Some((Received(self.inbound.pop_front()?), Outlet(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outlet<'_>> {
        Some(Outlet(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, self.mtu);
        capabilities
    }
}

/// A packet on its way into smoltcp.
struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Where smoltcp puts a packet.
struct Outlet<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Outlet<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
