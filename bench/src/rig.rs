//! A gateway in memory without a driver: only the page is left to be measured.
//!
//! The page changes the frames that it forwards, so between two passes over all of them they are put back as they came.
//! The clock stands still meanwhile: a round's time is `run` and `transmit` of a batch alone, and one reading of the
//! clock, which is half a nanosecond for each packet of a batch.

mod cold;
mod hot;

use crate::random::Random;
use crate::routes::NEXT_HOPS;
use dataplane::config::Qos;
use dataplane::fib::Fib;
use dataplane::packet::{
    AdjacencyId, Batch, DropReason, Exit, Family, FlowHash, Packet, PortId, Stock, Time, TunnelId, Vrf,
};
use dataplane::pipeline::Pipeline;
use dataplane::qos::policer::{self, Profile};
use dataplane::qos::{Account, Limit, PacketRate, Plan, Policers, PortSpec, Rate, Shaper, Spec, TenantSpec};
use dataplane::stats::{Room, Tally, Totals};
use dataplane::tables::acl::{Action, Rule};
use dataplane::tables::filter::{Match, Ways};
use dataplane::tables::{
    Adjacencies, Adjacency, Classifier, Locals, Marks, Policing, Port, PortKind, Ports, Resolution, ReversePath, Tables,
};
use dataplane::tunnel::{Ends, Geneve, Gre, Identification, IpInIp, Kind, Outer, Tunnel, Tunnels, Vxlan};
use etherparse::PacketBuilder;
use ipnet::Ipv4Net;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Ethernet, Mac, Rewrite, Vni};
use zerocopy::IntoBytes;

/// Frames in a batch.
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
const VNI: Vni = Vni::new(5001).expect("24 bits");
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
    /// Routed into a tunnel over this underlay. Inside is IPv4 where the type carries it.
    Encap(Kind, Ip),
    /// The same, out of the tunnel, and routed.
    Decap(Kind, Ip),
}

/// VXLAN.
pub const VXLAN: Kind = Kind::Vxlan(Vxlan { vni: VNI, port: wire::Vxlan::PORT });
/// GENEVE with Ethernet inside.
pub const GENEVE: Kind = Kind::Geneve(Geneve { vni: VNI, port: wire::Geneve::PORT, ethernet: true });
/// GRE without a key, with IP inside.
pub const GRE: Kind = Kind::Gre(Gre { key: None, ethernet: false });
/// The four of IP in IP.
pub const IPIP: Kind = Kind::Ip(IpInIp { outer: Family::V4, inner: Family::V4 });
/// IPv6 in IPv4.
pub const SIT: Kind = Kind::Ip(IpInIp { outer: Family::V4, inner: Family::V6 });
/// IPv6 in IPv6.
pub const IP6IP6: Kind = Kind::Ip(IpInIp { outer: Family::V6, inner: Family::V6 });
/// IPv4 in IPv6.
pub const IP4IP6: Kind = Kind::Ip(IpInIp { outer: Family::V6, inner: Family::V4 });

/// What of the gateway's memory is in the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// All of it: 64 frames in turn, 64 routes, a next hop for each.
    Hot,
    /// Little of it: 4,096 frames in shuffled order, full Internet tables of both families, destinations by Zipf's law,
    /// 255 next hops.
    Cold,
}

impl Load {
    const fn frames(self) -> usize {
        match self {
            Self::Hot => BATCH,
            Self::Cold => 64 * BATCH,
        }
    }

    const fn next_hops(self) -> usize {
        match self {
            Self::Hot => BATCH,
            Self::Cold => NEXT_HOPS as usize,
        }
    }
}

/// The gateway and its frames.
pub struct Rig {
    path: Path,
    tables: Tables,
    pipeline: Pipeline,
    batch: Batch,
    /// The frames that are not under way, in the order that they will be received in.
    at_rest: VecDeque<Box<Packet>>,
    originals: Vec<Vec<u8>>,
    now: Time,
    /// Nanoseconds that pass between two batches.
    gap: u64,
}

