//! The scheduler alone: batches in, batches out, at a constant backlog.
//!
//! Packets of 64 octets on the wire go to a uniformly random tenant, way out and class; the eight classes are those of
//! `gpu-gateway`, with their AQM; a third of what arrives is capable of ECN. Every tenant and tunnel has limits in bits
//! and in packets that are kept to and not reached, every fourth tenant a guarantee. Boxes are used again as they come
//! out, as a worker's are.

use crate::random::Random;
use crate::rig::BATCH;
use dataplane::packet::{Batch, Class, Exits, Packet, PortId, Stock, TenantId, Time, TunnelId};
use dataplane::qos::{
    Account, Buffer, Limit, PacketRate, Plan, PortSpec, Rate, Shaper, Spec, TenantSpec, TunnelSpec, Weight,
};
use etherparse::PacketBuilder;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shaper and its packets.
pub struct Queues {
    shaper: Shaper,
    #[expect(clippy::vec_box, reason = "the box is the point: packets do not move")]
    spare: Vec<Box<Packet>>,
    batch: Batch,
    exits: Exits,
    random: Random,
    tenants: usize,
    now: u64,
    /// Owns the frames.
    stock: Stock,
}

/// Ways out: a port, and tunnels that leave by it.
pub const WAYS: usize = 16;
const PORT: PortId = PortId(0);
/// Between two batches: 20 million packets per second.
const ROUND_NS: u64 = 3_200;

impl Queues {
    /// What is measured: name, leaves and backlog.
    pub const CASES: [(&str, usize, usize); 2] = [("4096", 4_096, 4_096), ("65536", 65_536, 32_768)];

    /// With so many leaves, and so many packets that wait.
    ///
    /// # Panics
    ///
    /// Without memory for them.
    pub fn new(leaves: usize, backlog: usize) -> Self {
        let tenants = leaves / WAYS;
        let shaper = shaper(tenants, backlog);
        let count = backlog + 2 * BATCH;
        let umem = xsk::Umem::new(count + 1024, xsk::ChunkSize::Octets2048).expect("some megabytes are there");
        let mut stock = Stock::new(umem.pool(64, 256), count);
        let mut octets = vec![0; 14];
        let builder = PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64).udp(4000, 4791);
        builder.write(&mut octets, &[0; 18]).expect("a Vec takes everything");
        let spare = (0..count)
            .map(|_| {
                let frame = stock.frames.frame_of(&octets).expect("there are more chunks than packets");
                let mut packet = stock.wrap(frame, PORT, false, Time(0));
                (packet.egress, packet.l3, packet.len) = (PORT, 14, octets.len() as u32 - 14);
                packet
            })
            .collect();
        let (batch, exits, random) = (Batch::new(), Exits::new(), Random::new(0x5f1e));
        let mut queues = Self { shaper, spare, batch, exits, random, tenants, now: Time::SECOND, stock };
        for _ in 0..backlog / BATCH {
            queues.fill();
            queues.shaper.enqueue(&mut queues.batch, &mut queues.exits, Time(queues.now));
        }
        assert_eq!(queues.exits.len(), 0, "there is room for the backlog");
        queues.rounds(4 * (backlog / BATCH) as u64);
        queues
    }

    /// The time that `rounds` batches take in and out: so many times the median round.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::with_capacity(rounds as usize);
        for _ in 0..rounds {
            self.fill();
            self.now += ROUND_NS;
            let start = Instant::now();
            self.shaper.enqueue(&mut self.batch, &mut self.exits, Time(self.now));
            self.shaper.dequeue(PORT, usize::MAX, &mut self.batch, &mut self.exits, Time(self.now));
            took.push(start.elapsed());
            assert_eq!((self.batch.len(), self.exits.len()), (BATCH, 0), "what waits may go");
            self.spare.extend(self.batch.drain());
        }
        let middle = took.len() / 2;
        if took.is_empty() { Duration::ZERO } else { *took.select_nth_unstable(middle).1 * rounds as u32 }
    }

    /// A batch of the packets that have been used last, each for any queue.
    fn fill(&mut self) {
        for _ in 0..BATCH {
            let mut packet = self.spare.pop().expect("as many as the backlog and two batches");
            let any = self.random.number();
            packet.tenant = TenantId((any as usize % self.tenants) as u16);
            let way = (any >> 32) as u16 % WAYS as u16;
            (packet.into, packet.overhead) = if way == 0 { (TunnelId::NONE, 0) } else { (TunnelId(way - 1), 50) };
            packet.class = Class::new((any >> 48) as u8 % 8).expect("below 8");
            packet.flow = (any >> 20) as u32;
            packet.tos = if (any >> 52).is_multiple_of(3) { 2 } else { 0 };
            self.batch.push(packet);
        }
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.shaper.close(PORT, &mut self.exits);
        let waited = self.exits.drain().map(|(packet, _)| packet);
        self.spare.drain(..).chain(waited).for_each(|packet| self.stock.put(packet));
    }
}

fn shaper(tenants: usize, backlog: usize) -> Shaper {
    let rate = |bits| Rate::new(bits).expect("a rate");
    let limit = |bits| Limit { rate: Some(rate(bits)), packets: PacketRate::new(100_000_000), ..Limit::NONE };
    let mut spec = Spec::plain(WAYS - 1);
    spec.ports.push(PortSpec { port: PORT, rate: Some(rate(100_000_000_000)), account: Account::L3Outer });
    spec.tunnels =
        (1..WAYS).map(|at| TunnelSpec { name: format!("tunnel-{at}"), cap: limit(50_000_000_000) }).collect();
    spec.tenants = (0..tenants)
        .map(|at| TenantSpec {
            name: format!("tenant-{at}"),
            guarantee: at.is_multiple_of(4).then(|| rate(10_000_000)),
            limit: limit(10_000_000_000),
            weight: Weight::new(1 + at as u16 % 4).expect("a weight"),
        })
        .collect();
    spec.buffer = Buffer { frames: 4 * backlog as u32, bytes: 1 << 30 };
    let plan = Plan::new(&Arc::new(spec), 1).expect("it can be kept");
    let mut shaper = Shaper::new(1, 64);
    shaper.adopt(plan, &mut Exits::new(), Time(0));
    shaper.open(PORT);
    shaper
}
