//! Any driver with faults: octets that change, frames cut short, no room to send. The same seed gives the same
//! faults. What the faults do to a packet is the network's doing: the balance of packets still holds.

use super::{Driver, Port};
use crate::packet::{Batch, Outstanding, Packet, PortId, Stock, Time};
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

    fn outstanding(&self) -> Outstanding {
        self.inner.outstanding()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Memory;
    use crate::testing::{LAN, octets, stock, umem};

    /// Receives so many frames of 100 octets, a batch a round, and then what was kept back. Each frame starts with its
    /// number.
    fn received(faults: Faults, seed: u64, count: u32) -> Vec<Vec<u8>> {
        let (mut stock, mut batch, mut all) = (stock(), Batch::new(), Vec::new());
        let mut memory = Memory::new();
        (0..count).for_each(|number| memory.put([&number.to_be_bytes()[..], &[0xaa; 96]].concat()));
        let mut port = Faulty::new(Port::Memory(memory), faults, seed);
        for _ in 0..count.div_ceil(Batch::SIZE as u32) + 1 {
            assert_eq!(port.receive(LAN, &mut stock, &mut batch, Time(0)), 0);
            for packet in batch.drain() {
                all.push(octets(&packet));
                stock.put(packet);
            }
        }
        port.close(&mut stock);
        drop(stock);
        assert_eq!(umem().free(), crate::testing::CHUNKS, "every frame is back");
        all
    }

    /// About so many of a thousand: far enough that no seed of the test comes near.
    fn about(count: usize, per_mille: usize, of: usize) -> bool {
        let expected = of * per_mille / 1000;
        (expected / 2..=expected * 2).contains(&count)
    }

    const COUNT: u32 = 2_000;

    #[test]
    fn without_faults_it_is_the_driver_inside() {
        let all = received(Faults::default(), 1, 100);
        let expected: Vec<_> = (0..100u32).map(|number| [&number.to_be_bytes()[..], &[0xaa; 96]].concat()).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn each_fault_happens_as_often_as_asked_and_does_what_it_says() {
        let plain = received(Faults::default(), 1, COUNT);
        let corrupt = received(Faults { corrupt: 100, ..Faults::default() }, 1, COUNT);
        let bits = |(a, b): (&Vec<u8>, &Vec<u8>)| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        let changed: Vec<_> = plain.iter().zip(&corrupt).map(bits).filter(|bits| *bits != 0).collect();
        assert!(changed.iter().all(|bits| *bits == 1) && about(changed.len(), 100, 2_000), "{}", changed.len());
        let cut = received(Faults { cut: 100, ..Faults::default() }, 1, COUNT);
        assert!(cut.iter().zip(&plain).all(|(cut, whole)| whole.starts_with(cut)));
        let shorter = cut.iter().filter(|frame| frame.len() < 100).count();
        assert!(about(shorter, 100, 2_000), "{shorter}");
        let mut reordered = received(Faults { reorder: 100, ..Faults::default() }, 1, COUNT);
        let late = reordered.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(late > 20, "{late}");
        reordered.sort();
        assert_eq!(reordered, plain, "and none is lost");
    }

    #[test]
    fn the_same_seed_is_the_same_faults() {
        let faults = Faults { corrupt: 50, cut: 50, reorder: 50, jam: 50 };
        assert_eq!(received(faults, 7, 300), received(faults, 7, 300));
        assert_ne!(received(faults, 7, 300), received(faults, 8, 300));
    }

    #[test]
    fn a_jam_lasts_a_round() {
        let (mut stock, mut batch) = (stock(), Batch::new());
        let faults = Faults { jam: 300, ..Faults::default() };
        let mut port = Faulty::new(Port::Memory(Memory::new()), faults, 1);
        let jams = (0..COUNT).filter(|_| {
            port.receive(LAN, &mut stock, &mut batch, Time(0));
            port.room() == 0
        });
        let jams = jams.count();
        assert!(about(jams, 300, 2_000), "{jams}");
    }
}
