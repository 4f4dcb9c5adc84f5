//! Octets of nothing in particular, and good packets spoilt, out of every tunnel type: through steering, pipeline and slow
//! path. Nobody panics, each has one fate, and every frame comes back.
//!
//! `tests/fuzz` asks the same of a fuzzer that sees which code it reaches.
#![forbid(unsafe_code)]

use dataplane::packet::Family;
use integration::packets::{echo, syn, tcp, udp, whole};
use integration::pair::{Cell, Pair, Setup, cells};
use proptest::collection::vec;
use proptest::prelude::*;

/// A good packet that a tunnel may bring.
fn any_packet(family: Family) -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![0..100_usize, 1300..3000_usize];
    (size, 0..5_u8).prop_map(move |(size, kind)| match kind {
        0 => udp(family, size),
        1 => tcp(family, size),
        2 => echo(family, size),
        3 => whole(udp(family, size)),
        _ => syn(family, false, size as u16),
    })
}

/// A header that is nearly that of the type, with fields and options behind it.
fn any_header(cell: Cell) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (changes, vec(any::<u8>(), 0..5), any::<bool>()).prop_map(move |(changes, words, has_words)| {
        let mut header = cell.header();
        for (at, octet) in changes.into_iter().filter(|_| !cell.header().is_empty()) {
            let at = at.index(header.len());
            header[at] ^= octet;
        }
        if has_words {
            // As options of GENEVE they are what they say: a head with a length, and data.
            words.iter().for_each(|word| header.extend([1, *word, *word, word & 3]));
            header.extend(vec![7; words.iter().map(|word| usize::from(word & 3) * 4).sum()]);
        }
        header
    })
}

/// What comes from the other end: the outer headers are right, unless they are not.
fn any_frame(cell: Cell) -> impl Strategy<Value = Vec<u8>> {
    let good = (any_header(cell), any_packet(cell.inner), any::<u8>())
        .prop_map(move |(header, packet, tos)| cell.frame_with(tos, &header, &cell.inside(&packet)));
    let random = vec(any::<u8>(), 0..300).prop_map(move |payload| cell.frame_of(&payload));
    let changes = vec((0..200_usize, any::<u8>()), 0..4);
    let end = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (prop_oneof![4 => good, 1 => random], changes, end).prop_map(move |(mut frame, changes, end)| {
        let changes = changes.into_iter().filter(|(at, _)| *at < frame.len()).collect::<Vec<_>>();
        changes.into_iter().for_each(|(at, octet)| frame[at] ^= octet);
        // Inside, so that the outer lengths do not give it away at once; or of the whole.
        if let Some(end) = end {
            let length = end.index(frame.len());
            let outer = 14 + cell.outer_header();
            frame = if length > outer { cell.frame_of(&frame[outer..length]) } else { frame[..length].to_vec() };
        }
        frame
    })
}

fn any_cell_and_frames() -> impl Strategy<Value = (Cell, Vec<Vec<u8>>)> {
    prop::sample::select(cells()).prop_flat_map(|cell| (Just(cell), vec(any_frame(cell), 1..80)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_tunnel_brings_is_accounted_for((cell, frames) in any_cell_and_frames(), spoofs: bool, narrow: bool) {
        let keys = if spoofs { "" } else { "allowed_sources = [\"198.18.1.0/24\", \"2001:db8:1::/64\"]" };
        let mtu = if narrow { 1500 } else { 9000 };
        let mut pair = Pair::new(cell, Setup { keys, lan_mtu: 1400, wan_mtu: mtu, ..Setup::default() });
        frames.into_iter().for_each(|frame| pair.endure(frame));
        pair.finish();
    }

    /// And into it: what the gateway makes of whatever a client sends, another decoder reads.
    #[test]
    fn whatever_goes_into_a_tunnel_has_right_headers(
        cell in prop::sample::select(cells()),
        packets in vec((0..2000_usize, 0..4_u8, any::<u8>()), 1..30),
        keys in prop::sample::select(vec![
            "", "checksum = \"full\"", "ttl = \"copy\"\nchecksum = \"full\"\ndf = \"copy\"", "df = \"clear\"\ndscp = 7",
        ]),
    ) {
        // A key that a type does not have is refused.
        let keys = if cell.kind.port.is_some() { keys.to_owned() } else { keys.replace("checksum = \"full\"", "") };
        let mut pair = Pair::new(cell, Setup { keys: &keys, lan_mtu: 3000, wan_mtu: 1500, ..Setup::default() });
        for (size, kind, tos) in packets {
            let packet = match kind {
                0 => udp(cell.inner, size),
                1 => tcp(cell.inner, size),
                2 => echo(cell.inner, size),
                _ => whole(udp(cell.inner, size)),
            };
            for frame in pair.send(&integration::packets::marked(&packet, tos)) {
                let seen = cell.read(&frame);
                prop_assert_eq!(seen.checksum_is_right, seen.has_checksum, "{}", cell);
                prop_assert!(frame.len() <= 1514);
                prop_assert_eq!(pair.deliver(frame).len(), 1, "{}: {:?}", cell, pair.far_drops());
            }
            pair.heard();
        }
        pair.finish();
    }
}
