use super::*;
use crate::io::{Outlet, Outlets};
use crate::slow::wanted::REMEMBERED;
use crate::slow::{Limiter, Slow, Wanted, Wish};
use crate::tables::{Adjacency, Resolution};
use crate::testing::{CLIENT_MAC, LAN, LAN_MAC, WAN, World, ethernet, link, ready, to, udp_v4};
use std::sync::Arc;
use sys::Wake;
use wire::EtherType;

/// Packets to hosts of the LAN that nobody knows, and to hosts behind a router that has not answered.
fn to_stranger(last: u8) -> Vec<u8> {
    ethernet(&udp_v4([203, 0, 113, last], &[last]))
}

fn behind_router(last: u8) -> Vec<u8> {
    ethernet(&udp_v4([10, 34, 0, last], &[last]))
}

fn unresolved(world: &World) -> u64 {
    world.totals().drops[DropReason::NeighbourUnresolved as usize]
}

#[test]
fn sixteen_packets_wait_for_a_neighbour_whoever_they_are_for_behind_it() {
    let mut world = World::new();
    for last in 0..20 {
        world.receive(behind_router(last));
    }
    assert_eq!((world.totals().queued, world.only_count(DropReason::HoldFull)), (16, 4));
    world.assert_balance();
    // Hosts on a link are neighbours each.
    for _ in 0..17 {
        world.receive(to_stranger(100));
    }
    world.receive(to_stranger(101));
    assert_eq!((world.totals().queued, world.only_count(DropReason::HoldFull)), (33, 5));
    world.assert_balance();
}

#[test]
fn waits_for_so_many_neighbours_and_no_more() {
    let mut world = World::new();
    for last in 2..=255 {
        if last != 9 {
            world.receive(to_stranger(last));
        }
    }
    assert_eq!(world.totals().queued, 253);
    world.receive(behind_router(1));
    assert_eq!(world.totals().queued, 254);
    world.assert_balance();
}

#[test]
fn gives_up_after_a_second_and_tells_the_sender() {
    let mut world = World::new();
    world.receive(to_stranger(100));
    world.now = Time(world.now.0 + Time::SECOND / 2);
    world.receive(to_stranger(100));
    world.now = Time(world.now.0 + Time::SECOND / 2 - 1);
    world.poll();
    assert_eq!((unresolved(&world), world.totals().queued), (0, 2));
    world.now.0 += 1;
    world.poll();
    world.poll();
    assert_eq!((unresolved(&world), world.totals().queued), (1, 1));
    let told = world.sent(LAN);
    assert_eq!((told.len(), &told[0][34..36]), (1, &[3, 1][..]), "host unreachable");
    world.now = Time(world.now.0 + Time::SECOND / 2);
    world.poll();
    world.poll();
    assert_eq!((unresolved(&world), world.totals().queued), (2, 0));
    world.assert_balance();
}

#[test]
fn a_change_that_does_not_help_does_not_prolong_the_wait() {
    let mut world = World::new();
    world.receive(to_stranger(100));
    for _ in 0..9 {
        world.now = Time(world.now.0 + Time::SECOND / 10);
        world.publish(|_| {});
        world.poll();
        assert_eq!(world.totals().queued, 1);
    }
    world.now = Time(world.now.0 + Time::SECOND / 10);
    world.publish(|_| {});
    (0..3).for_each(|_| world.poll());
    assert_eq!((unresolved(&world), world.totals().queued), (1, 0));
}

