//! Whatever comes, whole or broken, is accounted for.

use super::*;

/// Frames of every kind that means something to the gateway.
fn frames() -> Vec<(PortId, Vec<u8>)> {
    let mut syn = etherparse::TcpHeader::new(1000, 443, 7, 65_535);
    syn.syn = true;
    syn.set_options_raw(&[1, 2, 4, 0x05, 0xb4, 1, 1, 0]).expect("eight octets");
    let mut tcp = Vec::new();
    PacketBuilder::ipv4(CLIENT_V4, SITE_A_V4, 64).tcp_header(syn).write(&mut tcp, &[]).expect("it fits");
    let mut echo = Vec::new();
    PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), 1)
        .icmpv6_echo_request(1, 1)
        .write(&mut echo, &[5; 9])
        .expect("it fits");
    let options = raw_v4([10, 37, 0, 1], &[7; 900], |header| header.options = [131, 3, 4, 0, 7, 3, 4, 0].into());
    let fragment = raw_v4(SITE_B_V4, &[7; 64], |header| {
        (header.more_fragments, header.fragment_offset) = (true, IpFragOffset::try_new(8).expect("13 bits"));
    });
    let mut extensions = udp_v6(SITE_A_V6, &[0; 40]);
    (extensions[6], extensions[40], extensions[41]) = (0, 60, 0);
    (extensions[48], extensions[49]) = (44, 1);
    extensions[64] = 17;
    let inner_v6 = framed(TUNNEL_MAC, FAR_MAC, &udp_v6(CLIENT_V6, b"x"));
    let arp = [&[0xff; 6][..], &FAR_MAC, &[8, 6], &[1; 28]].concat();
    vec![
        (LAN, ethernet(&udp_v4(FAR_V4, b"x"))),
        (LAN, ethernet(&udp_v4(SITE_B_V4, &[9; 33]))),
        (LAN, ethernet(&udp_v4([9, 9, 9, 9], b"no route"))),
        (LAN, ethernet(&udp_v4([10, 33, 0, 1], b"failed"))),
        (LAN, ethernet(&udp_v4([10, 34, 0, 1], b"waits"))),
        (LAN, ethernet(&udp_v4([203, 0, 113, 77], b"waits too"))),
        (LAN, ethernet(&udp_v6(SITE_A_V6, &[9; 1_401]))),
        (LAN, ethernet(&raw_v4(SITE_A_V4, &[9; 3_500], |_| {}))),
        (LAN, ethernet(&options)),
        (LAN, ethernet(&fragment)),
        (LAN, ethernet(&tcp)),
        (LAN, ethernet(&echo)),
        (LAN, ethernet(&extensions)),
        (LAN, tagged(7, &ethernet(&udp_v4(LAN_V4, b"local")))),
        (WAN, vxlan(AWS_A, &framed(TUNNEL_MAC, FAR_MAC, &udp_v4(CLIENT_V4, b"in")))),
        (WAN, vxlan(AWS_A, &framed(TUNNEL_MAC, FAR_MAC, &tcp))),
        (WAN, vxlan(AWS_B, &inner_v6)),
        (WAN, vxlan(AWS_A, &arp)),
        (TAP, from_device()),
        (TAP, arp),
    ]
}

/// The IPv4 header checksum made right, so that what was changed is looked at further in.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(header) = header_mut::<Ipv4>(&mut frame, ETHERNET)
        && header.version_ihl == 0x45
    {
        header.checksum = Be16::new(header.computed_checksum(&[]));
    }
    frame
}

#[test]
fn every_frame_cut_at_every_octet_is_accounted_for() {
    let mut world = World::new();
    let mut given = 0;
    for (port, frame) in frames() {
        for end in (0..frame.len()).filter(|end| *end < 200 || end % 97 == 0) {
            world.put(port, frame[..end].to_vec());
            world.poll();
            world.sent(LAN);
            world.sent(WAN);
            world.assert_balance();
            given += 1;
        }
        world.now = Time(world.now.0 + 2 * Time::SECOND);
        world.poll();
    }
    assert_eq!(world.totals().received, given);
    assert!(world.totals().drops[DropReason::Truncated as usize] > given / 2);
}

/// A frame of the list, or of nothing in particular, with some octets changed and the end cut off or drawn out.
fn any_frame() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let random = (prop::sample::select(vec![LAN, WAN, TAP]), vec(any::<u8>(), 0..300));
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..5);
    let known =
        (prop::sample::select(frames()), changes, prop::option::of(any::<prop::sample::Index>()), any::<bool>());
    let known = known.prop_map(|((port, mut frame), changes, end, mend)| {
        for (at, octet) in changes {
            // Headers more often than what is in them.
            let at = at.index(frame.len().min(140));
            frame[at] ^= octet;
        }
        if let Some(end) = end {
            frame.resize(end.index(frame.len() + 40), 0xee);
        }
        (port, if mend { mended(frame) } else { frame })
    });
    prop_oneof![1 => random, 9 => known]
}

/// What happens beside the packets.
#[derive(Clone, Copy, Debug)]
enum Event {
    Changes(u32),
    Waits(u32),
    Moves,
    Jams(bool),
    Passes(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let id = prop::sample::select(vec![to::ROUTER, to::CLIENT, to::AWS_A, to::AWS_B, to::DEVICE_A, to::NARROW]);
    prop_oneof![
        id.clone().prop_map(Event::Changes),
        id.prop_map(Event::Waits),
        Just(Event::Moves),
        any::<bool>().prop_map(Event::Jams),
        (0..2 * Time::SECOND).prop_map(Event::Passes),
    ]
}

fn happen(world: &mut World, event: Event, generation: u32) {
    match event {
        Event::Changes(id) => set(world, id, Resolution::Ready, generation),
        Event::Waits(id) => set(world, id, Resolution::Waiting, generation),
        Event::Moves => world.publish(|_| {}),
        Event::Jams(jammed) => world.worker.lanes[1].sends = !jammed,
        Event::Passes(time) => world.now = Time(world.now.0 + time),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever comes, and whatever happens meanwhile: no panic, every packet has one fate, every frame one owner.
    #[test]
    fn whatever_comes_is_accounted_for(
        rounds in vec((vec(any_frame(), 0..20), prop::option::of(any_event())), 1..12), unfinished: bool,
    ) {
        let mut world = World::new();
        if unfinished {
            world.worker.lanes[0].driver = Port::Memory(Memory::unfinished());
        }
        let mut given = 0;
        for (generation, (frames, event)) in rounds.into_iter().enumerate() {
            given += frames.len() as u64;
            frames.into_iter().for_each(|(port, frame)| world.put(port, frame));
            if let Some(event) = event {
                happen(&mut world, event, 2 + generation as u32);
            }
            world.poll();
            world.assert_balance();
        }
        world.worker.lanes[1].sends = true;
        for _ in 0..3 {
            world.now = Time(world.now.0 + 2 * Time::SECOND);
            world.poll();
        }
        world.assert_balance();
        let totals = world.totals();
        prop_assert_eq!((totals.received, totals.queued), (given, 0));
    }
}
