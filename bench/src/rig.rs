//! A gateway in memory with 64 frames, 64 routes and no driver: only the page is left to be measured.
//!
//! The page changes the frames that it forwards, so between two rounds they are put back as they came. The clock
//! stands still meanwhile: a round's time is `run` and `transmit` alone, and one reading of the clock, which is half
//! a nanosecond for each packet of a batch.

use dataplane::fib::Fib;
use dataplane::packet::{AdjacencyId, Batch, DropReason, Exit, FlowHash, PortId, Stock, Time, TunnelId, Vrf};
use dataplane::pipeline::Pipeline;
use dataplane::qos::Shaper;
use dataplane::stats::{Tally, Totals};
use dataplane::tables::{Adjacencies, Adjacency, Locals, Port, PortKind, Ports, Resolution, Tables};
use dataplane::tunnel::{Ends, Kind, Outer, Tunnel, Tunnels, Vxlan};
use etherparse::PacketBuilder;
use lpm::{Limits, Prefix4, Prefix6, Value, Writer4, Writer6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use wire::{Ethernet, Mac, Rewrite, Vni};
use zerocopy::IntoBytes;

/// Frames in a batch, and routes.
pub const BATCH: usize = Batch::SIZE;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
const TUNNEL: TunnelId = TunnelId(0);
const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const TUNNEL_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const TUNNEL_PEER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
const VNI: u32 = 5001;
/// Octets of each frame, without the check sequence: the smallest that Ethernet has, for IPv4.
const FRAME: usize = 64;

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What happens to the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Routed.
    Plain(Ip),
    /// Inner IPv4, routed into a VXLAN tunnel over this underlay.
    Encap(Ip),
    /// Inner IPv4, out of a VXLAN tunnel over this underlay, and routed.
    Decap(Ip),
}

/// The gateway and its frames.
pub struct Rig {
    path: Path,
    tables: Tables,
    pipeline: Pipeline,
    batch: Batch,
    /// The frames that are not under way.
    at_rest: Batch,
    originals: Vec<Vec<u8>>,
}

impl Rig {
    /// A gateway for one path.
    pub fn new(path: Path) -> Self {
        let umem = xsk::Umem::new(4 * BATCH, xsk::ChunkSize::default()).expect("half a megabyte is there");
        let mut stock = Stock::new(umem.pool(64, 256), BATCH);
        let originals: Vec<_> = (0..BATCH).map(|at| frame(path, at)).collect();
        let mut at_rest = Batch::new();
        for octets in &originals {
            let frame = stock.frames.frame_of(octets).expect("there are more chunks than frames");
            at_rest.push(stock.wrap(frame, LAN, false, Time(0)));
        }
        let mut shaper = Shaper::new(2, 1024);
        shaper.open(PortId(0));
        shaper.open(PortId(1));
        let pipeline = Pipeline::new(shaper, Tally::new(2, 1, 2 + BATCH));
        let mut rig = Self { path, tables: tables(path), pipeline, batch: Batch::new(), at_rest, originals };
        rig.round();
        let totals = Totals::of([&*rig.pipeline.tally.page()]);
        assert_eq!(totals.forwarded, BATCH as u64, "every frame is forwarded: {totals:?}");
        rig
    }