#[test]
fn goes_on_in_order_when_the_neighbour_answers_with_one_hop_less() {
    let mut world = World::new();
    for payload in 0..5 {
        world.receive(ethernet(&udp_v4([203, 0, 113, 100], &[payload])));
    }
    world.receive(behind_router(1));
    world.publish(|tables| {
        let id = AdjacencyId(20);
        let headers = link([2, 0, 0, 0, 1, 100], LAN_MAC, EtherType::IPV4);
        tables.adjacencies.set(id, ready(LAN, LAN, crate::packet::TunnelId::NONE, 1500), headers);
        tables.adjacencies.set_neighbour(AdjacencyId(to::LAN_LINK), [203, 0, 113, 100].into(), id);
        let headers = link(CLIENT_MAC, LAN_MAC, EtherType::IPV4);
        let router = Adjacency { generation: 2, ..ready(WAN, WAN, crate::packet::TunnelId::NONE, 1500) };
        assert_eq!(tables.adjacencies.at(AdjacencyId(to::WAITING)).resolution, Resolution::Waiting);
        tables.adjacencies.set(AdjacencyId(to::WAITING), router, headers);
    });
    world.poll();
    world.poll();
    let sent = world.sent(LAN);
    assert_eq!(sent.iter().map(|frame| frame[42]).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(sent.iter().all(|frame| frame[22] == 63));
    assert_eq!(world.sent(WAN).len(), 1);
    assert_eq!((world.totals().queued, world.totals().dropped()), (0, 0));
    world.assert_balance();
}

impl World {
    fn only_count(&self, reason: DropReason) -> u64 {
        assert_eq!(self.totals().dropped(), self.totals().drops[reason as usize], "nothing else was dropped");
        self.totals().dropped()
    }
}

/// A neighbour that does not answer must not cost a system call for each of its packets.
#[test]
fn asks_for_a_neighbour_once_a_second_and_says_nothing_when_control_is_behind() {
    let bell = Arc::new(Wake::new().expect("a descriptor is free"));
    let (wishes, mut asked) = rtrb::RingBuffer::new(2);
    let mut wanted = Wanted::new(wishes, Some(Arc::clone(&bell)));
    let address = |last: u8| IpAddr::from([203, 0, 113, last]);
    let mut ask = |last, now| {
        wanted.ask((AdjacencyId(1), Some(address(last))), address(last), Time(now));
        bell.drain()
    };
    assert!(ask(1, 5));
    assert!(!ask(1, 6));
    assert!(ask(2, 7), "another");
    assert!(!ask(3, 8), "the ring is full");
    assert_eq!(asked.pop(), Ok(Wish::Neighbour(AdjacencyId(1), address(1))));
    assert!(ask(3, 9), "it was not heard before");
    assert_eq!(asked.pop(), Ok(Wish::Neighbour(AdjacencyId(1), address(2))));
    assert!(!ask(1, 4 + Time::SECOND));
    assert!(ask(1, 5 + Time::SECOND));
}

/// Behind a router that fails, every packet may be for another host.
#[test]
fn packets_to_many_hosts_behind_a_neighbour_that_failed_are_one_wish() {
    let mut world = World::new();
    let (ring, mut wishes) = rtrb::RingBuffer::new(500);
    let bell = Arc::new(Wake::new().expect("a descriptor is free"));
    let mut outlets = Outlets::none();
    outlets.set_host(Outlet::Virtual);
    world.worker.slow = Slow::new(Limiter::new(1_000_000), outlets, Wanted::new(ring, Some(Arc::clone(&bell))));
    for last in 0..50 {
        world.receive(ethernet(&udp_v4([10, 33, 0, last], b"failed")));
    }
    assert_eq!((unresolved(&world), wishes.slots(), bell.drain()), (50, 1, true));
    world.receive(ethernet(&udp_v4([10, 33, 0, 99], b"failed")));
    assert!(!bell.drain(), "not even the bell");
    world.now = Time(world.now.0 + Time::SECOND);
    world.receive(ethernet(&udp_v4([10, 33, 0, 99], b"failed")));
    assert!(matches!(wishes.pop(), Ok(Wish::Neighbour(AdjacencyId(to::FAILED), _))));
    assert_eq!((wishes.slots(), bell.drain()), (1, true));
    // On a link, each destination is a neighbour of its own.
    for last in [100, 100, 101, 101] {
        world.receive(to_stranger(last));
    }
    assert_eq!(wishes.slots(), 3);
    world.now = Time(world.now.0 + 2 * Time::SECOND);
    (0..2).for_each(|_| world.poll());
    assert_eq!((wishes.slots(), world.totals().queued), (5, 0), "both again, since both have failed");
}

#[test]
fn many_neighbours_that_fail_are_so_many_wishes_a_second_and_no_more() {
    let bell = Arc::new(Wake::new().expect("a descriptor is free"));
    let (ring, wishes) = rtrb::RingBuffer::new(4 * REMEMBERED);
    let mut wanted = Wanted::new(ring, Some(bell));
    let address = IpAddr::from([203, 0, 113, 9]);
    let mut ask = |now| {
        for _ in 0..2 {
            (0..2 * REMEMBERED as u32).for_each(|id| wanted.ask_again((AdjacencyId(id), None), address, now));
        }
        wishes.slots()
    };
    assert_eq!(ask(Time(7)), REMEMBERED);
    assert_eq!(ask(Time(7 + Time::SECOND - 1)), REMEMBERED);
    assert_eq!(ask(Time(7 + Time::SECOND)), 2 * REMEMBERED);
}
