use super::*;
use crate::testing::{CHUNKS, FAR_V4, octets, raw_v4, stock, umem, with_frame};
use etherparse::{IpFragOffset, Ipv4HeaderSlice};
use proptest::collection::vec;
use proptest::prelude::*;

/// Cuts a packet that lies in these chunks; the fragments as octets.
fn pieces(chunks: &[&[u8]], mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
    with_frame(chunks, |packet| {
        (packet.l3, packet.family) = (0, Family::V4);
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        let (mut stock, mut ready) = (stock(), Batch::new());
        let made = cut(packet, mtu, &mut stock, &mut ready);
        let fragments: Vec<_> = ready.iter().map(octets).collect();
        for fragment in ready.iter() {
            assert_eq!(fragment.origin, Origin::Queue, "it loses no second hop");
            assert_eq!(fragment.len as usize, fragment.frame.total());
            assert_eq!(fragment.flow, packet.flow, "all take the way of the flow that they were cut from");
        }
        ready.drain().for_each(|packet| stock.put(packet));
        made.map(|count| {
            assert_eq!(count as usize, fragments.len());
            fragments
        })
    })
}

/// One fragment as etherparse reads it: offset in octets, more, payload.
fn read(fragment: &[u8]) -> (usize, bool, &[u8]) {
    let header = Ipv4HeaderSlice::from_slice(fragment).expect("a good header");
    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    assert_eq!(usize::from(header.total_len()), fragment.len());
    let at = usize::from(header.fragments_offset().value()) * 8;
    (at, header.more_fragments(), &fragment[header.slice().len()..])
}

/// The naive reassembler: every octet exactly once, and an end. The payload, where it starts, and whether more follows.
fn reassembled(fragments: &[Vec<u8>]) -> (usize, bool, Vec<u8>) {
    let mut parts: Vec<_> = fragments.iter().map(|fragment| read(fragment)).collect();
    parts.sort_by_key(|part| part.0);
    let start = parts[0].0;
    let mut payload = Vec::new();
    for (index, (at, more, data)) in parts.iter().enumerate() {
        assert_eq!(*at, start + payload.len(), "neither gap nor overlap");
        let last = index + 1 == parts.len();
        assert!(last || *more, "only the last one can end the datagram");
        assert!(last || data.len() % 8 == 0);
        payload.extend_from_slice(data);
    }
    (start, parts[parts.len() - 1].1, payload)
}

proptest! {
    #[test]
    fn fragments_make_the_packet_again(
        payload in vec(any::<u8>(), 1..3_000), mtu in 68..2_000u16, options in 0..=10usize, offset in 0..4_000u16, more: bool,
        cuts in vec(100..3_000usize, 0..3),
    ) {
        let mut payload = payload;
        if more {
            payload.truncate((payload.len() / 8).max(1) * 8);
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
        let ip = raw_v4(FAR_V4, &payload, |header| {
            header.options = vec![1; 4 * options].as_slice().try_into().expect("at most 40 octets");
            (header.more_fragments, header.fragment_offset) = (more, IpFragOffset::try_new(offset).expect("13 bits"));
        });
        let mut at: Vec<_> = cuts.into_iter().map(|cut| cut.min(ip.len())).collect();
        at.extend([0, (ip.len()).min(1_600), ip.len()]);
        at.sort_unstable();
        let chunks: Vec<_> = at.windows(2).map(|ends| &ip[ends[0]..ends[1]]).collect();
        let fragments = pieces(&chunks, mtu).expect("it can be cut");
        prop_assert!(fragments.iter().all(|fragment| fragment.len() <= mtu.into()));
        prop_assert_eq!(reassembled(&fragments), (usize::from(offset) * 8, more, payload));
        for fragment in &fragments {
            // Name, addresses, protocol, hops and service are the packet's.
            prop_assert_eq!((&fragment[1..2], &fragment[4..6], &fragment[8..10]), (&ip[1..2], &ip[4..6], &ip[8..10]));
            prop_assert_eq!(&fragment[12..20], &ip[12..20]);
        }
        // No more of them than needed.
        let room = (usize::from(mtu) - 20 - 4 * options) & !7;
        prop_assert!(fragments.len() <= ip.len().div_ceil(room) + 1);
    }
}

#[test]
fn cuts_at_the_edges_of_the_mtu() {
    #[track_caller]
    fn check(payload: usize, mtu: u16, expected: &[usize]) {
        let fragments = pieces(&[&raw_v4(FAR_V4, &vec![7; payload], |_| {})], mtu).expect("it can be cut");
        assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), expected);
    }
    check(60, 68, &[68, 32]);
    check(96, 68, &[68, 68]);
    check(97, 68, &[68, 68, 21]);
    check(1481, 1500, &[1500, 21]);
    check(1481, 1499, &[1492, 29]); // data come in units of eight octets
    check(9, 28, &[28, 21]);
}

