//! Two gateways and two hosts in virtual time: what the hosts send arrives, whatever the network does, and afterwards
//! every packet has had one fate and every frame is back.
//!
//! A failure prints the seed and the whole setting: `World::new` of it is the same run again.
#![forbid(unsafe_code)]

use dataplane::io::Faults;
use dataplane::packet::DropReason::{
    self, FragmentationNeeded, HoldFull, NeighbourUnresolved, NoFrame, PacketTooBig, TtlExpired,
};
use dataplane::packet::Time;
use dataplane::stats::Totals;
use integration::sim::{Setting, Weather, World};
use integration::site::Underlay::{V4, V6};
use proptest::prelude::*;

/// Of the hosts.
const FAMILIES: [bool; 2] = [false, true];

fn dropped(totals: &[Totals; 2]) -> u64 {
    totals.iter().map(Totals::dropped).sum()
}

/// Both hosts ping and transfer, in both families.
fn talk(world: &mut World, octets: usize) {
    for is_v6 in FAMILIES {
        for from in [0, 1] {
            assert_eq!(world.ping(from, is_v6, 100), 100);
            world.transfer(from, is_v6, octets);
        }
    }
}

#[test]
fn hosts_talk_over_the_tunnel_and_nothing_is_lost() {
    for underlay in [V4, V6] {
        let calm = Setting::calm(1, underlay);
        for setting in [calm, calm.jumbo(), Setting { wan_mtu: 9000, ..calm }] {
            let mut world = World::new(setting);
            talk(&mut world, 200_000);
            let totals = world.settle();
            assert_eq!(dropped(&totals), 0, "the MSS fits without a router's help: {totals:?}");
            for totals in totals {
                assert_eq!((totals.originated, totals.punted(), totals.absorbed), (0, 0, 0));
                assert_eq!(totals.received, totals.forwarded);
            }
        }
    }
}

/// One host's packet is as long as its link allows, which the tunnel does not: what a router says, the host follows.
#[track_caller]
fn check_path_mtu(setting: Setting) {
    let lan = usize::from(setting.lan_mtu);
    let mut world = World::new(setting);
    for from in [0, 1] {
        for is_v6 in FAMILIES {
            assert_eq!(world.ping(from, is_v6, setting.path_mtu()), setting.path_mtu(), "what just fits");
            assert_eq!(world.drops(FragmentationNeeded) + world.drops(PacketTooBig), 0);
            assert_eq!(world.ping(from, is_v6, setting.path_mtu() + 1), setting.path_mtu(), "an octet more");
            assert_eq!(world.ping(from, is_v6, lan), setting.path_mtu(), "the longest");
            assert_eq!(world.drops(if is_v6 { PacketTooBig } else { FragmentationNeeded }), 2);
            let totals = world.settle();
            assert_eq!((totals[from].dropped(), totals[from].originated), (2, 2), "{totals:?}");
            assert_eq!(totals[1 - from].dropped(), 0);
            world = World::new(setting);
        }
    }
}

#[test]
fn a_host_learns_the_mtu_of_the_tunnel() {
    for underlay in [V4, V6] {
        let calm = Setting::calm(2, underlay);
        check_path_mtu(calm);
        check_path_mtu(calm.jumbo());
        check_path_mtu(Setting { lan_mtu: 9000, ..calm });
    }
}

