//! What a table costs beside lookups: changes, loading, memory, and what changes cost those who look up meanwhile.

use super::lookup::BATCH;
use super::rival::{Loaded, Rival};
use super::{FibError, VRF, VRFS, changes, memory_bytes};
use crate::family::{Read, Write};
use crate::random::Random;
use crate::routes::Route;
use crate::series::Series;
use crate::traffic::Pattern;
use lpm::{Change, Limits, Prefix, Value};
use rte::Started;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// Prefixes of a slice: each is withdrawn and announced again.
const FLAPS: usize = 1000;
/// Changes between two reclaims, as a control plane does them in bursts.
const BURST: usize = 64;
/// Changes in a second beside a reader.
const RATE: u32 = 10_000;
/// How long a reader is watched at a time.
const WATCH: Duration = Duration::from_millis(100);

/// Nanoseconds of one change: random real prefixes are withdrawn and announced, each on its own.
///
/// # Errors
///
/// A table refuses a change.
pub fn update<A: Rival>(routes: &[Route<A>], started: Option<Started>, rounds: usize) -> Result<Series, FibError> {
    let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
    writer.apply(changes(routes))?;
    let mut theirs = started.map(|started| Loaded::<A>::for_changes(started, routes)).transpose()?;
    let mut order = routes.to_vec();
    Random::new(0xf1a9).shuffle(&mut order);
    let mut series = Series::default();
    let mut their_slices = Vec::new();
    for (round, flaps) in order.chunks_exact(FLAPS).cycle().take(rounds + 1).enumerate() {
        let start = Instant::now();
        for (at, &(prefix, value)) in flaps.iter().enumerate() {
            writer.remove(VRF, prefix)?;
            writer.insert(VRF, prefix, value)?;
            if at % (BURST / 2) == 0 {
                let mark = writer.retire_mark();
                writer.reclaim(mark);
            }
        }
        let ours = per_change(start);
        let mut took = None;
        if let Some(theirs) = &mut theirs {
            let (mut changes, _) = A::split(&mut theirs.fib);
            let start = Instant::now();
            for &(prefix, value) in flaps {
                A::change(&mut changes, prefix, None)?;
                A::change(&mut changes, prefix, Some(value.as_u16()))?;
            }
            took = Some(per_change(start));
        }
        // The first warms up.
        if round > 0 {
            series.ours.push(ours);
            their_slices.extend(took);
        }
    }
    if theirs.is_some() {
        series.theirs.push(("rte_fib", their_slices));
    }
    Ok(series)
}

fn per_change(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / (2 * FLAPS) as f64
}

/// Milliseconds from parsed routes to a full table. Making the empty table is not in it, on either side.
///
/// # Errors
///
/// A table has no room.
pub fn load<A: Rival>(routes: &[Route<A>], started: Option<Started>, rounds: usize) -> Result<Series, FibError> {
    let mut series = Series::default();
    let mut their_rounds = Vec::new();
    let groups = started.map(|started| Loaded::<A>::new(started, routes)).transpose()?.map(|loaded| loaded.groups);
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    for _ in 0..rounds {
        let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
        let start = Instant::now();
        writer.apply(changes(routes))?;
        series.ours.push(ms(start.elapsed()));
        drop(writer);
        if let (Some(started), Some(groups)) = (started, groups) {
            their_rounds.push(ms(Loaded::<A>::with_groups(started, routes, groups)?.took));
        }
    }
    if started.is_some() {
        series.theirs.push(("rte_fib", their_rounds));
    }
    Ok(series)
}

/// Octets of a table with the routes: what the kernel has given for it, all that the writer keeps for itself apart.
///
/// # Errors
///
/// A table has no room.
pub fn memory<A: Rival>(routes: &[Route<A>], started: Option<Started>) -> Result<Series, FibError> {
    let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
    writer.apply(changes(routes))?;
    let mut series = Series { ours: vec![writer.usage().resident_bytes as f64], ..Series::default() };
    if let Some(started) = started {
        series.theirs.push(("rte_fib", vec![Loaded::<A>::new(started, routes)?.bytes as f64]));
    }
    Ok(series)
}

/// Octets for each VRF with `routes`: what the process grows by, which is all that is kept for it, or what the table says
/// that it grows by, which holds too where the process had memory left from before; the larger of them.
///
/// # Errors
///
/// A table has no room.
pub fn idle_vrf<A: Rival>(routes: &[Route<A>], started: Option<Started>) -> Result<Series, FibError> {
    const IDLE: u16 = 500;
    let mut writer = A::Writer::new(Limits { vrfs: IDLE + 1, ..Limits::default() })?;
    let add = |writer: &mut A::Writer, vrf| {
        let change = |&(prefix, value): &Route<A>| Change { vrf, prefix, value: Some(value) };
        writer.apply(routes.iter().map(change))
    };
    // What all of them share is there with the first.
    add(&mut writer, 0)?;
    let before = (memory_bytes("Rss:"), writer.usage().resident_bytes);
    for vrf in 1..=IDLE {
        add(&mut writer, vrf)?;
    }
    let grown = memory_bytes("Rss:").saturating_sub(before.0).max(writer.usage().resident_bytes - before.1);
    let ours = grown as f64 / f64::from(IDLE);
    let mut series = Series { ours: vec![ours], ..Series::default() };
    if let Some(started) = started {
        series.theirs.push(("rte_fib", vec![Loaded::<A>::new(started, routes)?.bytes as f64]));
    }
    Ok(series)
}