#[test]
fn copies_the_options_that_say_so() {
    // Record route (7) is for the first fragment alone; no-operation is not copied; stream identifier (136) and
    // router alert (148) have the copied flag (RFC 791 §3.1).
    let options = [7, 3, 4, 1, 136, 4, 0, 9, 148, 4, 0, 0];
    let ip = raw_v4(FAR_V4, &[7; 100], |header| header.options = options.into());
    let fragments = pieces(&[&ip], 68).expect("it can be cut");
    assert_eq!(fragments[0][20..32], options);
    for fragment in &fragments[1..] {
        assert_eq!(fragment[0], 0x47);
        assert_eq!(fragment[20..28], options[4..]);
    }
    // Odd lengths are padded; what is malformed ends the list.
    assert_eq!(copied_options(&[131, 3, 4, 0]), [131, 3, 4, 0]);
    assert_eq!(copied_options(&[1, 131, 3, 4, 0, 131, 3, 4]), [131, 3, 4, 0]);
    assert!(copied_options(&[131, 0, 0, 0]).is_empty());
    assert_eq!(copied_options(&[131, 1, 131, 9]), [131, 0, 0, 0]);
    assert!(copied_options(&[7, 4, 0, 0, 131]).is_empty());
}

#[test]
fn cuts_no_packet_whose_end_no_datagram_reaches() {
    let ip = raw_v4(FAR_V4, &[7; 200], |header| {
        header.fragment_offset = IpFragOffset::try_new(8_180).expect("13 bits");
    });
    assert_eq!(pieces(&[&ip], 100), Err(DropReason::BadLength), "65,440 + 200 octets");
}

#[test]
fn makes_all_fragments_or_none() {
    let ip = raw_v4(FAR_V4, &[7; 1_400], |_| {});
    assert_eq!(pieces(&[&ip], 27), Err(DropReason::FragmentationNeeded), "no room for eight octets");
    // 1,400 octets in fragments of 48 need 30 frames; fewer are left.
    let mut others = umem().pool(1, 2 * CHUNKS);
    let mut taken = xsk::Frame::empty();
    while umem().free() + others.free() > 20 {
        taken.chain(others.take().expect("not yet empty"));
    }
    with_taken(&ip, &mut others);
    others.put(taken);
    drop(others);
    assert_eq!(umem().free(), CHUNKS);
}

fn with_taken(ip: &[u8], pool: &mut xsk::Pool) {
    let frame = pool.frame_of(ip).expect("one is left");
    let mut stock = Stock::new(umem().pool(8, 64), 4);
    let before = umem().free() + stock.frames.free();
    let mut packet = stock.wrap(frame, PortId(0), false, crate::packet::Time(0));
    (packet.l3, packet.family) = (0, Family::V4);
    assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
    let mut ready = Batch::new();
    assert_eq!(cut(&packet, 68, &mut stock, &mut ready), Err(DropReason::NoFrame));
    assert!(ready.is_empty());
    assert_eq!(umem().free() + stock.frames.free(), before, "what was taken is back");
    stock.put(packet);
}
