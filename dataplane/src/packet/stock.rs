//! What a worker needs to hold packets: free frames and free boxes.

use super::{Packet, PortId, Time};
use xsk::{Frame, Pool};

/// A worker's frames and boxes. There is a box for every chunk of the UMEM's share that a worker may hold at
/// once, so that wrapping a frame does not allocate; were they ever to run out, one more is made.
pub struct Stock {
    /// Free frames.
    pub frames: Pool,
    #[expect(clippy::vec_box, reason = "the box is the point: packets do not move")]
    boxes: Vec<Box<Packet>>,
}

impl Stock {
    /// With `boxes` boxes.
    pub fn new(frames: Pool, boxes: usize) -> Self {
        Self { frames, boxes: (0..boxes).map(|_| Box::new(Packet::empty())).collect() }
    }

    /// A received frame becomes a packet.
    #[inline(always)]
    pub fn wrap(&mut self, frame: Frame, port: PortId, unfinished: bool, now: Time) -> Box<Packet> {
        let mut packet = self.empty();
        packet.receive(frame, port, unfinished, now);
        packet
    }

    /// A packet that has no frame yet.
    #[inline(always)]
    pub fn empty(&mut self) -> Box<Packet> {
        match self.boxes.pop() {
            Some(packet) => packet,
            None => Self::grow(),
        }
    }

    #[cold]
    fn grow() -> Box<Packet> {
        Box::new(Packet::empty())
    }

    /// The packet is done with, and its frame too.
    #[inline(always)]
    pub fn put(&mut self, mut packet: Box<Packet>) {
        self.frames.put(packet.frame.take());
        self.boxes.push(packet);
    }

    /// The packet is done with; its frame goes on alone.
    #[inline(always)]
    pub fn unwrap(&mut self, mut packet: Box<Packet>) -> Frame {
        let frame = packet.frame.take();
        self.boxes.push(packet);
        frame
    }
}