#[test]
fn what_may_be_cut_is_cut_before_the_tunnel_and_arrives_whole() {
    for underlay in [V4, V6] {
        for (lan_mtu, wan_mtu) in [(1500, 1500), (9000, 9000), (9000, 1500)] {
            let setting = Setting { lan_mtu, wan_mtu, ..Setting::calm(3, underlay) };
            let mut world = World::new(setting);
            world.hosts.iter_mut().for_each(|host| host.dont_fragment = false);
            for (number, length) in [setting.path_mtu(), setting.path_mtu() + 1, lan_mtu.into()].into_iter().enumerate()
            {
                assert_eq!(world.ping(0, false, length), length);
                let made = world.settle().map(|totals| totals.originated);
                assert_eq!(made[0], made[1], "the answer is as long");
                assert_eq!(made[0] == 0, number == 0, "only what does not fit is cut");
            }
            assert_eq!(dropped(&world.settle()), 0);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(storm(seed));
        talk(&mut world, 20_000);
        world.settle()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// Everything at once, the amounts by the seed.
fn storm(seed: u64) -> Setting {
    let amount = |at: u32, limit: u32| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at * 7)) as u32 % limit;
    let calm = Setting::calm(seed, if seed & 1 == 0 { V4 } else { V6 });
    // Octets change once on a packet's way, on the wire or behind it: two changes may cancel out in a checksum.
    let (on_wire, behind) = if seed & 2 == 0 { (5 + amount(0, 10), 0) } else { (0, 5 + amount(0, 10)) };
    let late = Faults { corrupt: 0, cut: 0, reorder: 20 + amount(1, 60), jam: 100 + amount(2, 500) };
    Setting {
        weather: Weather { loss: 10 + amount(3, 20), delay: 20 + amount(4, 100), corrupt: on_wire, twice: 10 },
        lan_faults: late,
        wan_faults: Faults { corrupt: behind, cut: 2 + amount(5, 8), ..late },
        flapping: seed & 4 != 0,
        ..if seed & 8 == 0 { calm } else { calm.jumbo() }
    }
}

#[test]
fn hosts_talk_through_loss_reordering_corruption_and_jams() {
    let mut seen = [0; DropReason::COUNT];
    for seed in 0..16 {
        let mut world = World::new(storm(seed));
        talk(&mut world, 50_000);
        for totals in world.settle() {
            seen.iter_mut().zip(totals.drops).for_each(|(sum, count)| *sum += count);
        }
    }
    // It was a storm indeed.
    let named = |reason: &&DropReason| seen[**reason as usize] != 0;
    let reasons: Vec<_> = DropReason::ALL.iter().filter(named).collect();
    assert!(reasons.len() >= 6, "{reasons:?}");
    assert!(!named(&&TtlExpired) && !named(&&NoFrame), "{reasons:?}");
}

#[test]
fn hosts_talk_while_neighbours_come_and_go() {
    let (mut waited, mut unanswered) = (0, 0);
    for underlay in [V4, V6] {
        for seed in 20..22 {
            let mut world = World::new(Setting { flapping: true, ..Setting::calm(seed, underlay) });
            while world.now().0 < 6 * Time::SECOND {
                talk(&mut world, 100_000);
                world.wait(Time::SECOND / 10);
            }
            let totals = world.settle();
            // Nothing else happens to a packet: it waits, and in the end its sender is told.
            assert_eq!(dropped(&totals), world.drops(HoldFull) + world.drops(NeighbourUnresolved), "{totals:?}");
            waited += world.drops(HoldFull);
            unanswered += world.drops(NeighbourUnresolved);
        }
    }
    assert_ne!(waited, 0, "no queue of those who wait was ever full");
    assert_ne!(unanswered, 0, "nobody waited for longer than a second");
}

#[test]
fn a_jammed_port_delays_and_drops_nothing() {
    let jam = Faults { jam: 900, ..Faults::default() };
    for underlay in [V4, V6] {
        let calm = Setting { lan_faults: jam, wan_faults: jam, ..Setting::calm(40, underlay) };
        for setting in [calm, calm.jumbo()] {
            let mut world = World::new(setting);
            talk(&mut world, 100_000);
            assert_eq!(dropped(&world.settle()), 0);
            assert!(world.most_queued() > 5, "there was always room: {}", world.most_queued());
        }
    }
}

#[test]
fn hosts_talk_when_frames_run_out() {
    let jam = Faults { jam: 700, ..Faults::default() };
    for underlay in [V4, V6] {
        for (seed, chunks) in [(30, 16), (31, 24), (32, 40)] {
            let calm = Setting::calm(seed, underlay);
            let mut world = World::new(Setting { chunks, wan_faults: jam, ..calm });
            talk(&mut world, 100_000);
            let totals = world.settle();
            assert_ne!(world.drops(NoFrame), 0, "{chunks} frames were enough");
            assert_eq!(dropped(&totals), world.drops(NoFrame), "and it is the only thing that happened: {totals:?}");
        }
    }
}

fn any_faults(corrupt: u32) -> impl Strategy<Value = Faults> {
    let behind = if corrupt == 0 { 0..1 } else { 0..corrupt };
    (behind, 0..10u32, 0..100u32, 0..800u32).prop_map(|(corrupt, cut, reorder, jam)| Faults {
        corrupt,
        cut,
        reorder,
        jam,
    })
}

fn any_setting() -> impl Strategy<Value = Setting> {
    let weather = |corrupt: bool| {
        let corrupt = if corrupt { 0..20u32 } else { 0..1 };
        (0..40u32, 0..200u32, corrupt, 0..50u32).prop_map(|(loss, delay, corrupt, twice)| Weather {
            loss,
            delay,
            corrupt,
            twice,
        })
    };
    let mtu = || prop::sample::select(vec![1500u16, 2000, 9000]);
    let trouble = any::<bool>()
        .prop_flat_map(move |on_wire| (weather(on_wire), any_faults(0), any_faults(if on_wire { 0 } else { 20 })));
    let underlay = prop::sample::select(vec![V4, V6]);
    let chunks = prop_oneof![3 => Just(2048usize), 1 => 16..64usize];
    (any::<u64>(), underlay, mtu(), mtu(), trouble, chunks, any::<bool>()).prop_map(
        |(seed, underlay, lan_mtu, wan_mtu, (weather, lan_faults, wan_faults), chunks, flapping)| Setting {
            lan_mtu,
            wan_mtu,
            weather,
            lan_faults,
            wan_faults,
            chunks,
            flapping,
            ..Setting::calm(seed, underlay)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn hosts_talk_whatever_the_network_does(setting in any_setting(), from in 0..2usize, is_v6: bool, cut: bool) {
        let mut world = World::new(setting);
        world.hosts.iter_mut().for_each(|host| host.dont_fragment = !cut);
        world.ping(from, is_v6, 1200);
        world.transfer(from, is_v6, 30_000);
        world.settle();
    }
}
