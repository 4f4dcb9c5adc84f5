//! Readers that look up while routes come and go.

use super::*;

/// The routes of a storm. Route `i` has the values `4 i + 1 ..= 4 i + 4`, so an answer tells which
/// route it came from. The first and the eighth stay, each around those up to the next that does;
/// the others come and go.
struct Storm<A> {
    routes: [Prefix<A>; 12],
    /// A host that is in none of them, and a route around it. The host's value counts up all the while, and so does that of
    /// the default route, which the address behind the route around falls to: a reader must see neither go back nor away.
    counter: [Prefix<A>; 2],
}

const STAYS: [usize; 2] = [0, 7];

/// One reader of the storm: every answer is that of a route that holds the address, and the
/// route that stays hides all shorter ones.
fn read<A: Address + Neighbours>(
    storm: &Storm<A>,
    reader: &impl Lookup<A>,
    epoch: &AtomicU64,
    seen: &AtomicU64,
    stop: &AtomicBool,
) -> u64 {
    let routes = &storm.routes;
    let mut addresses: Vec<A> = Vec::new();
    for route in routes {
        addresses.extend([route.address(), route.last(), route.last().before()]);
    }
    let counters = [storm.counter[0].address(), storm.counter[1].last().after()];
    addresses.extend(counters);
    let vrfs = vec![0; addresses.len()];
    let mut values = vec![None; addresses.len()];
    let mut counts = [0; 2];
    let mut rounds = 0;
    while !stop.load(Acquire) {
        reader.lookup_batch(&vrfs, &addresses, &mut values);
        for (&address, &answer) in addresses.iter().zip(&values) {
            let number = answer.expect("a route that stays holds every address").as_u16();
            if let Some(counter) = counters.iter().position(|&counter| counter == address) {
                let count = std::mem::replace(&mut counts[counter], number);
                assert!(number >= count, "{number} came after {count}");
                continue;
            }
            let route = routes.get(usize::from(number - 1) / 4).expect("no route has this value");
            assert!(route.contains(address), "{route} for {}", address.to_ip());
            let stays = STAYS.map(|index| routes[index]).into_iter().find(|stays| stays.contains(address));
            let stays = stays.expect("one that stays holds every address");
            assert!(route.len() >= stays.len(), "{route} is hidden by {stays}");
        }
        rounds += 1;
        seen.store(epoch.load(Acquire), Release);
    }
    rounds
}

/// Waits until each reader has finished the batch that it was in. It must also have read
/// something that was written after the change: a reader that only counts its batches may still
/// find the old entry in the next one.
pub(crate) fn wait_for(epoch: &AtomicU64, seen: &[AtomicU64; 2]) {
    let now = epoch.load(Acquire) + 1;
    epoch.store(now, Release);
    for seen in seen {
        while seen.load(Acquire) < now {
            thread::yield_now();
        }
    }
}

/// Stops the readers however the writer ends, so that a failure does not hang.
pub(crate) struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

#[test]
fn two_readers_in_a_storm_of_ipv4_updates_see_old_or_new_answers_only() {
    let routes = [
        "192.0.0.0/8",
        "192.0.2.0/24",
        "192.0.2.64/26",
        "192.0.2.77/32",
        "192.0.2.200/32",
        "192.0.0.0/15",
        "192.0.3.0/24",
        "198.51.0.0/16",
        "198.51.100.0/25",
        "198.51.100.1/32",
        "198.51.100.2/32",
        "192.0.2.192/27",
    ];
    let storm = Storm { routes: routes.map(v4), counter: ["203.0.113.9/32", "203.0.113.0/24"].map(v4) };
    rages::<u32, Writer4>(&storm, if cfg!(miri) { 2 << 10 } else { 32 << 10 });
}

#[test]
fn two_readers_in_a_storm_of_ipv6_updates_see_old_or_new_answers_only() {
    let routes = [
        "2001:d00::/24",
        "2001:db8::/32",
        "2001:db8:0:4000::/50",
        "2001:db8:0:4000::77/128",
        "2001:db8::c8/128",
        "2001:d80::/25",
        "2001:db9::/32",
        "2001:e00::/26",
        "2001:e02::/57",
        "2001:e02::1/128",
        "2001:e02::2/128",
        "2001:db8:0:c000::/90",
    ];
    let storm = Storm { routes: routes.map(v6), counter: ["2001:f00::9/128", "2001:f00::/48"].map(v6) };
    rages::<u128, Writer6>(&storm, if cfg!(miri) { 4 << 10 } else { 64 << 10 });
}

