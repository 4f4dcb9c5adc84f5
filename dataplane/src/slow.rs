//! What leaves the page: counted, answered, handed to the kernel, cut, held, or sent back in.
//!
//! Owned by one worker, called once per batch. It may allocate and copy: these are the rare packets.

mod fragment;
mod hold;
mod icmp;
mod reassemble;
mod underlay;
mod wanted;

pub use icmp::Limiter;
pub use wanted::{Wanted, Wish};

use crate::io::Outlets;
use crate::packet::{
    Batch, DropReason, Exit, Exits, Family, Origin, Owed, Packet, PortId, PuntReason, Stock, Time, Traits, TunnelId,
};
use crate::pipeline::Pipeline;
use crate::tables::{Resolution, Tables};
use hold::Hold;
use reassemble::Reassembly;
use std::collections::VecDeque;

/// A worker's slow path.
pub struct Slow {
    hold: Hold,
    wanted: Wanted,
    reassembly: Reassembly,
    limiter: Limiter,
    /// Of what the underlay says.
    heard: Limiter,
    outlets: Outlets,
    /// What goes back onto the page.
    ready: Batch,
    /// The same of what came from tunnels' devices.
    injected: Batch,
    /// Datagrams that were received in fragments.
    whole: Batch,
    /// Fragments that another worker puts together.
    elsewhere: VecDeque<(usize, Box<Packet>)>,
    spare: Exits,
    refused: Exits,
    generation: u64,
}

/// Times that settled packets go back onto the page per call: an ICMP error about a fragment is two.
const ROUNDS: usize = 4;

impl Slow {
    /// Answers at the limiter's rate, and punts to `outlets`. `wanted` tells control what to do.
    pub fn new(limiter: Limiter, outlets: Outlets, wanted: Wanted) -> Self {
        Self {
            hold: Hold::new(),
            wanted,
            reassembly: Reassembly::new(0, 1),
            limiter,
            heard: Limiter::new(underlay::HEARD),
            outlets,
            ready: Batch::new(),
            injected: Batch::new(),
            whole: Batch::new(),
            elsewhere: VecDeque::new(),
            spare: Exits::new(),
            refused: Exits::new(),
            generation: 0,
        }
    }

    /// Puts together only its share of fragments, as worker `at` of `count`. Before the first packet.
    pub fn share(&mut self, at: usize, count: usize) {
        debug_assert!(self.reassembly.is_quiet());
        self.reassembly = Reassembly::new(at, count);
    }

    /// The devices that it punts to.
    pub fn outlets(&mut self) -> &mut Outlets {
        &mut self.outlets
    }

    /// Gives every packet that left its due. After this, none is in `pipeline.exits` but what left in the last of
    /// its own rounds.
    #[inline]
    pub fn settle(&mut self, pipeline: &mut Pipeline, stock: &mut Stock, tables: &Tables, now: Time) {
        if pipeline.exits.is_empty() && self.hold.is_quiet() && self.reassembly.is_quiet() {
            return;
        }
        self.settle_some(pipeline, stock, tables, now);
    }

    #[inline(never)]
    fn settle_some(&mut self, pipeline: &mut Pipeline, stock: &mut Stock, tables: &Tables, now: Time) {
        if self.generation != tables.generation {
            self.generation = tables.generation;
            self.hold.release(|packet| match packet.origin {
                Origin::Device => self.injected.push(packet),
                _ => self.ready.push(packet),
            });
        }
        self.hold.expire(&mut pipeline.exits, now);
        self.reassembly.expire(&mut pipeline.exits, now);
        for _ in 0..ROUNDS {
            let mut exits = std::mem::take(&mut self.spare);
            pipeline.exits.take(&mut exits);
            for (packet, exit) in exits.drain() {
                self.settle_one(packet, exit, pipeline, stock, tables, now);
            }
            self.spare = exits;
            if self.ready.is_empty() && self.injected.is_empty() && self.whole.is_empty() {
                break;
            }
            pipeline.run_whole(&mut self.whole, tables, now);
            pipeline.forward_again(&mut self.ready, tables, now);
            pipeline.inject_again(&mut self.injected, tables, now);
        }
    }

