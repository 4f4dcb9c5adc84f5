//! Counters: written by one worker each, read and added up by control.
//!
//! A page has one writer, so an addition is a plain load, add and store: no locked instruction. Readers may see
//! the counters of one packet at different moments; at a quiet moment they agree.

use crate::io::Losses;
use crate::packet::{AdjacencyId, DropReason, PortId, PuntReason, TunnelId};
use crate::qos::policer::Colour;
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline(always)]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline(always)]
    fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// As last written.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A port's part of a page.
#[derive(Debug, Default)]
pub struct PortPage {
    received_packets: Counter,
    received_bytes: Counter,
    sent_packets: Counter,
    sent_bytes: Counter,
    dropped: Counter,
    missed: Counter,
    unsent: Counter,
}

/// A tunnel's part of a page.
#[derive(Debug, Default)]
pub struct TunnelPage {
    decapsulated_packets: Counter,
    decapsulated_bytes: Counter,
    encapsulated_packets: Counter,
    encapsulated_bytes: Counter,
    dropped: Counter,
    ecn_alarms: Counter,
}

/// A part of a page that counts packets and their octets.
#[derive(Debug, Default)]
struct Count {
    packets: Counter,
    bytes: Counter,
}

/// For how many things a page has counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Ports.
    pub ports: usize,
    /// Tunnels.
    pub tunnels: usize,
    /// Adjacencies.
    pub adjacencies: usize,
    /// Rules of the access list.
    pub rules: usize,
    /// Policers.
    pub policers: usize,
}

/// One worker's counters.
#[derive(Debug)]
pub struct Page {
    received: CachePadded<Counter>,
    originated: Counter,
    forwarded: Counter,
    absorbed: Counter,
    queued: Counter,
    crossed_out: Counter,
    crossed_in: Counter,
    icmp_suppressed: Counter,
    drops: [Counter; DropReason::COUNT],
    punts: [Counter; PuntReason::COUNT],
    ports: Box<[PortPage]>,
    tunnels: Box<[TunnelPage]>,
    /// Packets sent by each adjacency: control asks which neighbours are in use.
    adjacencies: Box<[Counter]>,
    /// Packets that met each rule of the access list, and last those that met none.
    rules: Box<[Count]>,
    /// By policer and [`Colour`].
    policers: Box<[[Count; 3]]>,
}

impl Page {
    /// Packets that went out by an adjacency.
    pub fn adjacency(&self, id: AdjacencyId) -> u64 {
        self.adjacencies.get(id.index()).map_or(0, Counter::read)
    }
}

/// The writing end of a page. Not `Clone`: a counter has one writer.
#[derive(Debug)]
pub struct Tally(Arc<Page>);

impl Tally {
    /// A page with room for so much, all zero.
    pub fn new(room: Room) -> Self {
        Self(Arc::new(Page {
            received: CachePadded::default(),
            originated: Counter::default(),
            forwarded: Counter::default(),
            absorbed: Counter::default(),
            queued: Counter::default(),
            crossed_out: Counter::default(),
            crossed_in: Counter::default(),
            icmp_suppressed: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            punts: std::array::from_fn(|_| Counter::default()),
            ports: (0..room.ports).map(|_| PortPage::default()).collect(),
            tunnels: (0..room.tunnels).map(|_| TunnelPage::default()).collect(),
            adjacencies: (0..room.adjacencies).map(|_| Counter::default()).collect(),
            policers: (0..room.policers).map(|_| Default::default()).collect(),
            rules: (0..=room.rules).map(|_| Count::default()).collect(),
        }))
    }

    /// The reading end.
    pub fn page(&self) -> Arc<Page> {
        Arc::clone(&self.0)
    }

    /// Packets came in by a port.
    #[inline(always)]
    pub fn received(&mut self, port: PortId, packets: u64, bytes: u64) {
        self.0.received.add(packets);
        self.port_received(port, packets, bytes);
    }

    /// Packets of those received belong to this port (a VLAN) too.
    #[inline(always)]
    pub fn port_received(&mut self, port: PortId, packets: u64, bytes: u64) {
        if let Some(page) = self.0.ports.get(port.index()) {
            page.received_packets.add(packets);
            page.received_bytes.add(bytes);
        }
    }

    /// Packets went out of the gateway.
    #[inline(always)]
    pub fn forwarded(&mut self, packets: u64) {
        self.0.forwarded.add(packets);
    }

    /// A packet went out by a port, `bytes` with all headers.
    #[inline(always)]
    pub fn port_sent(&mut self, port: PortId, bytes: u64) {
        if let Some(page) = self.0.ports.get(port.index()) {
            page.sent_packets.add(1);
            page.sent_bytes.add(bytes);
        }
    }

    /// Packets that were lost between a port and the page.
    pub fn port_lost(&mut self, port: PortId, losses: Losses) {
        if let Some(page) = self.0.ports.get(port.index()) {
            page.missed.add(losses.missed);
            page.unsent.add(losses.unsent);
        }
    }

