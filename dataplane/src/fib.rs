//! VRF and address to adjacency: what every packet asks.

use crate::packet::{AdjacencyId, Batch, Family, Vrf};
use lpm::{Reader4, Reader6, Value};
use std::net::IpAddr;
use wire::Ipv6;

/// Which address of a packet is looked up.
const SOURCE: bool = true;
const DESTINATION: bool = false;

/// The reading side of both tables. Cheap to clone; the writer goes on while it is read.
#[derive(Clone, Debug)]
pub struct Fib {
    /// IPv4 routes of all VRFs.
    pub v4: Reader4,
    /// IPv6 routes of all VRFs.
    pub v6: Reader6,
}

impl Fib {
    /// Sets the adjacency of every packet; [`AdjacencyId::NONE`] where there is no route.
    #[inline]
    pub fn lookup(&self, batch: &mut Batch) {
        if self.lookup_v4::<DESTINATION>(batch) {
            self.lookup_v6::<DESTINATION>(batch);
        }
    }

    /// The same for the way back, to the packets' sources.
    #[inline(never)]
    pub fn lookup_sources(&self, batch: &mut Batch) {
        if self.lookup_v4::<SOURCE>(batch) {
            self.lookup_v6::<SOURCE>(batch);
        }
    }

    /// The IPv4 packets; returns whether there are others.
    #[inline(always)]
    fn lookup_v4<const END: bool>(&self, batch: &mut Batch) -> bool {
        let mut vrfs = [0u16; Batch::SIZE];
        let mut addresses = [0u32; Batch::SIZE];
        let mut values = [None; Batch::SIZE];
        let mut others = false;
        for packets in batch.chunks_mut() {
            let mut count = 0;
            for packet in packets.iter() {
                if packet.family == Family::V4 {
                    vrfs[count] = packet.vrf.0;
                    addresses[count] = packet.ipv4().map_or(0, |header| match END {
                        SOURCE => header.source.value(),
                        DESTINATION => header.destination.value(),
                    });
                    count += 1;
                } else {
                    others = true;
                }
            }
            self.v4.lookup_batch(&vrfs[..count], &addresses[..count], &mut values[..count]);
            let mut found = values[..count].iter();
            for packet in packets.iter_mut().filter(|packet| packet.family == Family::V4) {
                packet.adjacency = found.next().map_or(AdjacencyId::NONE, |value| adjacency(*value));
            }
        }
        others
    }

    #[inline(never)]
    fn lookup_v6<const END: bool>(&self, batch: &mut Batch) {
        let mut vrfs = [0u16; Batch::SIZE];
        let mut addresses = [0u128; Batch::SIZE];
        let mut values = [None; Batch::SIZE];
        for packets in batch.chunks_mut() {
            let mut count = 0;
            for packet in packets.iter() {
                if packet.family == Family::V6 {
                    vrfs[count] = packet.vrf.0;
                    addresses[count] = packet.ipv6().map_or(
                        0,
                        match END {
                            SOURCE => Ipv6::source_bits,
                            DESTINATION => Ipv6::destination_bits,
                        },
                    );
                    count += 1;
                }
            }
            self.v6.lookup_batch(&vrfs[..count], &addresses[..count], &mut values[..count]);
            let mut found = values[..count].iter();
            for packet in packets.iter_mut().filter(|packet| packet.family == Family::V6) {
                packet.adjacency = found.next().map_or(AdjacencyId::NONE, |value| adjacency(*value));
            }
        }
    }

    /// A single answer, for the slow path and `show`.
    pub fn lookup_one(&self, vrf: Vrf, address: IpAddr) -> AdjacencyId {
        adjacency(match address {
            IpAddr::V4(address) => self.v4.lookup(vrf.0, address.to_bits()),
            IpAddr::V6(address) => self.v6.lookup(vrf.0, address.to_bits()),
        })
    }
}

#[inline(always)]
fn adjacency(value: Option<Value>) -> AdjacencyId {
    value.map_or(AdjacencyId::NONE, |value| AdjacencyId(value.as_u16().into()))
}
