//! What the XDP program decides about a received frame: the kernel's, or a worker's.
//!
//! The same code runs in the kernel, around the packet of an XDP context and BPF maps, and on the host, around
//! slices and [`HostTables`]: for tests, for `replay`, which has no XDP, and for `explain`. It reads headers
//! through [`wire::Octets`] and asks [`Host`] what only tables know.
//!
//! It is written for the verifier: no loop without a small bound, no slice, no recursion, no panic.
//!
//! Left out on purpose: whether an IP header is sound (the worker checks once, and drops by name), whose tunnel it
//! is exactly (VNI, key, SPI), and where the packet goes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "host")]
extern crate alloc;

#[cfg(feature = "host")]
mod host;
#[cfg(feature = "samples")]
pub mod samples;
pub mod tables;
pub mod verdict;

#[cfg(feature = "host")]
pub use host::{At, HostTables};
pub use verdict::{PassReason, Verdict, WorkerReason};

use tables::{Interface, InterfaceFlags, Local, LocalV4, LocalV6, RouteV4, RouteV6, TunnelV4, TunnelV6};
use verdict::PassReason::*;
use wire::{
    Be16, Be32, EtherType, Ethernet, Icmp, Ipv4, Ipv6, Ipv6Fragment, Octets, Udp, VlanTag, icmpv4, icmpv6,
    is_extension, protocol,
};

/// IPv6 extension headers that are walked on the way to the transport header of a packet for us.
///
/// RFC 8200 §4.1 names seven, of which real packets carry one or two; beyond four the worker has a look.
pub const EXTENSIONS: usize = 4;

const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const IKE: u16 = 500;
const IPSEC_NAT: u16 = 4500;

/// What the tables answer. In the XDP program each question is one map lookup, or none.
pub trait Host {
    /// The interface for what the device at hand receives under this VLAN tag; 0: untagged.
    fn interface(&self, vlan: u16) -> Option<&Interface>;
    /// What an IPv4 address is to us.
    fn local_v4(&self, key: LocalV4) -> Local;
    /// What an IPv6 address is to us.
    fn local_v6(&self, key: LocalV6) -> Local;
    /// Whether a tunnel has these end points.
    fn tunnel_v4(&self, key: TunnelV4) -> bool;
    /// Whether a tunnel has these end points.
    fn tunnel_v6(&self, key: TunnelV6) -> bool;
    /// Whether the longest match for an IPv4 destination leaves by a device that is not ours.
    fn kernel_route_v4(&self, key: RouteV4) -> bool;
    /// Whether the longest match for an IPv6 destination leaves by a device that is not ours.
    fn kernel_route_v6(&self, key: RouteV6) -> bool;
}

/// What was decided, and about whose frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Where the frame goes.
    pub verdict: Verdict,
    /// The interface that the verdict is counted under, and whose fallback and sockets apply. `None` only with
    /// [`PassReason::UnknownInterface`], and with frames that end before their Ethernet header does.
    pub interface: Option<&'a Interface>,
}

/// Decides about one frame, its Ethernet header first.
#[inline(always)]
pub fn steer<'a, P: Octets + ?Sized, H: Host>(packet: &P, host: &'a H) -> Decision<'a> {
    let Some(ethernet) = packet.header::<Ethernet>(0) else {
        return Decision { verdict: Verdict::Pass(NotIp), interface: None };
    };
    let mut ethertype = ethernet.ethertype.value();
    let mut at = Ethernet::SIZE;
    let mut vlan = 0;
    if ethertype == EtherType::VLAN {
        let Some(tag) = packet.header::<VlanTag>(at) else {
            return Decision { verdict: Verdict::Pass(NotIp), interface: host.interface(0) };
        };
        ethertype = tag.ethertype.value();
        vlan = tag.id();
        at += VlanTag::SIZE;
    }
    let Some(interface) = host.interface(vlan) else {
        // Counted under the device that it came in by, if that is ours.
        let device = if vlan == 0 { None } else { host.interface(0) };
        let reason = if device.is_some() { UnknownVlan } else { UnknownInterface };
        return Decision { verdict: Verdict::Pass(reason), interface: device };
    };
    let verdict = layer2(packet, host, interface, ethernet, ethertype, at);
    Decision { verdict, interface: Some(interface) }
}