    /// The time that `rounds` batches take from `run` to the end of `transmit`: so many times the median round.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        median((0..rounds).map(|_| self.round()).collect()) * rounds as u32
    }

    fn round(&mut self) -> Duration {
        self.receive();
        let start = Instant::now();
        self.pipeline.run(&mut self.batch, &self.tables, Time(0));
        self.pipeline.transmit(WAN, usize::MAX, &mut self.batch, &self.tables, Time(0));
        let took = start.elapsed();
        self.batch.drain().for_each(|packet| self.at_rest.push(packet));
        took
    }

    /// The time that `rounds` batches take through one stage: so many times the median.
    ///
    /// # Panics
    ///
    /// If a packet leaves in it.
    pub fn stage(&mut self, rounds: u64, stage: Stage) -> Duration {
        let mut took = Vec::new();
        for _ in 0..rounds {
            self.receive();
            for packet in self.batch.iter_mut() {
                self.tables.ports.enter(packet).expect("a frame of ours");
                if stage != Stage::Parse {
                    packet.parse(&self.tables.hash).expect("a packet of ours");
                }
            }
            took.push(self.timed(stage).expect("no packet leaves"));
            self.batch.drain().for_each(|packet| self.at_rest.push(packet));
        }
        median(took) * rounds as u32
    }

    fn timed(&mut self, stage: Stage) -> Result<Duration, Exit> {
        let Self { batch, tables, .. } = self;
        let mut identification = 0;
        let rewrite = tables.adjacencies.rewrite(AdjacencyId(1)).ok_or(Exit::Drop(DropReason::NoRoute))?;
        let start = Instant::now();
        match stage {
            Stage::Parse => batch.iter_mut().try_for_each(|packet| packet.parse(&tables.hash))?,
            Stage::Lookup => tables.fib.lookup(batch),
            Stage::Encap => batch
                .iter_mut()
                .try_for_each(|packet| dataplane::tunnel::apply(rewrite, packet, &mut identification))?,
            Stage::Decap => batch.iter_mut().try_for_each(|packet| tables.tunnels.decap(packet, &tables.hash))?,
        }
        Ok(start.elapsed())
    }

    /// What a driver does before `run`, without the rings.
    fn receive(&mut self) {
        let Self { at_rest, originals, batch, .. } = self;
        for (mut packet, original) in at_rest.drain().zip(originals) {
            let mut frame = packet.frame.take();
            let now = frame.total();
            if now > original.len() {
                frame.advance(now - original.len());
            } else {
                frame.prepend(original.len() - now).expect("as far as it was before");
            }
            frame.bytes_mut().copy_from_slice(original);
            packet.receive(frame, LAN, false, Time(0));
            batch.push(packet);
        }
    }

    /// Which path it measures.
    pub const fn path(&self) -> Path {
        self.path
    }
}

/// The median: a round in which the machine did something else says nothing about the page.
fn median(mut times: Vec<Duration>) -> Duration {
    let middle = times.len() / 2;
    if times.is_empty() { Duration::ZERO } else { *times.select_nth_unstable(middle).1 }
}

/// A stage of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `Packet::parse`.
    Parse,
    /// `Fib::lookup`.
    Lookup,
    /// `tunnel::apply`.
    Encap,
    /// `Tunnels::decap`: of what is the tunnel's, with `parse` of what is inside.
    Decap,
}

/// One route for each frame, each with a next hop of its own.
fn tables(path: Path) -> Tables {
    let mut v4 = Writer4::new(Limits::default()).expect("address space is there");
    let mut v6 = Writer6::new(Limits::default()).expect("address space is there");
    let mut adjacencies = Adjacencies::new();
    for at in 0..BATCH {
        let id = 1 + at as u16;
        let value = Value::new(id).expect("from 1 to 64");
        let (v4_net, v6_net) = (destination_v4(at).to_bits(), destination_v6(at).to_bits());
        v4.insert(0, Prefix4::containing(v4_net, 24).expect("24 is a length"), value).expect("there is room");
        v6.insert(0, Prefix6::containing(v6_net, 64).expect("64 is a length"), value).expect("there is room");
        let (adjacency, rewrite) = adjacency(path, at);
        adjacencies.set(AdjacencyId(id.into()), adjacency, rewrite);
    }
    let port = |name: &str, mac: [u8; 6], address: [IpAddr; 2]| Port {
        kind: PortKind::Interface,
        name: name.into(),
        vrf: Vrf::DEFAULT,
        mac: Mac::new(mac),
        mtu: 1500,
        addresses: address.into(),
    };
    let wan = [Ipv4Addr::new(192, 0, 2, 1).into(), "2001:db8:1::1".parse().expect("an address")];
    let lan = [Ipv4Addr::new(203, 0, 113, 1).into(), "2001:db8:2::1".parse().expect("an address")];
    let mut locals = Locals::default();
    for address in wan.into_iter().chain(lan) {
        locals.insert(Vrf::DEFAULT, address);
    }
    Tables {
        generation: 1,
        hash: FlowHash::default(),
        ports: Ports::new(vec![port("lan0", LAN_MAC, lan), port("wan0", WAN_MAC, wan)]),
        locals,
        tunnels: Tunnels::new(vec![Tunnel {
            name: "site".into(),
            kind: kind(),
            vrf: Vrf::DEFAULT,
            ends: ends(path),
            mtu: 1430,
            clamp: true,
            mac: Mac::new(TUNNEL_MAC),
            has_device: false,
            allowed_sources: None,
            addresses: Vec::new(),
        }]),
        fib: Fib { v4: v4.reader(), v6: v6.reader() },
        adjacencies,
    }
}