/// A hundred prefixes as a tenant has them, and a default route.
pub fn private<A: Rival>(around: Prefix<A>, len: u8) -> Vec<Route<A>> {
    let mut random = Random::new(0x7e4a);
    let value = |at: u16| Value::new(1 + at % 200).expect("from 1 to 200");
    let inside = (0..100).map(|at| {
        let prefix = Prefix::containing(A::within(around, &mut random), len).expect("a length of the family");
        (prefix, value(at))
    });
    let default = (Prefix::containing(around.address(), 0).expect("a length of all families"), value(100));
    inside.chain([default]).collect()
}

/// How many percent longer lookups take while another CPU makes 10,000 changes a second.
///
/// # Errors
///
/// A table refuses a change.
pub fn slowdown<A: Rival>(
    routes: &[Route<A>],
    started: Option<Started>,
    rounds: usize,
    writer_cpu: usize,
) -> Result<Series, FibError> {
    let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
    writer.apply(changes(routes))?;
    let reader = writer.reader();
    let mut order = routes.to_vec();
    Random::new(0xf1aa).shuffle(&mut order);
    let addresses = Pattern::PrefixUniform.destinations(routes, 1 << 18);
    let (batches, _) = addresses.as_chunks::<BATCH>();
    let vrfs = black_box([VRF; BATCH]);
    let mut values = [None; BATCH];

    let mut at = 0;
    let mut due: Option<(lpm::Mark, u64)> = None;
    let ours = watched(
        rounds,
        writer_cpu,
        |batch| {
            reader.lookup_batch(&vrfs, &batches[batch % batches.len()], &mut values);
            black_box(&mut values);
        },
        |passes| {
            let (prefix, value) = order[at / 2 % order.len()];
            if at % 2 == 0 {
                writer.remove(VRF, prefix)?
            } else {
                writer.insert(VRF, prefix, value)?
            };
            at += 1;
            // Quiescent states: a mark is due once the reader has passed, twice to be sure of the batch under way.
            match due {
                None if at % BURST == 0 => due = Some((writer.retire_mark(), passes)),
                Some((mark, since)) if passes >= since + 2 => {
                    writer.reclaim(mark);
                    due = None;
                }
                _ => {}
            }
            Ok(())
        },
    )?;
    let mut series = Series { ours, theirs: Vec::new(), base: 100.0 };
    if let Some(started) = started {
        let keys: Vec<_> = addresses.iter().map(|address| address.key()).collect();
        let (batches, _) = keys.as_chunks::<BATCH>();
        let mut loaded = Loaded::<A>::for_changes(started, routes)?;
        let (mut changes, lookups) = A::split(&mut loaded.fib);
        let mut next_hops = [0; BATCH];
        let mut at = 0;
        let theirs = watched(
            rounds,
            writer_cpu,
            |batch| {
                A::look_up(&lookups, &batches[batch % batches.len()], &mut next_hops);
                black_box(&mut next_hops);
            },
            |_| {
                let (prefix, value) = order[at / 2 % order.len()];
                let next_hop = (at % 2 == 1).then_some(value.as_u16());
                at += 1;
                Ok(A::change(&mut changes, prefix, next_hop)?)
            },
        )?;
        series.theirs.push(("rte_fib", theirs));
    }
    Ok(series)
}

/// Percent that a batch takes longer beside changes, for each pair of neighbouring slices without and with them.
fn watched(
    rounds: usize,
    writer_cpu: usize,
    mut batch: impl FnMut(usize),
    mut change: impl FnMut(u64) -> Result<(), FibError> + Send,
) -> Result<Vec<f64>, FibError> {
    let (is_on, is_over, passes) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            sys::affinity::pin_current_thread(writer_cpu)?;
            let mut next = Instant::now();
            while !is_over.load(Relaxed) {
                let now = Instant::now();
                if !is_on.load(Relaxed) {
                    next = now;
                } else if now >= next {
                    change(passes.load(Acquire))?;
                    next += Duration::from_secs(1) / RATE;
                    continue;
                }
                std::hint::spin_loop();
            }
            Ok(())
        });
        let mut number = 0;
        let mut slice = |with_changes| {
            is_on.store(with_changes, Relaxed);
            let start = Instant::now();
            let first = number;
            while start.elapsed() < WATCH {
                // So many that the clock does not count.
                for _ in 0..64 {
                    batch(number);
                    number += 1;
                    passes.store(number as u64, Release);
                }
            }
            start.elapsed().as_nanos() as f64 / (number - first) as f64
        };
        slice(true);
        let percents = (0..rounds)
            .map(|_| {
                let idle = slice(false);
                (slice(true) / idle - 1.0) * 100.0
            })
            .collect();
        is_over.store(true, Relaxed);
        writing.join().expect("the writer does not panic").map(|()| percents)
    })
}
