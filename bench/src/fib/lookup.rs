//! Lookups, 64 at a time: a hot loop of nothing else, and as between packets.

use super::rival::{Loaded, Rival};
use super::{FibError, VRF, VRFS, changes};
use crate::family::{Read, Write};
use crate::routes::Route;
use crate::series::Series;
use lpm::naive::Intervals;
use lpm::{Limits, Value};
use rte::{Lookup, Started};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Addresses in a batch.
pub const BATCH: usize = 64;
/// How often all addresses are looked up in a slice of the hot loop, after once without the clock: the other side has had
/// the caches, and its table may fill them.
const PASSES: usize = 2;
/// Packets between two readings of the clock in the packet loop: four batches.
const TURN: usize = 256;
/// Turns of a slice, after half as many without the clock.
const TURNS: usize = 128;

/// Our table and DPDK's with the same routes.
pub struct Contest<A: Rival> {
    writer: A::Writer,
    theirs: Option<Loaded<A>>,
    oracle: Intervals<A>,
    /// The codes of DPDK's lookups that run on this CPU.
    codes: Vec<(&'static str, Lookup)>,
}

impl<A: Rival> Contest<A> {
    /// Loads both.
    ///
    /// # Errors
    ///
    /// One of them has no room.
    pub fn new(routes: &[Route<A>], started: Option<Started>) -> Result<Self, FibError> {
        let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
        writer.apply(changes(routes))?;
        let mut theirs = started.map(|started| Loaded::<A>::new(started, routes)).transpose()?;
        let mut codes = Vec::new();
        if let Some(theirs) = &mut theirs {
            let all = [("rte_fib", Lookup::Scalar), ("rte_fib_avx512", Lookup::Vector)];
            codes = all.into_iter().filter(|(_, code)| A::select(&mut theirs.fib, *code).is_ok()).collect();
        }
        Ok(Self { writer, theirs, oracle: Intervals::new(routes.iter().copied()), codes })
    }

    /// Lookups of these, one batch after the other, in nanoseconds each.
    ///
    /// # Errors
    ///
    /// An answer is wrong.
    pub fn hot(&mut self, addresses: &[A], rounds: usize) -> Result<Series, FibError> {
        self.in_turns(addresses, rounds, |batches, side| {
            (0..batches).for_each(|batch| side.look_up(batch));
            let start = Instant::now();
            for _ in 0..PASSES {
                (0..batches).for_each(|batch| side.look_up(batch));
            }
            start.elapsed().as_nanos() as f64 / (PASSES * batches * BATCH) as f64
        })
    }

    /// Lookups of these, where each packet's first 192 octets, out of 32 MiB of them, are read and written in between with
    /// the clock stopped. So the table has to share the caches, as it does in a router. The addresses are read with the
    /// packets, as there.
    ///
    /// # Errors
    ///
    /// An answer is wrong.
    pub fn between_packets(&mut self, addresses: &[A], rounds: usize) -> Result<Series, FibError> {
        let mut ring = PacketRing::new();
        let mut next = 0;
        self.in_turns(addresses, rounds, |batches, side| {
            let mut took: Vec<Duration> = Vec::with_capacity(TURNS);
            for turn in 0..TURNS + TURNS / 2 {
                let turn_of = |at: usize| (next + at) % batches;
                ring.touch(TURN);
                (0..TURN / BATCH).for_each(|at| side.read(turn_of(at)));
                let start = Instant::now();
                (0..TURN / BATCH).for_each(|at| side.look_up(turn_of(at)));
                let elapsed = start.elapsed();
                next += TURN / BATCH;
                if turn >= TURNS / 2 {
                    took.push(elapsed);
                }
            }
            let middle = took.len() / 2;
            took.select_nth_unstable(middle).1.as_nanos() as f64 / TURN as f64
        })
    }