#[inline(always)]
fn layer2<P: Octets + ?Sized, H: Host>(
    packet: &P,
    host: &H,
    interface: &Interface,
    ethernet: &Ethernet,
    ethertype: u16,
    at: usize,
) -> Verdict {
    let v4 = ethertype == EtherType::IPV4;
    if !v4 && ethertype != EtherType::IPV6 {
        let tagged = ethertype == EtherType::VLAN || ethertype == EtherType::QINQ;
        return Verdict::Pass(if tagged { StackedTags } else { NotIp });
    }
    if ethernet.destination != interface.mac {
        return Verdict::Pass(if ethernet.destination.is_group() { GroupMac } else { NotOurMac });
    }
    if v4 { ipv4(packet, host, interface, at) } else { ipv6(packet, host, interface, at) }
}

#[inline(always)]
fn ipv4<P: Octets + ?Sized, H: Host>(packet: &P, host: &H, interface: &Interface, at: usize) -> Verdict {
    let Some(header) = Layer3::<u32>::read(packet, at) else { return Verdict::Worker(WorkerReason::Malformed) };
    match header.destination >> 24 {
        127 => return Verdict::Pass(Loopback),
        224..=239 => return Verdict::Pass(Multicast),
        _ => {}
    }
    if header.destination == u32::MAX {
        return Verdict::Pass(LimitedBroadcast);
    }
    if header.destination >> 16 == 0xa9fe {
        return Verdict::Pass(LinkLocal);
    }
    if header.udp_port(packet) == DHCP_CLIENT {
        return Verdict::Pass(Dhcp);
    }
    let vrf = interface.vrf;
    let local = host.local_v4(LocalV4 { vrf, address: header.destination });
    if local != Local::NONE
        && let Some(verdict) = for_us(packet, host, vrf, local, &header)
    {
        return verdict;
    }
    if interface.flags.has(InterfaceFlags::ROUTES_V4) && host.kernel_route_v4(RouteV4::new(vrf, header.destination)) {
        return Verdict::Pass(KernelRoute);
    }
    Verdict::Worker(WorkerReason::Forward)
}

#[inline(always)]
fn ipv6<P: Octets + ?Sized, H: Host>(packet: &P, host: &H, interface: &Interface, at: usize) -> Verdict {
    let Some(mut header) = Layer3::<[u32; 4]>::read(packet, at) else {
        return Verdict::Worker(WorkerReason::Malformed);
    };
    let first = header.destination[0];
    if first >> 24 == 0xff {
        return Verdict::Pass(Multicast);
    }
    if first >> 22 == 0xfe80 >> 6 {
        return Verdict::Pass(LinkLocal);
    }
    if header.destination == [0, 0, 0, 1] {
        return Verdict::Pass(Loopback);
    }
    if header.udp_port(packet) == DHCPV6_CLIENT {
        return Verdict::Pass(Dhcp);
    }
    let vrf = interface.vrf;
    let local = host.local_v6(LocalV6 { vrf, address: header.destination });
    if local != Local::NONE {
        // Only of what is for us does it matter what lies behind the extension headers.
        if let Err(reason) = header.walk(packet) {
            return Verdict::Worker(reason);
        }
        if let Some(verdict) = for_us(packet, host, vrf, local, &header) {
            return verdict;
        }
    }
    if interface.flags.has(InterfaceFlags::ROUTES_V6) && host.kernel_route_v6(RouteV6::new(vrf, header.destination)) {
        return Verdict::Pass(KernelRoute);
    }
    Verdict::Worker(WorkerReason::Forward)
}

