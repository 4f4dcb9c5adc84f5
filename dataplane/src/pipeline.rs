//! The life of a packet.
//!
//! ```text
//! receive ─► enter ─► parse ─► decap ─► source ─► acl ─► classify ─► police ─► lookup ─► ttl, mtu, mss ─► queue ─► rewrite, encap ─► send
//! ```
//!
//! A stage looks at one packet and lets it pass or names its [`Exit`]; what leaves the page is
//! settled by [`slow`](crate::slow), once per batch. Stages do not log, allocate, lock, or read a clock.

use crate::packet::{Batch, Exit, Exits, Origin, Packet, PortId, Time, Traits, TunnelId};
use crate::qos::{Policers, Room, Shaper};
use crate::stats::Tally;
use crate::tables::Tables;
use crate::tunnel::{self, Identification};

/// One worker's page: its queues, its counters, and what left in this round.
pub struct Pipeline {
    /// Packets that left and are not settled yet.
    pub exits: Exits,
    /// Where packets wait for their port.
    pub shaper: Shaper,
    /// What has come of what is policed.
    pub policers: Policers,
    /// Counters.
    pub tally: Tally,
    /// Numbers outer IPv4 packets that may be fragmented. With several workers, each has its own share.
    pub identification: Identification,
}

impl Pipeline {
    /// With empty queues and no policers.
    pub fn new(shaper: Shaper, tally: Tally) -> Self {
        let (policers, identification) = (Policers::default(), Identification::default());
        Self { exits: Exits::new(), shaper, policers, tally, identification }
    }

    /// What a port received: as far as the queue it will wait in.
    ///
    /// Each `?` is a door: a packet leaves there with its `Exit`, counted under its reason.
    pub fn run(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        let port = self.count_received(batch);
        if tables.ports.filters(port) {
            self.admit_by_path(batch, tables); // RFC 3704: by its source, it may come this way
        } else {
            batch.retain(&mut self.exits, |packet| {
                enter(packet, tables)?;
                open(packet, tables)
            });
        }
        self.go_on(batch, tables, now);
    }

    /// The same stages, with one between: the outer source is checked, before its packet is opened.
    #[inline(never)]
    fn admit_by_path(&mut self, batch: &mut Batch, tables: &Tables) {
        batch.retain(&mut self.exits, |packet| enter(packet, tables));
        tables.fib.lookup_sources(batch); // longest match, for the whole batch
        batch.retain(&mut self.exits, |packet| {
            tables.admit_path(packet)?;
            open(packet, tables)
        });
    }

    /// Also where datagrams enter that were received in fragments.
    pub fn run_whole(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        batch.retain(&mut self.exits, |packet| {
            packet.parse(&tables.hash)?; // what it says of itself is not what its fragments said
            open(packet, tables)
        });
        self.go_on(batch, tables, now);
    }

    /// What is known by its inner headers now.
    #[inline(always)]
    fn go_on(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        self.count_entered(batch);
        tables.classifier.admit(batch, &mut self.exits, &mut self.tally); // acl, tenant, class: first match of each
        self.policers.admit(batch, &mut self.exits, &tables.policing, now, &mut self.tally); // RFC 2697, 2698, 4115
        self.forward(batch, tables, now);
    }

    /// Where the gateway's own packets enter, and those that must be routed again.
    pub fn forward_again(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        tables.classifier.renumber(batch);
        self.forward(batch, tables, now);
    }

    fn forward(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        tables.fib.lookup(batch); // longest match, for the whole batch
        batch.retain(&mut self.exits, |packet| {
            let adjacency = tables.adjacency(packet)?; // no route drops; our own address punts
            packet.decrement_ttl()?; // after the lookup: RFC 1812 §4.2.2.9
            packet.fits(tables.mtu(packet, adjacency))?; // RFC 1191, 8201: or Fragment, or an error is owed
            packet.clamp_mss(tables.mss_mtu(packet, adjacency)); // RFC 6691
            packet.bind(adjacency)
        });
        self.shaper.enqueue(batch, &mut self.exits, now);
    }