/// Another default route comes and goes while a host that else falls to it has a route of its own.
#[test]
fn a_default_route_that_never_was_a_hosts_is_none_of_its_answers() {
    let host = v4("192.0.2.77/32");
    let mut writer = small::<u32, Writer4>(64 << 10);
    let default = Prefix::containing(host.address(), 0).unwrap();
    let [first, other, own] = [1, 2, 3].map(value);
    writer.insert(0, default, first).unwrap();
    let stop = AtomicBool::new(false);
    let epoch = AtomicU64::new(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        let readers = [0, 1].map(|index| {
            let (reader, epoch, seen, stop) = (writer.reader(), &epoch, &seen[index], &stop);
            scope.spawn(move || {
                let (vrfs, addresses) = ([0; 65], [host.address(); 65]);
                let (mut values, mut wrong) = ([None; 65], 0);
                while !stop.load(Acquire) {
                    reader.lookup_batch(&vrfs, &addresses, &mut values);
                    wrong += values.iter().filter(|&&value| value != Some(first) && value != Some(own)).count();
                    seen.store(epoch.load(Acquire), Release);
                }
                wrong
            })
        });
        let stopping = StopAtEnd(&stop);
        for round in 0..if cfg!(miri) { 30 } else { 20_000 } {
            writer.insert(0, host, own).unwrap();
            writer.insert(0, default, other).unwrap();
            writer.insert(0, default, first).unwrap();
            writer.remove(0, host).unwrap();
            if round % 64 == 0 {
                let mark = writer.retire_mark();
                wait_for(&epoch, &seen);
                writer.reclaim(mark);
            }
        }
        drop(stopping);
        let wrong = readers.map(|reader| reader.join().expect("a reader counts, and does not fail"));
        assert_eq!(wrong, [0; 2], "answers that never were the host's");
    });
}

/// With little room, so that each block is used again and again.
fn rages<A: Address + Neighbours, T: Table<A>>(storm: &Storm<A>, bytes: usize) {
    let mut writer = small::<A, T>(bytes);
    for index in STAYS {
        writer.insert(0, storm.routes[index], value(4 * index as u16 + 1)).unwrap();
    }
    let default = Prefix::containing(storm.counter[0].address(), 0).unwrap();
    for prefix in storm.counter.into_iter().chain([default]) {
        writer.insert(0, prefix, value(1)).unwrap();
    }

    let epoch = AtomicU64::new(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    thread::scope(|scope| {
        let readers = [0, 1].map(|index| {
            let (reader, epoch, seen, stop) = (writer.reader(), &epoch, &seen[index], &stop);
            scope.spawn(move || {
                // A failed reader must not leave the writer waiting for it.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| read(storm, &reader, epoch, seen, stop)));
                while !stop.load(Acquire) {
                    seen.store(epoch.load(Acquire), Release);
                    thread::yield_now();
                }
                result
            })
        });
        let stopping = StopAtEnd(&stop);
        // A fixed sequence that looks like none: multiplication by a generator modulo 2^32.
        let mut random = 1_u32;
        for round in 0..if cfg!(miri) { 300 } else { 30_000_u32 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 16) as usize % storm.routes.len();
            let prefix = storm.routes[index];
            let stays = STAYS.contains(&index);
            let goes = !stays && random >> 30 & 1 == 0;
            let number = value(4 * index as u16 + 1 + (random >> 28) as u16 % 4);
            let count = value(1 + (round / 2) as u16);
            let counted = [storm.counter[0], default].map(|prefix| (prefix, Some(count)));
            for (prefix, value) in [(prefix, (!goes).then_some(number))].into_iter().chain(counted) {
                let change = Change { vrf: 0, prefix, value };
                if writer.apply(vec![change]).is_err() {
                    // All room waits for the readers: let them pass.
                    refused += 1;
                    let mark = writer.retire_mark();
                    wait_for(&epoch, &seen);
                    assert!(writer.reclaim(mark) > 0);
                    writer.apply(vec![change]).expect("the blocks came back");
                }
            }
        }
        drop(stopping);
        for reader in readers {
            let rounds = reader.join().expect("panics were caught").expect("a reader saw it");
            assert!(rounds > 0, "a reader never got to read");
        }
    });
    assert!(refused > if cfg!(miri) { 1 } else { 50 }, "blocks were to be used again, but only {refused} times");
}