impl Rig {
    /// A cold gateway into VXLAN with all that a packet can meet: an access list of 100 rules, a policer, tenants and classes,
    /// and a scheduler with AQM whose rates let everything pass.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    pub fn with_everything() -> Self {
        let mut rig = Self::new(Path::Encap(VXLAN, Ip::V4), Load::Cold);
        let mut random = Random::new(0xa11);
        let rules: Vec<Rule> =
            (0..100).map(|_| Rule { action: Action::Permit, ..crate::acl::rule(&mut random) }).collect();
        let ports: Vec<Port> = [LAN, WAN].iter().filter_map(|port| rig.tables.ports.get(*port).cloned()).collect();
        let ways = Ways::new(&ports, [Vrf::DEFAULT].into_iter());
        let count = rules.len();
        rig.tables.policing = Policing::new(vec![Some(0), None], vec![None], vec![]);
        let tenants = 8;
        let tenant = |at: u8| Match {
            sources: vec![Ipv4Net::new([203, 0, 113, at * 32].into(), 27).expect("a length").into()],
            ..Match::default()
        };
        let preset = Qos::gpu_gateway();
        let marks = Marks {
            tenants: (1..tenants).map(tenant).collect(),
            classes: preset.rules,
            rest: preset.rest,
            ..Marks::default()
        };
        rig.tables.classifier = Classifier::new(rules, Some(marks), ways).expect("there is memory");
        let room = Room { ports: 2, tunnels: 1, adjacencies: 2 + Load::Cold.next_hops(), rules: count, policers: 1 };
        rig.pipeline.tally = Tally::new(room);
        let profile = Profile {
            kind: policer::Kind::Rfc2698,
            cir: 400_000_000_000,
            pir: 800_000_000_000,
            cbs: 100_000_000,
            pbs: 100_000_000,
            packets: 0,
            colour_aware: false,
            exceed: policer::Action::Pass,
            violate: policer::Action::Drop,
        };
        rig.pipeline.policers = Policers::new([profile].into_iter());
        let rate = |bits| Rate::new(bits).expect("a rate");
        let mut spec = Spec::plain(1);
        spec.ports.push(PortSpec { port: WAN, rate: Some(rate(400_000_000_000)), account: Account::L3Outer });
        spec.tunnels[0].cap = Limit { packets: PacketRate::new(500_000_000), ..Limit::of(rate(300_000_000_000)) };
        spec.tenants = (0..tenants)
            .map(|at| TenantSpec {
                name: format!("tenant-{at}"),
                guarantee: at.is_multiple_of(2).then(|| rate(10_000_000_000)),
                limit: Limit::of(rate(200_000_000_000)),
                ..TenantSpec::default()
            })
            .collect();
        let plan = Plan::new(&Arc::new(spec), 2).expect("it can be kept");
        rig.pipeline.shaper.adopt(plan, &mut rig.pipeline.exits, Time(0));
        rig.gap = 10_000;
        rig.pass(&mut Vec::new());
        let totals = Totals::of([&*rig.pipeline.tally.page()]);
        assert_eq!(totals.forwarded, rig.originals.len() as u64, "every frame is forwarded: {totals:?}");
        rig
    }

    /// A gateway for one path.
    pub fn new(path: Path, load: Load) -> Self {
        let count = load.frames();
        let umem = xsk::Umem::new(4 * count, xsk::ChunkSize::default()).expect("some megabytes are there");
        let mut stock = Stock::new(umem.pool(64, 256), count);
        let (tables, originals) = match load {
            Load::Hot => (hot::tables(path), hot::frames(path)),
            Load::Cold => cold::tables_and_frames(path, count),
        };
        let mut at_rest: Vec<_> = originals
            .iter()
            .map(|octets| {
                let frame = stock.frames.frame_of(octets).expect("there are more chunks than frames");
                stock.wrap(frame, LAN, false, Time(0))
            })
            .collect();
        if load == Load::Cold {
            Random::new(0x5f1e).shuffle(&mut at_rest);
        }
        let mut shaper = Shaper::new(2, 1024);
        shaper.open(PortId(0));
        shaper.open(PortId(1));
        let pipeline = Pipeline::new(
            shaper,
            Tally::new(Room { ports: 2, tunnels: 1, adjacencies: 2 + load.next_hops(), ..Room::default() }),
        );
        let (batch, at_rest) = (Batch::new(), at_rest.into());
        let mut rig = Self { path, tables, pipeline, batch, at_rest, originals, now: Time(0), gap: 0 };
        rig.pass(&mut Vec::new());
        let totals = Totals::of([&*rig.pipeline.tally.page()]);
        assert_eq!(totals.forwarded, count as u64, "every frame is forwarded: {totals:?}");
        rig
    }

    /// The time that `rounds` batches take from `run` to the end of `transmit`: so many times the median round.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::new();
        while (took.len() as u64) < rounds {
            self.pass(&mut took);
        }
        median(took) * rounds as u32
    }

    /// All frames once, a batch each round.
    fn pass(&mut self, took: &mut Vec<Duration>) {
        self.restore();
        for _ in 0..self.originals.len() / BATCH {
            self.receive();
            self.now.0 += self.gap;
            let start = Instant::now();
            self.pipeline.run(&mut self.batch, &self.tables, self.now);
            self.pipeline.transmit(WAN, usize::MAX, &mut self.batch, &self.tables, self.now);
            took.push(start.elapsed());
            self.at_rest.extend(self.batch.drain());
        }
    }

    /// The time that `rounds` batches take through one stage: so many times the median.
    ///
    /// # Panics
    ///
    /// If a packet leaves in it.
    pub fn stage(&mut self, rounds: u64, stage: Stage) -> Duration {
        let mut took = Vec::new();
        for _ in 0..rounds {
            self.restore();
            self.receive();
            for packet in self.batch.iter_mut() {
                self.tables.ports.enter(packet).expect("a frame of ours");
                if stage != Stage::Parse {
                    packet.parse(&self.tables.hash).expect("a packet of ours");
                }
            }
            took.push(self.timed(stage).expect("no packet leaves"));
            self.at_rest.extend(self.batch.drain());
        }
        median(took) * rounds as u32
    }

    fn timed(&mut self, stage: Stage) -> Result<Duration, Exit> {
        let Self { batch, tables, .. } = self;
        let mut identification = Identification::default();
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

    /// Puts all frames back as they came.
    fn restore(&mut self) {
        for (packet, original) in self.at_rest.iter_mut().zip(&self.originals) {
            let frame = &mut packet.frame;
            let now = frame.total();
            if now > original.len() {
                frame.advance(now - original.len());
            } else {
                frame.prepend(original.len() - now).expect("as far as it was before");
            }
            frame.bytes_mut().copy_from_slice(original);
        }
    }

    /// What a driver does before `run`, without the rings.
    fn receive(&mut self) {
        for mut packet in self.at_rest.drain(..BATCH) {
            let frame = packet.frame.take();
            frame.prefetch();
            packet.receive(frame, LAN, false, Time(0));
            self.batch.push(packet);
        }
    }

    /// Which path it measures.
    pub const fn path(&self) -> Path {
        self.path
    }
}

