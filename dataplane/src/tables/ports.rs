//! Interfaces, their VLANs, and tunnels' devices, as packets meet them.

use crate::packet::{AdjacencyId, DropReason, Exit, Packet, PortId, Traits, TunnelId, Vrf};
use std::net::IpAddr;
use wire::Mac;

/// What kind of port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A Linux interface with rings of ours.
    Interface,
    /// A VLAN of one.
    Vlan {
        /// The interface.
        parent: PortId,
        /// Its tag, 1..=4094.
        id: u16,
    },
    /// The device of a tunnel: what it hands us goes into the tunnel as it is.
    Tunnel {
        /// The tunnel.
        tunnel: TunnelId,
        /// Where packets from the device go: keeping their Ethernet header if it is a TAP.
        into: AdjacencyId,
        /// Ethernet frames rather than bare IP packets.
        ethernet: bool,
    },
    /// `penstock0`: the way to the host for what has no device of its own.
    Punt,
}

/// What the source of a received packet is checked against (RFC 3704).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// Nothing.
    Off,
    /// There is a route to it, be it the default route (§2.4).
    Loose,
    /// The best route to it leaves by the port that received the packet, or one of several equal ones does (§2.2).
    Strict,
}

impl ReversePath {
    /// As the configuration spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Loose => "loose",
            Self::Strict => "strict",
        }
    }
}

/// One port.
#[derive(Clone, Debug)]
pub struct Port {
    /// What kind.
    pub kind: PortKind,
    /// As in the configuration.
    pub name: String,
    /// Where its packets are looked up.
    pub vrf: Vrf,
    /// Its own MAC.
    pub mac: Mac,
    /// Largest IP packet, octets.
    pub mtu: u16,
    /// What the sources of its packets are checked against.
    pub rpf: ReversePath,
    /// Its addresses in the kernel's order: the first is the source of ICMP errors.
    pub addresses: Vec<IpAddr>,
}

/// All ports by id.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    ports: Vec<Port>,
    /// VLANs of all interfaces: few, so a list.
    vlans: Vec<(PortId, u16, PortId)>,
    /// Whether sources are checked of some that a port receives: of its own packets, or of a VLAN's.
    filters: Vec<bool>,
}

impl Ports {
    /// By id, in order.
    pub fn new(ports: Vec<Port>) -> Self {
        let vlans = ports
            .iter()
            .enumerate()
            .filter_map(|(at, port)| match port.kind {
                PortKind::Vlan { parent, id } => Some((parent, id, PortId(at as u16))),
                _ => None,
            })
            .collect();
        let mut filters: Vec<bool> = ports.iter().map(|port| port.rpf != ReversePath::Off).collect();
        for port in ports.iter().filter(|port| port.rpf != ReversePath::Off) {
            if let PortKind::Vlan { parent, .. } = port.kind
                && let Some(filters) = filters.get_mut(parent.index())
            {
                *filters = true;
            }
        }
        Self { ports, vlans, filters }
    }

    /// The port of an id.
    #[inline(always)]
    pub fn get(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, &Port)> {
        self.ports.iter().enumerate().map(|(at, port)| (PortId(at as u16), port))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Whether the sources of some packets that a port receives are checked.
    #[inline(always)]
    pub fn filters(&self, id: PortId) -> bool {
        self.filters.get(id.index()).copied().unwrap_or(false)
    }

    /// Reads the link-layer header of a received frame: which port and VRF it belongs to, and where its IP header
    /// is. That the frame is addressed to us, XDP has seen.
    ///
    /// # Errors
    ///
    /// Drops what is cut, not IP, or tagged with a VLAN that nobody has.
    #[inline(always)]
    pub fn enter(&self, packet: &mut Packet) -> Result<(), Exit> {
        let tag = packet.read_ethernet()?;
        let mut port = packet.ingress;
        // IEEE 802.1Q §9.6: identifier 0 is a priority tag, the frame is untagged.
        if tag != 0 {
            port = self.vlan(port, tag).ok_or(Exit::Drop(DropReason::UnknownVlan))?;
            packet.traits.set(Traits::TAGGED);
        }
        packet.vrf = self.get(port).map_or(Vrf::DEFAULT, |port| port.vrf);
        packet.ingress = port;
        Ok(())
    }

    fn vlan(&self, parent: PortId, id: u16) -> Option<PortId> {
        self.vlans.iter().find(|vlan| vlan.0 == parent && vlan.1 == id).map(|vlan| vlan.2)
    }
}
