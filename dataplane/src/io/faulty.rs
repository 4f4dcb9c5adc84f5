//! Any driver with faults: octets that change, frames cut short, no room to send. The same seed gives the same
//! faults. What the faults do to a packet is the network's doing: the balance of packets still holds.

use super::{Driver, Port};
use crate::packet::{Batch, Packet, PortId, Stock, Time};
use std::os::fd::BorrowedFd;

/// How often each fault happens, in 1/1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// An octet of a received frame changes.
    pub corrupt: u32,
    /// A received frame is cut.
    pub cut: u32,
    /// A received packet waits for the next round, behind later ones.
    pub reorder: u32,
    /// In a round, there is no room to send.
    pub jam: u32,
}

/// A driver with faults.
pub struct Faulty {
    inner: Port,
    faults: Faults,
    state: u64,
    #[expect(clippy::vec_box, reason = "the box is the point: packets do not move")]
    late: Vec<Box<Packet>>,
    jammed: bool,
}

impl Faulty {
    /// Wraps a driver.
    pub fn new(inner: Port, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, state: seed ^ 0x9e37_79b9_7f4a_7c15, late: Vec::new(), jammed: false }
    }

    /// The driver inside.
    pub fn inner(&mut self) -> &mut Port {
        &mut self.inner
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille != 0 && self.random() % 1000 < per_mille.into()
    }
}

impl Driver for Faulty {
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        let mut received = Batch::new();
        let lost = self.inner.receive(port, stock, &mut received, now);
        let late = std::mem::take(&mut self.late);
        for mut packet in received.drain() {
            let length = packet.frame.bytes().len();
            if length > 0 && self.happens(self.faults.corrupt) {
                let (at, bit) = (self.random() as usize % length, self.random() % 8);
                packet.frame.bytes_mut()[at] ^= 1 << bit;
            }
            if self.happens(self.faults.cut) {
                let total = self.random() as usize % (packet.frame.total() + 1);
                packet.frame.set_len(total);
            }
            if self.happens(self.faults.reorder) {
                self.late.push(packet);
            } else {
                batch.push(packet);
            }
        }
        late.into_iter().for_each(|packet| batch.push(packet));
        self.jammed = self.happens(self.faults.jam);
        lost
    }

    fn room(&self) -> usize {
        if self.jammed { 0 } else { self.inner.room() }
    }

    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        self.inner.send(packet, stock);
    }

    fn flush(&mut self, stock: &mut Stock) -> bool {
        self.inner.flush(stock)
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_on()
    }

    fn close(self, stock: &mut Stock) {
        self.late.into_iter().for_each(|packet| stock.put(packet));
        self.inner.close(stock);
    }
}
