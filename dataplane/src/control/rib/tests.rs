use super::*;
use crate::packet::PortId;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn net(prefix: &str) -> IpNet {
    prefix.parse().expect("a prefix of the test")
}

fn way(port: u16) -> Way {
    if port == 0 { Way::One(Target::Kernel) } else { Way::One(Target::OnLink(PortId(port))) }
}

fn shared(ports: &[(u16, u16)]) -> Way {
    Way::of(ports.iter().map(|(port, weight)| (Target::OnLink(PortId(*port)), *weight)))
}

#[test]
fn a_way_is_the_same_whatever_the_order_of_its_targets() {
    assert_eq!(shared(&[(1, 2), (2, 1)]), shared(&[(2, 1), (1, 2)]));
    assert_eq!(shared(&[(1, 2), (1, 3)]), way(1), "one target with all the weight");
    assert_eq!(shared(&[]), Way::One(Target::Unreachable));
    assert_ne!(shared(&[(1, 1), (2, 1)]), shared(&[(1, 2), (2, 1)]));
}

#[test]
fn the_file_stands_over_the_kernel_and_a_lower_metric_over_a_higher_one() {
    let mut rib = Rib::default();
    let (vrf, prefix) = (Vrf(0), net("10.0.0.0/8"));
    let leads = |rib: &Rib| rib.chosen(vrf, prefix).map(|route| rib.way(route.way).clone());
    rib.set(vrf, prefix, Source::Kernel(200, 254), &way(1)).expect("room");
    rib.set(vrf, prefix, Source::Kernel(100, 254), &way(2)).expect("room");
    assert_eq!(leads(&rib), Some(way(2)));
    rib.set(vrf, prefix, Source::Static, &way(3)).expect("room");
    assert_eq!(leads(&rib), Some(way(3)));
    rib.unset(vrf, prefix, Source::Static);
    rib.unset(vrf, prefix, Source::Kernel(100, 254));
    assert_eq!(leads(&rib), Some(way(1)), "the next best takes over");
    rib.unset(vrf, prefix, Source::Kernel(200, 254));
    assert_eq!((leads(&rib), rib.len(vrf)), (None, 0));
}

#[test]
fn more_ways_than_the_fib_can_name_are_refused_and_change_nothing() {
    let mut rib = Rib::default();
    let prefix = |n: u32| IpNet::new(std::net::Ipv4Addr::from_bits(n << 8).into(), 24).expect("a /24");
    for n in 1..=u32::from(Value::MAX) {
        rib.set(Vrf(0), prefix(n), Source::Static, &way(n as u16)).expect("room for all that have a number");
    }
    let one_more = shared(&[(1, 1), (2, 1)]);
    rib.take_changed();
    assert_eq!(rib.set(Vrf(0), prefix(7), Source::Static, &one_more), Err(TooManyWays));
    assert_eq!(rib.chosen(Vrf(0), prefix(7)).map(|route| rib.way(route.way).clone()), Some(way(7)));
    assert!(rib.take_changed().is_empty());
    assert_eq!(TooManyWays.to_string(), "more than 32767 distinct next hops");
    // A way that is free again is enough.
    rib.unset(Vrf(0), prefix(9), Source::Static);
    let dead = rib.take_dead();
    assert_eq!(rib.release(dead).len(), 1);
    rib.set(Vrf(0), prefix(7), Source::Static, &one_more).expect("the number of the one that went");
}

#[test]
fn pages_of_routes_make_the_whole() {
    let mut rib = Rib::default();
    let all =
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "::/0", "2001:db8::/32"].map(net);
    for prefix in all {
        rib.set(Vrf(1), prefix, Source::Static, &way(1)).expect("room");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    while let Some((prefix, _)) = rib.after(Vrf(1), after, None).next() {
        seen.push(prefix);
        after = Some(prefix);
    }
    assert_eq!(seen, all);
    let within = |prefix| rib.after(Vrf(1), None, Some(net(prefix))).map(|(prefix, _)| prefix).collect::<Vec<_>>();
    assert_eq!(within("10.0.0.0/8"), all[1..4]);
    assert_eq!(within("10.1.128.0/17"), []);
    assert_eq!(within("2001::/16"), all[6..]);
    assert_eq!(rib.after(Vrf(2), None, None).count(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u16, IpNet, Source, Way),
    Unset(u16, IpNet, Source),
    Renew(Vec<(u16, IpNet, Source, Way)>),
}

fn prefixes() -> impl Strategy<Value = IpNet> {
    // Few, so that they meet: nested ones of both families, corners included.
    let v4 = (0..4_u32, prop::sample::select(vec![0, 1, 8, 9, 24, 31, 32])).prop_map(|(bits, len)| {
        IpNet::new(std::net::Ipv4Addr::from_bits(bits << 30 | bits).into(), len).expect("in range").trunc()
    });
    let v6 = (0..4_u128, prop::sample::select(vec![0, 1, 48, 127, 128])).prop_map(|(bits, len)| {
        IpNet::new(std::net::Ipv6Addr::from_bits(bits << 126 | bits).into(), len).expect("in range").trunc()
    });
    prop_oneof![v4, v6]
}

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Address),
        Just(Source::Static),
        Just(Source::Connected),
        (0..3_u32).prop_map(|metric| Source::Kernel(metric, 254)),
    ]
}