    fn settle_one(
        &mut self,
        mut packet: Box<Packet>,
        exit: Exit,
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        tables: &Tables,
        now: Time,
    ) {
        match exit {
            Exit::Drop(reason) => self.drop(packet, reason, pipeline, stock, tables, now),
            Exit::Punt(reason) => {
                if reason == PuntReason::Link && packet.tunnel != TunnelId::NONE {
                    // It left the page before the others were counted.
                    let alarm = packet.traits.has(Traits::ECN_ALARM);
                    pipeline.tally.decapsulated(packet.tunnel, packet.len.into(), alarm);
                }
                self.punt(packet, reason, pipeline, stock);
            }
            Exit::Fragment => {
                let cut = match packet.family {
                    Family::V4 => {
                        let mtu = tables.mtu(&packet, tables.adjacencies.at(packet.adjacency));
                        fragment::cut(&packet, mtu, stock, &mut self.ready)
                    }
                    Family::V6 => fragment::cut_outside(&mut packet, tables, pipeline, stock, &mut self.ready),
                };
                match cut {
                    Ok(count) => {
                        pipeline.tally.originated(count - 1);
                        stock.put(packet);
                    }
                    Err(reason) => self.drop(packet, reason, pipeline, stock, tables, now),
                }
            }
            Exit::Reassemble => self.reassemble(packet, pipeline, stock, tables, now),
            Exit::Hold(id) => {
                let on_link = tables.adjacencies.at(id).resolution == Resolution::OnLink;
                if let Err((packet, reason)) = self.hold.push(packet, id, on_link, &mut self.wanted, now) {
                    self.drop(packet, reason, pipeline, stock, tables, now);
                }
            }
            Exit::TunnelError => self.hear(packet, pipeline, stock, tables, now),
            Exit::Reroute if packet.origin == Origin::Device => self.injected.push(packet),
            Exit::Reroute => {
                packet.origin = Origin::Queue;
                self.ready.push(packet);
            }
        }
    }

    fn reassemble(
        &mut self,
        mut packet: Box<Packet>,
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        tables: &Tables,
        now: Time,
    ) {
        if let Some(owner) = self.reassembly.owner_elsewhere(&packet) {
            packet.egress = PortId::NONE;
            self.elsewhere.push_back((owner, packet));
            return;
        }
        let mut refused = std::mem::take(&mut self.refused);
        let (whole, absorbed) = self.reassembly.push(packet, stock, &mut refused, now);
        pipeline.tally.absorbed(absorbed);
        whole.into_iter().for_each(|packet| self.whole.push(packet));
        for (packet, exit) in refused.drain() {
            self.settle_one(packet, exit, pipeline, stock, tables, now);
        }
        self.refused = refused;
    }

    /// The next fragment that another worker puts together, and that worker.
    pub fn for_another(&mut self) -> Option<(usize, Box<Packet>)> {
        self.elsewhere.pop_front()
    }

    fn drop(
        &mut self,
        packet: Box<Packet>,
        reason: DropReason,
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        tables: &Tables,
        now: Time,
    ) {
        pipeline.tally.dropped(reason, packet.ingress, packet.tunnel);
        if reason == DropReason::NeighbourUnresolved {
            // One that failed once may answer now.
            let on_link = tables.adjacencies.at(packet.adjacency).resolution == Resolution::OnLink;
            let (id, destination) = (packet.adjacency, packet.destination());
            self.wanted.ask_again((id, on_link.then_some(destination)), destination, now);
        }
        if let Some(owed) = reason.owes()
            && icmp::may_be_sent_about(&packet)
        {
            let mtu = tables.mtu(&packet, tables.adjacencies.at(packet.adjacency));
            self.answer(&packet, (owed, mtu), pipeline, stock, tables, now);
        }
        stock.put(packet);
    }

    /// The sender of a packet hears what became of it, if the rate admits it.
    fn answer(
        &mut self,
        packet: &Packet,
        owed: (Owed, u16),
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        tables: &Tables,
        now: Time,
    ) {
        match icmp::answer(packet, owed, tables, stock, &mut self.limiter, now) {
            Some(answer) => {
                pipeline.tally.originated(1);
                self.ready.push(answer);
            }
            None => pipeline.tally.icmp_suppressed(),
        }
    }

    fn punt(&mut self, packet: Box<Packet>, reason: PuntReason, pipeline: &mut Pipeline, stock: &mut Stock) {
        match self.outlets.write(&packet) {
            Ok(()) => pipeline.tally.punted(reason),
            Err(reason) => pipeline.tally.dropped(reason, packet.ingress, packet.tunnel),
        }
        stock.put(packet);
    }

    /// No port is left: what waits for neighbours or fragments leaves.
    pub fn give_up(&mut self, exits: &mut Exits) {
        self.hold.release(|packet| exits.push(packet, Exit::Drop(DropReason::PortDown)));
        self.reassembly.give_up(DropReason::PortDown, exits);
        self.elsewhere.drain(..).for_each(|(_, packet)| exits.push(packet, Exit::Drop(DropReason::PortDown)));
    }

    /// Packets that wait for neighbours, fragments that wait for others, and those that are for another worker.
    pub fn waiting(&self) -> usize {
        self.hold.len() + self.reassembly.len() + self.elsewhere.len()
    }

    /// When the oldest of them gives up.
    pub fn deadline(&self) -> Option<Time> {
        self.hold.deadline().into_iter().chain(self.reassembly.deadline()).min()
    }
}