    /// Ours, then each code of theirs, and so on. `slice` is given the number of batches.
    fn in_turns(
        &mut self,
        addresses: &[A],
        rounds: usize,
        mut slice: impl FnMut(usize, &mut dyn Side) -> f64,
    ) -> Result<Series, FibError> {
        let reader = self.writer.reader();
        let keys: Vec<A::Key> = addresses.iter().map(|address| address.key()).collect();
        self.verify(addresses, &keys)?;
        let batches = addresses.len() / BATCH;
        let (addresses, _) = addresses.as_chunks::<BATCH>();
        let (keys, _) = keys.as_chunks::<BATCH>();
        let mut series = Series {
            ours: Vec::new(),
            theirs: self.codes.iter().map(|code| (code.0, Vec::new())).collect(),
            ..Series::default()
        };
        // The first round warms up.
        for round in 0..=rounds {
            let vrfs = black_box([VRF; BATCH]);
            let ours = slice(batches, &mut Ours::<A> { reader: &reader, vrfs, addresses, values: [None; BATCH] });
            if round > 0 {
                series.ours.push(ours);
            }
            let Some(theirs) = &mut self.theirs else { continue };
            for ((_, code), (_, slices)) in self.codes.iter().zip(&mut series.theirs) {
                A::select(&mut theirs.fib, *code)?;
                let (_, lookups) = A::split(&mut theirs.fib);
                let took = slice(batches, &mut Theirs::<A> { lookups, keys, next_hops: [0; BATCH] });
                if round > 0 {
                    slices.push(took);
                }
            }
        }
        Ok(series)
    }

    /// Correct before counted: all answers of both are those of the intervals.
    fn verify(&mut self, addresses: &[A], keys: &[A::Key]) -> Result<(), FibError> {
        let expected: Vec<_> = addresses.iter().map(|address| self.oracle.lookup(*address)).collect();
        let mut values = vec![None; addresses.len()];
        self.writer.reader().lookup_batch(&vec![VRF; addresses.len()], addresses, &mut values);
        let wrong = |who, address: &A, value: Option<Value>, expected: Option<Value>| FibError::Wrong {
            who,
            address: address.to_ip(),
            value: value.map(Value::as_u16),
            expected: expected.map(Value::as_u16),
        };
        for ((address, value), expected) in addresses.iter().zip(values).zip(&expected) {
            if value != *expected {
                return Err(wrong("lpm", address, value, *expected));
            }
        }
        let Some(theirs) = &mut self.theirs else { return Ok(()) };
        for (name, code) in &self.codes {
            A::select(&mut theirs.fib, *code)?;
            let (_, lookups) = A::split(&mut theirs.fib);
            let mut next_hops = vec![0; keys.len()];
            A::look_up(&lookups, keys, &mut next_hops);
            for ((address, next_hop), expected) in addresses.iter().zip(next_hops).zip(&expected) {
                let value = Value::new(next_hop as u16);
                if value != *expected {
                    return Err(wrong(name, address, value, *expected));
                }
            }
        }
        Ok(())
    }
}

/// Who looks up, with what there is to look up.
trait Side {
    /// Reads the addresses of a batch.
    fn read(&self, batch: usize);
    /// Looks them up.
    fn look_up(&mut self, batch: usize);
}

struct Ours<'a, A: Rival> {
    reader: &'a A::Reader,
    vrfs: [u16; BATCH],
    addresses: &'a [[A; BATCH]],
    values: [Option<Value>; BATCH],
}

impl<A: Rival> Side for Ours<'_, A> {
    fn read(&self, batch: usize) {
        black_box(self.addresses[batch]);
    }

    fn look_up(&mut self, batch: usize) {
        self.reader.lookup_batch(&self.vrfs, &self.addresses[batch], &mut self.values);
        black_box(&mut self.values);
    }
}

struct Theirs<'a, A: Rival> {
    lookups: A::Lookups<'a>,
    keys: &'a [[A::Key; BATCH]],
    next_hops: [u64; BATCH],
}

impl<A: Rival> Side for Theirs<'_, A> {
    fn read(&self, batch: usize) {
        black_box(self.keys[batch]);
    }

    fn look_up(&mut self, batch: usize) {
        A::look_up(&self.lookups, &self.keys[batch], &mut self.next_hops);
        black_box(&mut self.next_hops);
    }
}

/// Packets' memory, as a ring of chunks uses it: all of it in turn.
struct PacketRing {
    octets: Vec<u8>,
    next: usize,
}

impl PacketRing {
    const CHUNK: usize = 2048;
    const CHUNKS: usize = 1 << 14;
    const LINES: usize = 3;

    fn new() -> Self {
        Self { octets: vec![1; Self::CHUNK * Self::CHUNKS], next: 0 }
    }

    fn touch(&mut self, packets: usize) {
        for _ in 0..packets {
            let chunk = self.next % Self::CHUNKS * Self::CHUNK;
            self.next += 1;
            for line in 0..Self::LINES {
                let octet = &mut self.octets[chunk + line * 64];
                *octet = black_box(*octet).wrapping_add(1);
            }
        }
    }
}