    /// A packet went out by an adjacency.
    #[inline(always)]
    pub fn adjacency_used(&mut self, id: AdjacencyId) {
        if let Some(counter) = self.0.adjacencies.get(id.index()) {
            counter.add(1);
        }
    }

    /// A packet went into a tunnel, `bytes` of inner IP.
    #[inline(always)]
    pub fn encapsulated(&mut self, tunnel: TunnelId, bytes: u64) {
        if let Some(page) = self.0.tunnels.get(tunnel.index()) {
            page.encapsulated_packets.add(1);
            page.encapsulated_bytes.add(bytes);
        }
    }

    /// A packet came out of a tunnel, `bytes` of inner IP.
    #[inline(always)]
    pub fn decapsulated(&mut self, tunnel: TunnelId, bytes: u64, ecn_alarm: bool) {
        if let Some(page) = self.0.tunnels.get(tunnel.index()) {
            page.decapsulated_packets.add(1);
            page.decapsulated_bytes.add(bytes);
            page.ecn_alarms.add(ecn_alarm.into());
        }
    }

    /// A packet met a rule of the access list, or none of them: the number behind the last.
    #[inline(always)]
    pub fn rule_met(&mut self, rule: usize, bytes: u64) {
        if let Some(count) = self.0.rules.get(rule) {
            count.packets.add(1);
            count.bytes.add(bytes);
        }
    }

    /// A policer gave a packet a colour.
    #[inline(always)]
    pub fn policed(&mut self, policer: usize, colour: Colour, bytes: u64) {
        if let Some(counts) = self.0.policers.get(policer) {
            counts[colour as usize].packets.add(1);
            counts[colour as usize].bytes.add(bytes);
        }
    }

    /// A packet ended here.
    pub fn dropped(&mut self, reason: DropReason, port: PortId, tunnel: TunnelId) {
        self.0.drops[reason as usize].add(1);
        if let Some(page) = self.0.ports.get(port.index()) {
            page.dropped.add(1);
        }
        if let Some(page) = self.0.tunnels.get(tunnel.index()) {
            page.dropped.add(1);
            // Of the combinations that should not be, the one that does not come out (RFC 6040 §4.2).
            page.ecn_alarms.add((reason == DropReason::EcnNotCapable).into());
        }
    }

    /// Packets that never got onto the page, such as those for which no frame was left: received and dropped.
    pub fn dropped_on_receipt(&mut self, reason: DropReason, port: PortId, packets: u64) {
        self.received(port, packets, 0);
        self.0.drops[reason as usize].add(packets);
        if let Some(page) = self.0.ports.get(port.index()) {
            page.dropped.add(packets);
        }
    }

    /// A packet went to the kernel.
    pub fn punted(&mut self, reason: PuntReason) {
        self.0.punts[reason as usize].add(1);
    }

    /// The gateway made packets: an ICMP error, or the fragments beyond the first.
    pub fn originated(&mut self, packets: u64) {
        self.0.originated.add(packets);
    }

    /// Packets were consumed.
    pub fn absorbed(&mut self, packets: u64) {
        self.0.absorbed.add(packets);
    }

    /// An ICMP error was owed and not sent: over the rate, or no address to send it from.
    pub fn icmp_suppressed(&mut self) {
        self.0.icmp_suppressed.add(1);
    }

    /// Packets went to another worker.
    pub fn crossed_out(&mut self, packets: u64) {
        self.0.crossed_out.add(packets);
    }

    /// Packets came from another worker.
    pub fn crossed_in(&mut self, packets: u64) {
        self.0.crossed_in.add(packets);
    }

    /// How many packets wait with this worker now.
    pub fn queued(&mut self, packets: u64) {
        self.0.queued.set(packets);
    }
}

/// Where the packets are: at a quiet moment, what came in is what went somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Packets from ports.
    pub received: u64,
    /// Packets that the gateway made.
    pub originated: u64,
    /// Packets sent.
    pub forwarded: u64,
    /// Packets handed to the kernel, by [`PuntReason`].
    pub punts: [u64; PuntReason::COUNT],
    /// Packets consumed.
    pub absorbed: u64,
    /// Packets that wait.
    pub queued: u64,
    /// Packets dropped, by [`DropReason`].
    pub drops: [u64; DropReason::COUNT],
    /// ICMP errors owed and not sent.
    pub icmp_suppressed: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            received: 0,
            originated: 0,
            forwarded: 0,
            punts: [0; PuntReason::COUNT],
            absorbed: 0,
            queued: 0,
            drops: [0; DropReason::COUNT],
            icmp_suppressed: 0,
        }
    }
}

