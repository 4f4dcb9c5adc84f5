//! Link-layer headers: where the IP header is, and whose the frame is.

use super::{DropReason, Exit, Family, FlowHash, Packet, PuntReason, Traits};
use wire::{EtherType, Ethernet, Mac, Octets, VlanTag, protocol};

impl Packet {
    /// Reads the Ethernet header at the frame's start: sets family and `l3`. Returns the VLAN identifier; 0 if there
    /// is none.
    ///
    /// # Errors
    ///
    /// Drops what is cut or not IP.
    #[inline(always)]
    pub fn read_ethernet(&mut self) -> Result<u16, Exit> {
        let octets = self.frame.bytes();
        let header: &Ethernet = octets.header(0).ok_or(Exit::Drop(DropReason::Truncated))?;
        let mut ethertype = header.ethertype.value();
        let mut l3 = Ethernet::SIZE;
        let mut vlan = 0;
        if header.destination.is_group() {
            self.traits.set(Traits::LINK_GROUP);
        }
        if ethertype == EtherType::VLAN {
            let tag: &VlanTag = octets.header(l3).ok_or(Exit::Drop(DropReason::Truncated))?;
            (vlan, ethertype) = (tag.id(), tag.ethertype.value());
            l3 += VlanTag::SIZE;
        }
        self.family = family(ethertype).ok_or(Exit::Drop(DropReason::NotIp))?;
        self.l3 = l3 as u16;
        Ok(vlan)
    }

    /// Reads the Ethernet header inside a tunnel, whose own MAC is `own`.
    ///
    /// # Errors
    ///
    /// Not IP, or to a group: for the tunnel's device, if it has one. To somebody else: dropped.
    #[inline(always)]
    pub fn enter_inner_ethernet(&mut self, own: Mac, has_device: bool) -> Result<(), Exit> {
        let octets = self.frame.bytes();
        let header: &Ethernet = octets.header(0).ok_or(Exit::Drop(DropReason::Truncated))?;
        let family = family(header.ethertype.value());
        let (group, ours) = (header.destination.is_group(), header.destination == own);
        self.l3 = Ethernet::SIZE as u16;
        match family {
            _ if group && has_device => Err(Exit::Punt(PuntReason::Link)),
            _ if group => Err(Exit::Drop(DropReason::NoLocalPath)),
            _ if !ours => Err(Exit::Drop(DropReason::NotOurMac)),
            Some(family) => {
                self.family = family;
                Ok(())
            }
            None if has_device => Err(Exit::Punt(PuntReason::Link)),
            None => Err(Exit::Drop(DropReason::NotIp)),
        }
    }

    /// The frame is a bare IP packet out of a tunnel.
    ///
    /// # Errors
    ///
    /// Cut. To a group: for the tunnel's device, if it has one (OSPF, neighbour discovery).
    #[inline(always)]
    pub fn enter_inner_ip(&mut self, family: Family, has_device: bool) -> Result<(), Exit> {
        self.family = family;
        self.l3 = 0;
        let group = match family {
            Family::V4 => self.ipv4().map(|header| header.destination.value() >> 28 == 0xe),
            Family::V6 => self.ipv6().map(|header| header.destination_bits() >> 120 == 0xff),
        };
        match group {
            None => Err(Exit::Drop(DropReason::Truncated)),
            Some(true) if has_device => Err(Exit::Punt(PuntReason::Link)),
            Some(true) => Err(Exit::Drop(DropReason::NoLocalPath)),
            Some(false) => Ok(()),
        }
    }

    /// Reads what the kernel sent into a tunnel's device: an Ethernet frame or a bare IP packet. It may be anything,
    /// to groups too, so only what the outer header follows is taken from it.
    ///
    /// # Errors
    ///
    /// Drops a frame without an Ethernet header.
    pub fn read_own(&mut self, ethernet: bool, hash: &FlowHash) -> Result<(), Exit> {
        (self.tos, self.flow, self.protocol) = (0, 0, 0);
        let octets = self.frame.bytes();
        let ethertype = if ethernet {
            let header: &Ethernet = octets.header(0).ok_or(Exit::Drop(DropReason::Truncated))?;
            if header.destination.is_group() {
                self.traits.set(Traits::LINK_GROUP);
            }
            header.ethertype.value()
        } else {
            match octets.first().map(|first| first >> 4) {
                Some(4) => EtherType::IPV4,
                Some(6) => EtherType::IPV6,
                _ => return Err(Exit::Drop(DropReason::BadVersion)),
            }
        };
        self.l3 = if ethernet { Ethernet::SIZE as u16 } else { 0 };
        self.len = (self.frame.total() - usize::from(self.l3)) as u32;
        self.l4 = self.l3;
        // ARP and the like are short: their family does not matter.
        self.family = family(ethertype).unwrap_or(Family::V4);
        // The kernel's own packet: what parse refuses in it (a group as destination) is none of our business, but what
        // is no packet to a single host has nobody to tell an error.
        if family(ethertype).is_none() || self.parse(hash).is_err() {
            self.traits.set(Traits::LINK_GROUP);
            // Nothing behind its header is known to be right.
            self.protocol = protocol::NO_NEXT;
        }
        Ok(())
    }
}

#[inline(always)]
const fn family(ethertype: u16) -> Option<Family> {
    match ethertype {
        EtherType::IPV4 => Some(Family::V4),
        EtherType::IPV6 => Some(Family::V6),
        _ => None,
    }
}
