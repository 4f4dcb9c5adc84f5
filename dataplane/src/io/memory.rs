//! A port made of two queues: what is put in is received, what is sent can be taken out.

use super::Driver;
use crate::packet::{Batch, Packet, PortId, Stock, Time};
use std::collections::VecDeque;

/// Queues of frames as octets.
#[derive(Debug, Default)]
pub struct Memory {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<(Time, Vec<u8>)>,
    /// The peer leaves transport checksums to hardware, as a veth's does.
    unfinished: bool,
    now: Time,
}

impl Memory {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a peer that leaves checksums unfinished.
    pub fn unfinished() -> Self {
        Self { unfinished: true, ..Self::default() }
    }

    /// A frame that will be received.
    pub fn put(&mut self, frame: Vec<u8>) {
        self.inbound.push_back(frame);
    }

    /// The oldest frame that was sent, and when.
    pub fn take(&mut self) -> Option<(Time, Vec<u8>)> {
        self.outbound.pop_front()
    }

    /// Whether nothing waits to be received.
    pub fn is_idle(&self) -> bool {
        self.inbound.is_empty()
    }
}

impl Driver for Memory {
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        self.now = now;
        let mut lost = 0;
        while batch.room() > 0
            && let Some(octets) = self.inbound.pop_front()
        {
            match stock.frames.frame_of(&octets) {
                Some(frame) => {
                    let packet = stock.wrap(frame, port, self.unfinished, now);
                    batch.push(packet);
                }
                None => lost += 1,
            }
        }
        lost
    }

    fn room(&self) -> usize {
        xsk::MAX_CHUNKS * Batch::SIZE
    }

    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        self.outbound.push_back((self.now, packet.frame.segments().flatten().copied().collect()));
        stock.put(packet);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        true
    }

    fn close(self, _stock: &mut Stock) {}
}
