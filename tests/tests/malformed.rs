//! Frames that are cut, spoilt or nothing at all, through everything that a running gateway does to them, steering
//! included: they die under a name or are left to the kernel, and nobody panics.
//!
//! `dataplane/src/worker/tests.rs` asks the same of a worker alone, with table changes between the rounds.
#![forbid(unsafe_code)]

use dataplane::packet::PortId;
use dataplane::stats::Totals;
use etherparse::{IpSlice, SlicedPacket, checksum::Sum16BitWords};
use integration::frames::vxlan;
use integration::scene::{
    CHUNKS, LAN, MACS, Scene, VNI, WAN, answer4, from_client, from_site_a, from_site_b, inside, ipv4, samples, tagged,
    udp6,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// One frame more was received, and it is gone: dropped or left to the kernel.
#[track_caller]
fn check_end(before: &Totals, after: &Totals, what: &str) {
    assert_eq!(after.received, before.received + 1, "{what}");
    assert_eq!(after.dropped() + after.punted(), before.dropped() + before.punted() + 1, "{what}");
    let others = |totals: &Totals| (totals.forwarded, totals.originated, totals.queued, totals.absorbed);
    assert_eq!(others(after), others(before), "{what}");
    assert!(after.balances(), "{what}: {after:?}");
}

#[test]
fn a_frame_cut_at_any_octet_ends_here() {
    let mut scene = Scene::new();
    for (number, (port, frame)) in samples().into_iter().enumerate() {
        for end in 0..frame.len() {
            let before = scene.totals();
            scene.receive(port, frame[..end].to_vec());
            check_end(&before, &scene.totals(), &format!("sample {number}, {end} octets"));
        }
    }
    scene.close_all();
}

#[test]
fn a_frame_cut_inside_a_tunnel_ends_here() {
    let mut scene = Scene::new();
    for inner in [inside(&answer4()), inside(&udp6(100)), tagged(110, &inside(&answer4()))] {
        for end in 0..inner.len() {
            for frame in [from_site_a(&vxlan(VNI, &inner[..end]), |_| {}), from_site_b(&inner[..end])] {
                let before = scene.totals();
                scene.receive(WAN, frame);
                check_end(&before, &scene.totals(), &format!("{end} octets of {inner:02x?}"));
            }
        }
    }
    scene.close_all();
}

/// Puts the checksum of the IPv4 header that stands `at` octets in right, so that what was changed in it is looked at.
fn mend(frame: &mut [u8], at: usize) {
    let Some(header) = frame.get_mut(at..at + 20).filter(|header| header[0] == 0x45) else { return };
    header[10..12].fill(0);
    let sum = Sum16BitWords::new().add_slice(header).ones_complement();
    // The sum is in memory order.
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// Makes every checksum right that would hide what was changed further in.
fn mend_all(frame: &mut [u8], port: PortId) {
    mend(frame, 14);
    if port == WAN {
        let outer = if frame.get(12) == Some(&0x86) { 40 } else { 20 };
        // No UDP checksum, which a tunnel may do without; then the inner header.
        if let Some(checksum) = frame.get_mut(14 + outer + 6..14 + outer + 8) {
            checksum.fill(0);
        }
        mend(frame, 14 + outer + 8 + 8 + 14);
    }
}

/// A sample with some octets changed, in headers more often than behind them, and the end cut off or drawn out.
fn any_spoilt() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let mut all = samples();
    // Jumbo frames: their headers are in the first chunk, the end is in another.
    all.push((LAN, from_client(&ipv4([203, 0, 113, 9], 8_000, |_| {}))));
    all.push((LAN, from_client(&ipv4(integration::scene::SERVER, 8_900, |_| {}))));
    all.push((WAN, from_site_b(&inside(&udp6(5_000)))));
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..5);
    let end = prop::option::of(any::<prop::sample::Index>());
    (prop::sample::select(all), changes, end, any::<bool>()).prop_map(|((port, mut frame), changes, end, mended)| {
        for (at, octet) in changes {
            let at = at.index(frame.len().min(140));
            frame[at] ^= octet;
        }
        if let Some(end) = end {
            let length = end.index(frame.len() + 40);
            frame.resize(length, 0xee);
        }
        if mended {
            mend_all(&mut frame, port);
        }
        (port, frame)
    })
}

/// Octets of nothing in particular, behind the start of a frame for us or not.
fn any_octets() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let start = prop::sample::select(vec![
        Vec::new(),
        [&MACS.lan[..], &MACS.client, &[8, 0, 0x45]].concat(),
        [&MACS.lan[..], &MACS.client, &[0x86, 0xdd, 0x60]].concat(),
        [&MACS.lan[..], &MACS.client, &[0x81, 0, 0, 110, 8, 0, 0x45]].concat(),
        from_site_a(&[], |_| {}),
        from_site_b(&[]),
    ]);
    (prop::sample::select(vec![LAN, WAN]), start, vec(any::<u8>(), 0..300), any::<bool>()).prop_map(
        |(port, start, random, mended)| {
            let mut frame = [start, random].concat();
            if mended {
                mend_all(&mut frame, port);
            }
            (port, frame)
        },
    )
}

/// What leaves a gateway has its MAC and the length that its headers say, whatever came in.
#[track_caller]
fn check_sent(frame: &[u8], own: [u8; 6]) {
    assert_eq!(frame[6..12], own, "{frame:02x?}");
    let sliced = SlicedPacket::from_ethernet(frame);
    let payload = match &sliced {
        Ok(sliced) => sliced.ether_payload().map(|ether| ether.payload),
        // A header further in, of which the gateway knows nothing, may be wrong.
        Err(_) => frame.get(if frame[12..14] == [0x81, 0] { 18 } else { 14 }..),
    };
    let packet = payload.unwrap_or_else(|| panic!("no IP: {frame:02x?}"));
    let length = match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    };
    assert_eq!(length, packet.len(), "{frame:02x?}");
    if packet[0] >> 4 == 4 {
        let header = &packet[..usize::from(packet[0] & 15) * 4];
        assert_eq!(Sum16BitWords::new().add_slice(header).ones_complement(), 0, "{frame:02x?}");
    }
    if sliced.is_ok() {
        IpSlice::from_slice(packet).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_accounted_for_and_what_leaves_is_right(
        frames in vec(prop_oneof![4 => any_spoilt(), 1 => any_octets()], 1..60), narrow: bool,
    ) {
        let mut scene = Scene::with("", if narrow { 1500 } else { 9000 }, CHUNKS, |_| {});
        let given = frames.len() as u64;
        for (port, frame) in frames {
            scene.receive(port, frame);
            assert!(scene.totals().balances(), "{:?}", scene.totals());
        }
        scene.finish();
        prop_assert_eq!((scene.totals().received, scene.totals().queued), (given, 0));
        let mut sent = 0;
        for (port, own) in [(LAN, MACS.lan), (WAN, MACS.wan)] {
            while let Some(frame) = scene.sent(port) {
                check_sent(&frame, own);
                sent += 1;
            }
        }
        prop_assert_eq!(scene.totals().forwarded, sent);
        scene.close_all();
    }
}