impl Path {
    /// Of the packets that are routed.
    const fn inner(self) -> Ip {
        match self {
            Self::Plain(ip) => ip,
            Self::Encap(kind, _) | Self::Decap(kind, _) if kind.carries(Family::V4) => Ip::V4,
            Self::Encap(..) | Self::Decap(..) => Ip::V6,
        }
    }

    const fn outer(self) -> Ip {
        match self {
            Self::Plain(ip) | Self::Encap(_, ip) | Self::Decap(_, ip) => ip,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Plain(_) => VXLAN,
            Self::Encap(kind, _) | Self::Decap(kind, _) => kind,
        }
    }
}

/// The median: a round in which the machine did something else says nothing about the page.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
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

/// A gateway with these routes, and next hops 1 to `next_hops`.
fn tables(path: Path, fib: Fib, next_hops: usize) -> Tables {
    let mut adjacencies = Adjacencies::new();
    for at in 0..next_hops {
        let (adjacency, rewrite) = adjacency(path, at);
        adjacencies.set(AdjacencyId(1 + at as u32), adjacency, rewrite);
    }
    let port = |name: &str, mac: [u8; 6], address: [IpAddr; 2]| Port {
        kind: PortKind::Interface,
        name: name.into(),
        vrf: Vrf::DEFAULT,
        mac: Mac::new(mac),
        mtu: 1500,
        rpf: ReversePath::Off,
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
            kind: path.kind(),
            vrf: Vrf::DEFAULT,
            ends: ends(path),
            mtu: 1430,
            clamp: true,
            mac: Mac::new(TUNNEL_MAC),
            has_device: false,
            allowed_sources: None,
            addresses: Vec::new(),
        }]),
        classifier: Classifier::default(),
        policing: Policing::default(),
        fib,
        adjacencies,
    }
}

