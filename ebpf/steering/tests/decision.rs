//! The decision, frame by frame, and against an oracle.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use steering::samples::{self, MAC, ROW, VLAN_ROW};
use steering::tables::{Ingress, Interface, InterfaceFlags, Keeper, LocalV4, RouteV4};
use steering::{Host, HostTables, PassReason, Verdict, WorkerReason, steer};
use wire::EtherType;

const DEVICE: u32 = 7;

fn decide(tables: &HostTables, device: u32, frame: &[u8]) -> (Verdict, Option<u16>) {
    // Headers are read in place, so a frame starts on an even address, as packets do.
    let mut even = vec![0u16; frame.len().div_ceil(2)];
    let octets = zerocopy::IntoBytes::as_mut_bytes(even.as_mut_slice());
    octets[..frame.len()].copy_from_slice(frame);
    let host = tables.at(device);
    let decision = steer(&octets[..frame.len()], &host);
    (decision.verdict, decision.interface.map(|interface| interface.counters))
}

#[test]
fn each_frame_meets_its_verdict() {
    let tables = samples::tables(DEVICE);
    for sample in samples::frames() {
        assert_eq!(decide(&tables, DEVICE, &sample.frame).0, sample.verdict, "{}", sample.what);
    }
}

#[test]
fn the_frames_reach_every_verdict() {
    let reached: BTreeSet<Verdict> = samples::frames().iter().map(|sample| sample.verdict).collect();
    let missing: Vec<&Verdict> = Verdict::ALL.iter().filter(|verdict| !reached.contains(verdict)).collect();
    assert_eq!(missing, [&Verdict::Pass(PassReason::UnknownInterface)]);
}

#[test]
fn everything_passes_on_a_device_that_is_not_ours() {
    let tables = samples::tables(DEVICE);
    for sample in samples::frames() {
        let (verdict, row) = decide(&tables, DEVICE + 1, &sample.frame);
        assert!(matches!(verdict, Verdict::Pass(PassReason::UnknownInterface | PassReason::NotIp)), "{}", sample.what);
        assert_eq!(row, None);
    }
}

#[test]
fn a_verdict_is_counted_under_the_interface_of_the_tag_or_else_under_the_device() {
    let tables = samples::tables(DEVICE);
    let rows: Vec<_> = samples::frames()
        .iter()
        .map(|sample| {
            let frame = &sample.frame;
            let tag = frame.get(12..16).filter(|tag| tag[..2] == [0x81, 0]);
            let id = tag.map_or(0, |tag| u16::from_be_bytes([tag[2], tag[3]]) & 0xfff);
            let expected = match id {
                _ if frame.is_empty() => None,
                samples::VLAN => Some(VLAN_ROW),
                _ => Some(ROW),
            };
            assert_eq!(decide(&tables, DEVICE, frame).1, expected, "{}", sample.what);
            expected
        })
        .collect();
    assert!([None, Some(ROW), Some(VLAN_ROW)].iter().all(|row| rows.contains(row)));
}

/// A cut frame may lose what made it special, never gain anything.
#[test]
fn a_frame_cut_anywhere_is_malformed_or_less_than_it_was() {
    let tables = samples::tables(DEVICE);
    for sample in samples::frames() {
        for length in 0..sample.frame.len() {
            let verdict = decide(&tables, DEVICE, &sample.frame[..length]).0;
            let plain = [
                Verdict::Pass(PassReason::NotIp),
                Verdict::Pass(PassReason::UnknownVlan),
                Verdict::Pass(PassReason::OwnAddress),
                Verdict::Worker(WorkerReason::Malformed),
                Verdict::Worker(WorkerReason::Forward),
            ];
            // A cut marker is no marker: IKE is then not told from ESP, which shares the port.
            let nat = sample.what == "IKE, NAT" && verdict == Verdict::Worker(WorkerReason::Tunnel);
            assert!(
                verdict == sample.verdict || plain.contains(&verdict) || nat,
                "{} cut to {length}: {verdict:?}",
                sample.what
            );
            if length < 14 {
                assert_eq!(verdict, Verdict::Pass(PassReason::NotIp), "{} cut to {length}", sample.what);
            }
        }
    }
}