fn ways() -> impl Strategy<Value = Way> {
    prop_oneof![
        (0..4_u16).prop_map(way),
        prop::collection::vec((0..4_u16, 1..3_u16), 2..4).prop_map(|ports| shared(&ports)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let route = || (0..2_u16, prefixes(), sources(), ways());
    prop_oneof![
        6 => route().prop_map(|(vrf, prefix, source, way)| Step::Set(vrf, prefix, source, way)),
        4 => route().prop_map(|(vrf, prefix, source, _)| Step::Unset(vrf, prefix, source)),
        1 => prop::collection::vec(route(), 0..8).prop_map(Step::Renew),
    ]
}

type Naive = BTreeMap<(Vrf, IpNet), BTreeMap<Source, Way>>;

fn chosen(naive: &Naive) -> BTreeMap<(Vrf, IpNet), Way> {
    naive.iter().filter_map(|(key, sources)| Some((*key, sources.first_key_value()?.1.clone()))).collect()
}

proptest! {
    /// After any steps, each prefix leads where the least of its sources says, exactly what changed is told, lookups
    /// find the longest, and no way is kept or lost that should not be.
    #[test]
    fn is_what_a_list_of_all_routes_says(rounds in prop::collection::vec(prop::collection::vec(steps(), 1..6), 1..12)) {
        let (mut rib, mut naive) = (Rib::default(), Naive::new());
        for round in rounds {
            let before = chosen(&naive);
            for step in round {
                match step {
                    Step::Set(vrf, prefix, source, way) => {
                        rib.set(Vrf(vrf), prefix, source, &way).expect("few ways");
                        naive.entry((Vrf(vrf), prefix)).or_default().insert(source, way);
                    }
                    Step::Unset(vrf, prefix, source) => {
                        rib.unset(Vrf(vrf), prefix, source);
                        naive.entry((Vrf(vrf), prefix)).or_default().remove(&source);
                    }
                    Step::Renew(routes) => {
                        // A renewal stands at the beginning of a round.
                        if chosen(&naive) != before {
                            continue;
                        }
                        rib.take_changed();
                        naive.clear();
                        let former = rib.begin_renewal();
                        for (vrf, prefix, source, way) in routes {
                            rib.set(Vrf(vrf), prefix, source, &way).expect("few ways");
                            naive.entry((Vrf(vrf), prefix)).or_default().insert(source, way);
                        }
                        rib.end_renewal(former);
                    }
                }
            }
            let after = chosen(&naive);
            let told = rib.take_changed();
            let all = before.keys().chain(after.keys()).copied().collect::<BTreeSet<_>>();
            for key in all {
                let now = rib.chosen(key.0, key.1).map(|route| rib.way(route.way).clone());
                prop_assert_eq!(now.as_ref(), after.get(&key));
                // What went and came back within a round may be told.
                prop_assert!(told.contains(&key) || before.get(&key) == after.get(&key), "{:?} is not told", key);
                let address = key.1.addr();
                let longest = after.keys().filter(|(vrf, prefix)| *vrf == key.0 && prefix.contains(&address));
                let longest = longest.max_by_key(|(_, prefix)| prefix.prefix_len()).map(|(_, prefix)| *prefix);
                prop_assert_eq!(rib.lookup(key.0, address).map(|(prefix, _)| prefix), longest);
            }
            for vrf in [Vrf(0), Vrf(1)] {
                let of_vrf = || after.iter().filter(|((v, _), _)| *v == vrf);
                prop_assert_eq!(rib.len(vrf), of_vrf().count());
                for (family, source, count) in rib.counts(vrf) {
                    let counted = naive.iter().filter(|((v, prefix), sources)| {
                        let wins = sources.keys().next().is_some_and(|least| least.name() == source);
                        *v == vrf && prefix.addr().is_ipv6() == (family == Family::V6) && wins
                    });
                    prop_assert_eq!(count, counted.count(), "{:?} {}", family, source);
                }
                prop_assert_eq!(rib.kept(vrf), of_vrf().filter(|(_, w)| **w == way(0)).count());
            }
            let dead = rib.take_dead();
            rib.release(dead);
            let used: BTreeSet<_> = naive.values().flat_map(BTreeMap::values).map(|way| format!("{way:?}")).collect();
            let held: BTreeSet<_> = rib.ways().map(|(_, way)| format!("{way:?}")).collect();
            prop_assert_eq!(held, used);
        }
    }
}