    /// From a tunnel's device: the kernel has routed already, so only the queue remains.
    pub fn inject(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        self.count_received(batch);
        self.inject_again(batch, tables, now);
    }

    /// Also where it enters that had to wait before the queue, or whose adjacency changed in it.
    pub fn inject_again(&mut self, batch: &mut Batch, tables: &Tables, now: Time) {
        batch.retain(&mut self.exits, |packet| {
            let adjacency = tables.inject(packet)?; // the adjacency is the device's
            packet.bind(adjacency)
        });
        tables.classifier.mark(batch);
        self.shaper.enqueue(batch, &mut self.exits, now);
    }

    /// From another worker, which had no ring of the packets' port: they are bound already. Or this one puts the
    /// datagrams together that they are fragments of.
    pub fn resume(&mut self, batch: &mut Batch, now: Time) {
        self.tally.crossed_in(batch.len() as u64);
        batch.retain(&mut self.exits, |packet| if packet.is_bound() { Ok(()) } else { Err(Exit::Reassemble) });
        self.shaper.enqueue(batch, &mut self.exits, now);
    }

    /// What the queues let go: headers go on now, with today's tables.
    ///
    /// `room` as a number is one of descriptors: a packet has as many as its frame has chunks.
    pub fn transmit(&mut self, port: PortId, room: impl Into<Room>, out: &mut Batch, tables: &Tables, now: Time) {
        self.shaper.dequeue(port, room, out, &mut self.exits, now);
        out.retain(&mut self.exits, |packet| {
            let rewrite = tables.rewrite(packet)?;
            tunnel::apply(rewrite, packet, &mut self.identification)?;
            self.tally.adjacency_used(packet.adjacency);
            self.tally.port_sent(PortId(rewrite.egress), packet.frame.total() as u64);
            if rewrite.outer != 0 {
                self.tally.encapsulated(tables.adjacencies.at(packet.adjacency).tunnel, packet.len.into());
            }
            Ok(())
        });
        self.tally.forwarded(out.len() as u64);
    }

    /// One port filled the batch: returns which.
    fn count_received(&mut self, batch: &Batch) -> PortId {
        let Some(first) = batch.iter().next() else { return PortId::NONE };
        let port = first.ingress;
        let bytes = batch.iter().map(|packet| packet.frame.total() as u64).sum();
        self.tally.received(port, batch.len() as u64, bytes);
        port
    }

    /// What turned out to belong to a VLAN or a tunnel.
    fn count_entered(&mut self, batch: &Batch) {
        for packet in batch.iter() {
            debug_assert_eq!(packet.origin, Origin::Port);
            if packet.tunnel != TunnelId::NONE {
                let alarm = packet.traits.has(Traits::ECN_ALARM);
                self.tally.decapsulated(packet.tunnel, packet.len.into(), alarm);
            }
            if packet.traits.has(Traits::TAGGED) {
                self.tally.port_received(packet.ingress, 1, packet.len.into());
            }
        }
    }
}

/// Where the packet is, and whether it is one.
#[inline(always)]
fn enter(packet: &mut Packet, tables: &Tables) -> Result<(), Exit> {
    tables.ports.enter(packet)?; // link layer: VLAN tag, VRF
    packet.parse(&tables.hash) // RFC 1812 §5.2.2: headers checked once
}

/// The packet inside, if it is a tunnel's, and who sends it.
#[inline(always)]
fn open(packet: &mut Packet, tables: &Tables) -> Result<(), Exit> {
    tables.tunnels.decap(packet, &tables.hash)?; // ours? outer header off, VRF from VNI
    tables.locals.admit_source(packet) // RFC 1812 §5.3.7: nobody else sends from our addresses
}