/// What to do with a packet for an address that is something to us; `None`: as with any other.
#[inline(always)]
fn for_us<A: Address, P: Octets + ?Sized, H: Host>(
    packet: &P,
    host: &H,
    vrf: u32,
    local: Local,
    header: &Layer3<A>,
) -> Option<Verdict> {
    if local.has(Local::BROADCAST) {
        return Some(Verdict::Pass(SubnetBroadcast));
    }
    let port = header.udp_port(packet);
    // RFC 3948 §2.2: four octets of zero where an SPI would be. Only to addresses of ours: IKE between others is
    // traffic like any other, and the kernel may have no route for it.
    if port == IKE
        || port == IPSEC_NAT && packet.header::<Be32>(header.at + Udp::SIZE).is_some_and(|marker| marker.value() == 0)
    {
        return Some(Verdict::Pass(Ike));
    }
    if local.has(Local::TUNNEL) {
        let ends = Ends { vrf, local: header.destination, remote: header.source };
        let any = local.has(Local::ANY_REMOTE);
        if header.fragment {
            if A::tunnel(host, ends, any, 0, 0) {
                return Some(Verdict::Worker(WorkerReason::TunnelFragment));
            }
        } else if header.protocol == A::ICMP {
            if quotes_a_tunnel(packet, host, vrf, any, header) {
                return Some(Verdict::Worker(WorkerReason::TunnelError));
            }
        } else if A::tunnel(host, ends, any, header.protocol, port) {
            return Some(Verdict::Worker(WorkerReason::Tunnel));
        }
    }
    local.has(Local::OWN).then_some(Verdict::Pass(OwnAddress))
}

/// Whether this is an ICMP error about a packet that we sent into a tunnel: there we are the source.
#[inline(always)]
fn quotes_a_tunnel<A: Address, P: Octets + ?Sized, H: Host>(
    packet: &P,
    host: &H,
    vrf: u32,
    any: bool,
    header: &Layer3<A>,
) -> bool {
    let Some(icmp) = packet.header::<Icmp>(header.at) else { return false };
    if !A::is_error(icmp.kind) {
        return false;
    }
    let Some(quoted) = Layer3::<A>::read_quoted(packet, header.at + Icmp::SIZE) else { return false };
    let ends = Ends { vrf, local: quoted.source, remote: quoted.destination };
    if quoted.fragment {
        return A::tunnel(host, ends, any, 0, 0);
    }
    A::tunnel(host, ends, any, quoted.protocol, quoted.udp_port(packet))
}

/// What the decision needs of an IP header.
struct Layer3<A> {
    source: A,
    destination: A,
    /// Protocol or next header.
    protocol: u8,
    /// A part of a larger packet, the first included.
    fragment: bool,
    /// Where what follows the header starts.
    at: usize,
}

impl<A: Address> Layer3<A> {
    #[inline(always)]
    fn read<P: Octets + ?Sized>(packet: &P, at: usize) -> Option<Self> {
        A::read(packet, at)
    }

    /// A header within an ICMP error. We send IPv6 without extension headers, but for fragments.
    #[inline(always)]
    fn read_quoted<P: Octets + ?Sized>(packet: &P, at: usize) -> Option<Self> {
        let mut quoted = A::read(packet, at)?;
        quoted.fragment |= quoted.protocol == protocol::FRAGMENT;
        Some(quoted)
    }

    /// UDP destination port; 0 where there is none to read.
    #[inline(always)]
    fn udp_port<P: Octets + ?Sized>(&self, packet: &P) -> u16 {
        if self.protocol != protocol::UDP || self.fragment {
            return 0;
        }
        packet.header::<Udp>(self.at).map_or(0, |udp| udp.destination.value())
    }
}