impl Totals {
    /// Over all workers.
    pub fn of<'a>(pages: impl IntoIterator<Item = &'a Page>) -> Self {
        let mut totals = Self::default();
        let (mut left, mut arrived) = (0_u64, 0);
        for page in pages {
            left += page.crossed_out.read();
            arrived += page.crossed_in.read();
            totals.received += page.received.read();
            totals.originated += page.originated.read();
            totals.forwarded += page.forwarded.read();
            totals.absorbed += page.absorbed.read();
            totals.queued += page.queued.read();
            totals.icmp_suppressed += page.icmp_suppressed.read();
            for (sum, counter) in totals.drops.iter_mut().zip(&page.drops) {
                *sum += counter.read();
            }
            for (sum, counter) in totals.punts.iter_mut().zip(&page.punts) {
                *sum += counter.read();
            }
        }
        // Read at different moments, fewer may seem to have left than arrived.
        totals.queued += left.saturating_sub(arrived);
        totals
    }

    /// All drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// All punts.
    pub fn punted(&self) -> u64 {
        self.punts.iter().sum()
    }

    /// The drops that happened, by name.
    pub fn drops_by_name(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.drops).filter(|(_, count)| *count != 0)
    }

    /// `received + originated = forwarded + punted + dropped + absorbed + queued`.
    pub fn balances(&self) -> bool {
        self.received + self.originated == self.forwarded + self.punted() + self.dropped() + self.absorbed + self.queued
    }
}

/// A port's counters over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PortTotals {
    /// Frames from the wire.
    pub received_packets: u64,
    /// Octets of them, Ethernet header included.
    pub received_bytes: u64,
    /// Frames to the wire.
    pub sent_packets: u64,
    /// Octets of them.
    pub sent_bytes: u64,
    /// Packets received here and dropped.
    pub dropped: u64,
    /// Frames that arrived and that no worker has seen: a ring was full, or the kernel had no frame left for them. They
    /// are among none of the above.
    pub missed: u64,
    /// Frames counted as sent that the kernel did not take.
    pub unsent: u64,
}

impl PortTotals {
    /// Over all workers.
    pub fn of<'a>(pages: impl IntoIterator<Item = &'a Page>, port: PortId) -> Self {
        let mut totals = Self::default();
        for page in pages.into_iter().filter_map(|page| page.ports.get(port.index())) {
            totals.received_packets += page.received_packets.read();
            totals.received_bytes += page.received_bytes.read();
            totals.sent_packets += page.sent_packets.read();
            totals.sent_bytes += page.sent_bytes.read();
            totals.dropped += page.dropped.read();
            totals.missed += page.missed.read();
            totals.unsent += page.unsent.read();
        }
        totals
    }
}

/// A tunnel's counters over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TunnelTotals {
    /// Packets that came out of it.
    pub decapsulated_packets: u64,
    /// Octets of them: inner IP.
    pub decapsulated_bytes: u64,
    /// Packets that went into it.
    pub encapsulated_packets: u64,
    /// Octets of them: inner IP.
    pub encapsulated_bytes: u64,
    /// Packets that came out of it and were dropped.
    pub dropped: u64,
    /// Combinations of outer and inner ECN that should not be (RFC 6040 §4.2).
    pub ecn_alarms: u64,
}

impl TunnelTotals {
    /// Over all workers.
    pub fn of<'a>(pages: impl IntoIterator<Item = &'a Page>, tunnel: TunnelId) -> Self {
        let mut totals = Self::default();
        for page in pages.into_iter().filter_map(|page| page.tunnels.get(tunnel.index())) {
            totals.decapsulated_packets += page.decapsulated_packets.read();
            totals.decapsulated_bytes += page.decapsulated_bytes.read();
            totals.encapsulated_packets += page.encapsulated_packets.read();
            totals.encapsulated_bytes += page.encapsulated_bytes.read();
            totals.dropped += page.dropped.read();
            totals.ecn_alarms += page.ecn_alarms.read();
        }
        totals
    }
}

/// Packets and their octets over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CountTotals {
    /// Packets.
    pub packets: u64,
    /// Octets of them: IP.
    pub bytes: u64,
}

impl CountTotals {
    /// Those that met a rule of the access list; none of them, if it is the number behind the last.
    pub fn of_rule<'a>(pages: impl IntoIterator<Item = &'a Page>, rule: usize) -> Self {
        Self::of(pages.into_iter().filter_map(|page| page.rules.get(rule)))
    }

    /// Those that a policer gave a colour.
    pub fn of_colour<'a>(pages: impl IntoIterator<Item = &'a Page>, policer: usize, colour: Colour) -> Self {
        Self::of(pages.into_iter().filter_map(|page| page.policers.get(policer)).map(|counts| &counts[colour as usize]))
    }

    fn of<'a>(counts: impl Iterator<Item = &'a Count>) -> Self {
        let add = |sum: Self, count: &Count| Self {
            packets: sum.packets + count.packets.read(),
            bytes: sum.bytes + count.bytes.read(),
        };
        counts.fold(Self::default(), add)
    }
}