fn kind() -> Kind {
    Kind::Vxlan(Vxlan { vni: Vni::new(VNI).expect("24 bits"), port: wire::Vxlan::PORT })
}

fn ends(path: Path) -> Ends {
    let (local, remote) = match path {
        Path::Encap(Ip::V6) | Path::Decap(Ip::V6) => ("2001:db8:1::1", "2001:db8:ffff::7"),
        _ => ("192.0.2.1", "198.51.100.7"),
    };
    let parse = |address: &str| address.parse().expect("an address");
    Ends::new(Vrf::DEFAULT, parse(local), parse(remote)).expect("of one family")
}

fn adjacency(path: Path, at: usize) -> (Adjacency, Rewrite) {
    let mut rewrite = Rewrite::empty();
    let mut peer = PEER_MAC;
    peer[4] = at as u8;
    let (ethertype, tunnel) = match path {
        Path::Encap(Ip::V6) => (wire::EtherType::IPV6, TUNNEL),
        Path::Encap(Ip::V4) => (wire::EtherType::IPV4, TUNNEL),
        Path::Plain(Ip::V6) => (wire::EtherType::IPV6, TunnelId::NONE),
        _ => (wire::EtherType::IPV4, TunnelId::NONE),
    };
    rewrite.push(&peer);
    rewrite.push(&WAN_MAC);
    rewrite.push(&ethertype.to_be_bytes());
    if let Path::Encap(ip) = path {
        let outer = Outer {
            ends: ends(path),
            dscp: None,
            copy_ecn: true,
            ttl: Some(64),
            df: Some(true),
            udp_checksum: ip == Ip::V6,
        };
        kind().headers(&outer, Some((Mac::new(TUNNEL_PEER_MAC), Mac::new(TUNNEL_MAC))), &mut rewrite);
    }
    let adjacency = Adjacency {
        generation: 1,
        egress: WAN,
        queue: WAN,
        tunnel,
        mtu: 1430,
        resolution: Resolution::Ready,
        clamp: tunnel != TunnelId::NONE,
    };
    (adjacency, rewrite)
}

fn destination_v4(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, at as u8, 9)
}

fn destination_v6(at: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, at as u16, 0, 0, 0, 9)
}

/// The frame with number `at`, as it arrives.
fn frame(path: Path, at: usize) -> Vec<u8> {
    let ip = match path {
        Path::Plain(ip) => ip,
        _ => Ip::V4,
    };
    let (source, destination) = match path {
        Path::Decap(_) => (TUNNEL_PEER_MAC, TUNNEL_MAC),
        _ => (HOST_MAC, LAN_MAC),
    };
    let ethernet = PacketBuilder::ethernet2(source, destination);
    let host_v6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);
    let with_ip = match ip {
        Ip::V4 => ethernet.ipv4([203, 0, 113, 9], destination_v4(at).octets(), 64),
        Ip::V6 => ethernet.ipv6(host_v6.octets(), destination_v6(at).octets(), 64),
    };
    let with_udp = with_ip.udp(4000 + at as u16, 9);
    // The headers of IPv6 and UDP alone are 62 octets.
    let padding = vec![0; FRAME - with_udp.size(0)];
    let inside = written(|out| with_udp.write(out, &padding));
    let Path::Decap(outer) = path else { return inside };
    let vxlan = wire::Vxlan::new(Vni::new(VNI).expect("24 bits"));
    let payload = [vxlan.as_bytes(), &inside].concat();
    let ethernet = PacketBuilder::ethernet2(PEER_MAC, LAN_MAC);
    match (outer, ends(path).remote(), ends(path).local()) {
        (Ip::V4, IpAddr::V4(remote), IpAddr::V4(local)) => {
            let mut frame = written(|out| {
                ethernet
                    .ipv4(remote.octets(), local.octets(), 64)
                    .udp(49_152 + at as u16, wire::Vxlan::PORT)
                    .write(out, &payload)
            });
            // Over IPv4 the checksum is left out.
            frame[Ethernet::SIZE + 26..Ethernet::SIZE + 28].fill(0);
            frame
        }
        (Ip::V6, IpAddr::V6(remote), IpAddr::V6(local)) => written(|out| {
            ethernet
                .ipv6(remote.octets(), local.octets(), 64)
                .udp(49_152 + at as u16, wire::Vxlan::PORT)
                .write(out, &payload)
        }),
        _ => unreachable!("the ends are of the path's family"),
    }
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut octets = Vec::new();
    write(&mut octets).expect("a packet of ours fits its fields");
    octets
}