proptest! {
    #[test]
    fn survives_any_octets(octets in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100, sample: prop::sample::Index) {
        let tables = samples::tables(DEVICE);
        decide(&tables, DEVICE, &octets);
        let samples = samples::frames();
        let mut frame = samples[sample.index(samples.len())].frame.clone();
        let end = frame.len().min(at + octets.len());
        if at < end {
            frame[at..end].copy_from_slice(&octets[..end - at]);
        }
        decide(&tables, DEVICE, &frame);
    }

    /// The rules of an ordinary packet, from its fields instead of its octets.
    #[test]
    fn decides_as_the_fields_say(
        source in prop::sample::select(vec![[198, 51, 100, 7], [198, 51, 100, 8], [203, 0, 113, 5]]),
        destination in prop::sample::select(vec![
            [192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 255], [198, 18, 5, 9], [198, 19, 0, 1], [203, 0, 113, 6],
            [127, 3, 3, 3], [169, 254, 0, 1], [230, 0, 0, 1],
        ]),
        protocol in prop::sample::select(vec![6u8, 17, 47, 50]),
        port in prop::sample::select(vec![53u16, 68, 500, 4500, 4789, 6081]),
        fragment in prop::sample::select(vec![0u16, 0x4000, 0x2000, 0x2001, 77]),
        options in 0usize..=10,
        payload in prop::sample::select(vec![vec![0u8; 12], vec![7; 12]]),
    ) {
        let whole = fragment & 0x3fff == 0;
        let port_seen = if whole && protocol == 17 { port } else { 0 };
        let ends = [([198, 51, 100, 7], 17, 4789), ([198, 51, 100, 8], 47, 0), ([198, 51, 100, 9], 17, 4500)];
        let tunnel = match destination {
            [192, 0, 2, 1] if !whole => ends.iter().any(|end| end.0 == source),
            [192, 0, 2, 1] => ends.contains(&(source, protocol, port_seen)),
            [192, 0, 2, 2] => !whole || (protocol, port_seen) == (17, 6081),
            _ => false,
        };
        let local = destination[..3] == [192, 0, 2];
        let ike = port_seen == 500 || port_seen == 4500 && payload[0] == 0;
        let expected = match destination {
            [127, ..] => Verdict::Pass(PassReason::Loopback),
            [169, 254, ..] => Verdict::Pass(PassReason::LinkLocal),
            [230, ..] => Verdict::Pass(PassReason::Multicast),
            _ if port_seen == 68 => Verdict::Pass(PassReason::Dhcp),
            [192, 0, 2, 255] => Verdict::Pass(PassReason::SubnetBroadcast),
            _ if local && ike => Verdict::Pass(PassReason::Ike),
            _ if tunnel && whole => Verdict::Worker(WorkerReason::Tunnel),
            _ if tunnel => Verdict::Worker(WorkerReason::TunnelFragment),
            [192, 0, 2, 1] => Verdict::Pass(PassReason::OwnAddress),
            [198, 19, ..] => Verdict::Pass(PassReason::KernelRoute),
            _ => Verdict::Worker(WorkerReason::Forward),
        };
        let udp = samples::udp(port, &payload);
        let packet = samples::ipv4(source, destination, protocol, fragment, &vec![1; options * 4], &udp);
        let frame = samples::ethernet(MAC, EtherType::IPV4, &packet);
        prop_assert_eq!(decide(&samples::tables(DEVICE), DEVICE, &frame).0, expected);
    }

    /// What the tries hold answers as all routes would.
    #[test]
    fn routes_that_change_nothing_are_left_out_and_nothing_else(
        routes in prop::collection::vec((0u32..2, 0u32..16, 0u8..=4, any::<bool>()), 0..12),
    ) {
        let (mut all, mut reduced) = (HostTables::new(), HostTables::new());
        for (vrf, nibble, len, kernel) in routes {
            let keeper = if kernel { Keeper::KERNEL } else { Keeper::WORKER };
            all.route(vrf, IpAddr::V4(Ipv4Addr::from_bits(nibble << 28)), len, keeper);
            all.route(vrf, IpAddr::V6(Ipv6Addr::from_bits(u128::from(nibble) << 124)), len, keeper);
        }
        for (bits, key, keeper) in all.routes_v4() {
            let (vrf, address) = key.parts();
            reduced.route(vrf, IpAddr::V4(Ipv4Addr::from_bits(address)), (bits - RouteV4::VRF_BITS) as u8, keeper);
        }
        for vrf in 0..2 {
            for nibble in 0..16 {
                let key = RouteV4::new(vrf, nibble << 28 | 1);
                prop_assert_eq!(reduced.at(0).kernel_route_v4(key), all.at(0).kernel_route_v4(key));
            }
        }
        // None can be left out of what is left.
        let answers = |tables: &HostTables| -> Vec<bool> {
            let keys = (0..2).flat_map(|vrf| (0..16).map(move |nibble| RouteV4::new(vrf, nibble << 28)));
            keys.map(|key| tables.at(0).kernel_route_v4(key)).collect()
        };
        let left = reduced.routes_v4();
        for (leave, (bits, ..)) in left.iter().enumerate() {
            let mut less = HostTables::new();
            for (i, (bits, key, keeper)) in left.iter().enumerate() {
                let (vrf, address) = key.parts();
                if i != leave {
                    less.route(vrf, IpAddr::V4(Ipv4Addr::from_bits(address)), (bits - RouteV4::VRF_BITS) as u8, *keeper);
                }
            }
            // Unless longer ones cover all of it.
            let covered = left.iter().any(|(longer, ..)| longer > bits);
            prop_assert!(covered || answers(&less) != answers(&reduced));
        }
        // Both families by the same rule.
        prop_assert_eq!(all.routes_v4().len(), all.routes_v6().len());
    }
}

#[test]
fn an_interface_knows_whether_its_vrf_has_prefixes_of_the_kernel() {
    let mut tables = HostTables::new();
    for vrf in 0..3 {
        let flags = InterfaceFlags::default();
        let interface = Interface { mac: MAC, port: 0, counters: 0, flags, vrf };
        tables.interface(Ingress { device: vrf, vlan: 0 }, interface);
    }
    let net = |octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets));
    tables.route(1, net([198, 51, 100, 0]), 24, Keeper::KERNEL).route(2, net([198, 51, 100, 0]), 24, Keeper::WORKER);
    let flags: Vec<_> = tables.interfaces().map(|(_, interface)| interface.flags).collect();
    assert_eq!(flags, [InterfaceFlags::default(), InterfaceFlags::ROUTES_V4, InterfaceFlags::default()]);
}

#[test]
fn an_address_can_be_several_things_at_once() {
    let mut tables = HostTables::new();
    let own = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    tables.own(0, own).tunnel(0, own, None, 17, 6081);
    let local = tables.at(0).local_v4(LocalV4 { vrf: 0, address: 0xc000_0201 });
    use steering::tables::Local;
    assert_eq!(local, Local::OWN | Local::TUNNEL | Local::ANY_REMOTE);
}
