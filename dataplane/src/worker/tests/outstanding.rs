//! What a ring is given, and when: on ports in memory, whose packets complete when the test says so.

use super::*;
use crate::qos::{Account, Aqm, PortSpec, Rate, Spec};
use crate::tables::filter::Match;
use crate::tables::{Classifier, Marks, filter::Ways};

const US: u64 = 1_000;
/// Octets of a frame.
const FRAME: usize = 1_000;

/// A world whose WAN has a ring of so many descriptors, and a scheduler for a link of that rate if there is one. What is
/// marked as control is of the strict class.
fn world(ring: usize, bits: Option<u64>) -> World {
    let mut world = World::new();
    let urgent = Match { dscps: vec![48], ..Match::default() };
    let rest = crate::packet::Class::new(4).expect("a class");
    let marks = Marks { classes: vec![(urgent, crate::packet::Class::default())], rest, ..Marks::default() };
    let made = Classifier::new(Vec::new(), Some(marks), Ways::default()).expect("there is memory");
    world.publish(|tables| tables.classifier = made);
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    if let Some(bits) = bits {
        let mut spec = Spec::plain(2);
        spec.ports.push(PortSpec { port: WAN, rate: Rate::new(bits), account: Account::L1 });
        spec.classes.iter_mut().for_each(|class| (class.aqm, class.alpha_eighths) = (Aqm::Tail, 800));
        let plan = qos::Plan::new(&Arc::new(spec), 4).expect("a specification that can be kept");
        world.worker.obey(Command::Shape(Box::new(plan)), now);
    }
    let memory = Memory::with_ring(ring);
    world.worker.obey(Command::Open(Lane::interface(WAN, 0, Port::Memory(memory))), now);
    world
}

fn frame(dscp: u8) -> Vec<u8> {
    let payload = vec![0; FRAME - ETHERNET - 28];
    let mut header = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, CLIENT_V4, FAR_V4).expect("short");
    header.dscp = etherparse::IpDscp::try_new(dscp).expect("six bits");
    ethernet(&written(PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default())).udp(1, 2), &payload))
}

fn ring(world: &mut World) -> &mut Memory {
    match &mut world.worker.lanes.iter_mut().find(|lane| lane.port == WAN).expect("it is open").driver {
        Port::Memory(memory) => memory,
        _ => unreachable!("all ports are in memory"),
    }
}

/// A round some time later: how many packets came or went.
fn round(world: &mut World, ns: u64) -> usize {
    world.now = Time(world.now.0 + ns);
    world.worker.poll(world.now)
}

/// Packets that were given to the ring since this was asked last.
fn given(world: &mut World) -> usize {
    world.sent(WAN).len()
}

/// So many packets arrive at once; 64 are received in a round.
fn arrive(world: &mut World, count: usize) {
    (0..count).for_each(|_| world.put(LAN, frame(0)));
    (0..count.div_ceil(64)).for_each(|_| _ = round(world, 0));
}

/// All that is left goes, so that the world ends in peace.
fn finish(world: &mut World) {
    for _ in 0..100 {
        ring(world).complete(usize::MAX);
        round(world, 100 * US);
    }
}

/// The octets of 20 µs, or two batches, or the ring: and never more, however often it is asked.
#[test]
fn a_ring_holds_20_us_of_its_ports_rate_or_two_batches_and_the_rest_is_the_schedulers() {
    // At 100 Gbit/s 250,000 octets, of which a frame takes 24 more than its own, and the last is in excess.
    for (size, bits, expected) in [
        (512, Some(100_000_000_000), 245),
        (512, Some(60_000_000_000), 147),
        (512, Some(10_000_000_000), 128),
        (512, Some(1_000_000_000), 128),
        (100, Some(100_000_000_000), 100),
        (512, None, 256),
    ] {
        let mut world = world(size, bits);
        arrive(&mut world, 256);
        (0..20).for_each(|_| _ = round(&mut world, 200 * US));
        assert_eq!(given(&mut world), expected, "a ring of {size} at {bits:?}");
        assert_eq!(world.totals().queued, 256 - expected as u64);
        world.assert_balance();
        finish(&mut world);
        assert_eq!(given(&mut world), 256 - expected, "and all the others once it has completed");
        assert_eq!(world.totals().dropped(), 0);
    }
}

/// The point of it: who is urgent waits for what the ring holds, not for what had come before.
#[test]
fn what_is_urgent_goes_next_however_much_had_come_before() {
    let mut world = world(512, Some(10_000_000_000));
    arrive(&mut world, 250);
    round(&mut world, 500 * US);
    assert_eq!(given(&mut world), 128);
    world.receive(frame(48));
    assert_eq!(given(&mut world), 0, "the ring has as much as it may");
    ring(&mut world).complete(64);
    round(&mut world, 50 * US);
    let sent = world.sent(WAN);
    assert_eq!((sent.len(), sent[0][ETHERNET + 1] >> 2), (64, 48));
    finish(&mut world);
}

/// A link that is slower than its rate lets one go at a time.
#[test]
fn a_full_ring_is_filled_at_once_when_packets_come_and_else_when_half_of_it_is_empty() {
    for (size, bits, most) in [(512, Some(10_000_000_000), 128), (128, None, 128)] {
        let mut world = world(size, bits);
        arrive(&mut world, 256);
        round(&mut world, 500 * US);
        assert_eq!(given(&mut world), most);
        for completed in 1..most / 2 {
            ring(&mut world).complete(1);
            assert_eq!(
                (round(&mut world, 10 * US), given(&mut world)),
                (0, 0),
                "{completed} are no reason to stay awake"
            );
        }
        ring(&mut world).complete(1);
        assert_eq!((round(&mut world, 10 * US), given(&mut world)), (most / 2, most / 2));
        ring(&mut world).complete(1);
        world.put(LAN, frame(0));
        assert_eq!((round(&mut world, 10 * US), given(&mut world)), (2, 1), "who is awake anyway fills it up");
        finish(&mut world);
        assert_eq!(world.totals().dropped(), 0);
    }
}

#[test]
fn a_worker_sleeps_half_as_long_as_the_ring_took_to_be_half_empty_and_not_at_all_if_that_was_quick() {
    let mut world = world(512, Some(10_000_000_000));
    // The link's tokens are there, so it is the ring that has no room.
    arrive(&mut world, 320);
    let patience = |world: &World, us: u64| world.worker.patience(Time(world.now.0 + us * US)) / US;
    assert_eq!(patience(&world, 0), 0, "it may be quick");
    assert_eq!(patience(&world, 99), 0);
    assert_eq!(patience(&world, 200), 100, "it is not");
    assert_eq!(patience(&world, 100_000), 1_000, "and if nobody completes any more, it is looked at now and then");
    ring(&mut world).complete(64);
    round(&mut world, 600 * US);
    assert_eq!((given(&mut world), patience(&world, 0), patience(&world, 400)), (192, 300, 300));
    ring(&mut world).complete(64);
    round(&mut world, 30 * US);
    assert_eq!((given(&mut world), patience(&world, 0)), (64, 0), "the link has caught up");
    finish(&mut world);
}