impl Layer3<[u32; 4]> {
    /// Goes on behind the extension headers, as far as the transport header or a fragment header.
    #[inline(always)]
    fn walk<P: Octets + ?Sized>(&mut self, packet: &P) -> Result<(), WorkerReason> {
        for _ in 0..EXTENSIONS {
            if self.protocol == protocol::FRAGMENT {
                let fragment = packet.header::<Ipv6Fragment>(self.at).ok_or(WorkerReason::Malformed)?;
                self.fragment = true;
                self.protocol = fragment.next_header;
                return Ok(());
            }
            if !is_extension(self.protocol) {
                return Ok(());
            }
            // RFC 6564 §4: next header, then the length in units of 8 octets, not counting the first.
            let start = packet.header::<Be16>(self.at).ok_or(WorkerReason::Malformed)?.value();
            self.protocol = (start >> 8) as u8;
            self.at += ((start & 0xff) as usize + 1) * 8;
        }
        if is_extension(self.protocol) || self.protocol == protocol::FRAGMENT {
            return Err(WorkerReason::Extensions);
        }
        Ok(())
    }
}

/// The two ends of a tunnel, as a received packet shows them.
struct Ends<A> {
    vrf: u32,
    local: A,
    remote: A,
}

/// What differs between the families.
trait Address: Copy {
    const ICMP: u8;
    fn read<P: Octets + ?Sized>(packet: &P, at: usize) -> Option<Layer3<Self>>;
    /// Errors that report a packet's loss: a redirect quotes one too, but it is the kernel that may follow it.
    fn is_error(kind: u8) -> bool;
    /// Whether a tunnel has these ends, or this near end and any far one.
    fn tunnel<H: Host>(host: &H, ends: Ends<Self>, any: bool, protocol: u8, port: u16) -> bool;
}

impl Address for u32 {
    const ICMP: u8 = protocol::ICMP;

    #[inline(always)]
    fn read<P: Octets + ?Sized>(packet: &P, at: usize) -> Option<Layer3<Self>> {
        let header = packet.header::<Ipv4>(at)?;
        if header.version() != 4 || header.header_length() < Ipv4::SIZE {
            return None;
        }
        Some(Layer3 {
            source: header.source.value(),
            destination: header.destination.value(),
            protocol: header.protocol,
            fragment: header.is_fragment(),
            at: at + header.header_length(),
        })
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmpv4::is_error(kind) && kind != icmpv4::REDIRECT
    }

    #[inline(always)]
    fn tunnel<H: Host>(host: &H, ends: Ends<Self>, any: bool, protocol: u8, port: u16) -> bool {
        let Ends { vrf, local, remote } = ends;
        let mut key = TunnelV4 { vrf, remote, local, port, protocol, reserved: 0 };
        if host.tunnel_v4(key) {
            return true;
        }
        key.remote = 0;
        any && host.tunnel_v4(key)
    }
}

impl Address for [u32; 4] {
    const ICMP: u8 = protocol::ICMPV6;

    #[inline(always)]
    fn read<P: Octets + ?Sized>(packet: &P, at: usize) -> Option<Layer3<Self>> {
        let header = packet.header::<Ipv6>(at)?;
        if header.version() != 6 {
            return None;
        }
        Some(Layer3 {
            source: words(&header.source),
            destination: words(&header.destination),
            protocol: header.next_header,
            fragment: false,
            at: at + Ipv6::SIZE,
        })
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmpv6::is_error(kind) && kind != icmpv6::REDIRECT
    }

    #[inline(always)]
    fn tunnel<H: Host>(host: &H, ends: Ends<Self>, any: bool, protocol: u8, port: u16) -> bool {
        let Ends { vrf, local, remote } = ends;
        let mut key = TunnelV6 { vrf, remote, local, port, protocol, reserved: 0 };
        if host.tunnel_v6(key) {
            return true;
        }
        key.remote = [0; 4];
        any && host.tunnel_v6(key)
    }
}

#[inline(always)]
fn words(address: &[Be32; 4]) -> [u32; 4] {
    [address[0].value(), address[1].value(), address[2].value(), address[3].value()]
}