fn ends(path: Path) -> Ends {
    let (local, remote) = match path.outer() {
        Ip::V4 => ("192.0.2.1", "198.51.100.7"),
        Ip::V6 => ("2001:db8:1::1", "2001:db8:ffff::7"),
    };
    let parse = |address: &str| address.parse().expect("an address");
    Ends::new(Vrf::DEFAULT, parse(local), parse(remote)).expect("of one family")
}

fn adjacency(path: Path, at: usize) -> (Adjacency, Rewrite) {
    let mut rewrite = Rewrite::empty();
    let mut peer = PEER_MAC;
    peer[4] = at as u8;
    let tunnel = if let Path::Encap(..) = path { TUNNEL } else { TunnelId::NONE };
    let ethertype = match if tunnel == TUNNEL { path.outer() } else { path.inner() } {
        Ip::V4 => wire::EtherType::IPV4,
        Ip::V6 => wire::EtherType::IPV6,
    };
    rewrite.push(&peer);
    rewrite.push(&WAN_MAC);
    rewrite.push(&ethertype.to_be_bytes());
    if let Path::Encap(kind, ip) = path {
        let outer = Outer {
            ends: ends(path),
            dscp: None,
            copy_ecn: true,
            ttl: Some(64),
            df: Some(true),
            udp_checksum: ip == Ip::V6,
        };
        kind.headers(&outer, Some((Mac::new(TUNNEL_PEER_MAC), Mac::new(TUNNEL_MAC))), &mut rewrite);
    }
    let adjacency = Adjacency {
        generation: 1,
        egress: WAN,
        queue: WAN,
        tunnel,
        mtu: 1430,
        clamp: tunnel != TunnelId::NONE,
        ..Adjacency::of(Resolution::Ready)
    };
    (adjacency, rewrite)
}

/// The frame with number `at`, as it arrives.
fn frame(path: Path, at: usize, inner_destination: IpAddr) -> Vec<u8> {
    let (source, destination) = match path {
        Path::Decap(..) => (TUNNEL_PEER_MAC, TUNNEL_MAC),
        _ => (HOST_MAC, LAN_MAC),
    };
    let ethernet = PacketBuilder::ethernet2(source, destination);
    let host_v6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);
    let with_ip = match inner_destination {
        IpAddr::V4(inner) => ethernet.ipv4([203, 0, 113, 9], inner.octets(), 64),
        IpAddr::V6(inner) => ethernet.ipv6(host_v6.octets(), inner.octets(), 64),
    };
    let with_udp = with_ip.udp(4000 + at as u16, 9);
    // The headers of IPv6 and UDP alone are 62 octets.
    let padding = vec![0; FRAME - with_udp.size(0)];
    let inside = written(|out| with_udp.write(out, &padding));
    let Path::Decap(kind, _) = path else { return inside };
    let ethernet = PacketBuilder::ethernet2(PEER_MAC, LAN_MAC);
    let outer = match (ends(path).remote(), ends(path).local()) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => ethernet.ipv4(remote.octets(), local.octets(), 64),
        (IpAddr::V6(remote), IpAddr::V6(local)) => ethernet.ipv6(remote.octets(), local.octets(), 64),
        _ => unreachable!("the ends are of one family"),
    };
    let (protocol, port) = kind.carrier();
    let payload = tunnelled(kind, &inside);
    if port == 0 {
        return written(|out| outer.write(out, protocol.into(), &payload));
    }
    let mut frame = written(|out| outer.udp(49_152 + at as u16, port).write(out, &payload));
    if path.outer() == Ip::V4 {
        // Over IPv4 the checksum is left out.
        frame[Ethernet::SIZE + 26..Ethernet::SIZE + 28].fill(0);
    }
    frame
}

/// What stands behind the outer IP header, or behind UDP, when this frame is inside.
fn tunnelled(kind: Kind, frame: &[u8]) -> Vec<u8> {
    let (ethertype, packet) = (&frame[Ethernet::SIZE - 2..Ethernet::SIZE], &frame[Ethernet::SIZE..]);
    match kind {
        Kind::Vxlan(vxlan) => [wire::Vxlan::new(vxlan.vni).as_bytes(), frame].concat(),
        Kind::Geneve(geneve) => [wire::Geneve::new(wire::EtherType::ETHERNET, geneve.vni).as_bytes(), frame].concat(),
        Kind::Gre(_) => [&[0, 0], ethertype, packet].concat(),
        Kind::Ip(_) => packet.to_vec(),
    }
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut octets = Vec::new();
    write(&mut octets).expect("a packet of ours fits its fields");
    octets
}
