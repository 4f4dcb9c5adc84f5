//! First in, first out, with a bound.

use crate::packet::Packet;
use std::collections::VecDeque;

/// A bounded queue of packets.
#[derive(Debug)]
pub struct Fifo {
    packets: VecDeque<Box<Packet>>,
    limit: usize,
}

impl Fifo {
    /// For at most `limit` packets, allocated now.
    pub fn new(limit: usize) -> Self {
        Self { packets: VecDeque::with_capacity(limit), limit }
    }

    /// Takes a packet.
    ///
    /// # Errors
    ///
    /// Gives it back when the queue is full.
    #[inline(always)]
    pub fn push(&mut self, packet: Box<Packet>) -> Result<(), Box<Packet>> {
        if self.packets.len() == self.limit {
            return Err(packet);
        }
        self.packets.push_back(packet);
        Ok(())
    }

    /// The oldest packet, if it has at most `room` chunks.
    #[inline(always)]
    pub fn pop(&mut self, room: usize) -> Option<Box<Packet>> {
        if self.packets.front()?.frame.chunks() > room { None } else { self.packets.pop_front() }
    }

    /// How many wait.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}
