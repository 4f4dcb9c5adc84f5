//! What a worker does at the ends of its rings to another.

use super::*;

/// A ring to worker 1, which is this test: what crosses, and what wakes it.
fn neighbour(world: &mut World) -> (rtrb::Consumer<Packet>, Arc<Doorbell>) {
    let (ring, crossed) = rtrb::RingBuffer::new(8);
    let bell = Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
    world.worker.cross_to(Outbound::new(1, ring, Arc::clone(&bell)));
    (crossed, bell)
}

/// Takes out what crossed, as that worker would.
fn take(world: &mut World, crossed: &mut rtrb::Consumer<Packet>) -> usize {
    let mut count = 0;
    while let Ok(packet) = crossed.pop() {
        let mut place = world.worker.stock.empty();
        *place = packet;
        world.worker.stock.put(place);
        count += 1;
    }
    world.worker.pipeline.tally.crossed_in(count as u64);
    count
}

#[test]
fn packets_that_cross_wake_the_other_worker_if_it_sleeps() {
    let mut world = World::new();
    let (mut crossed, bell) = neighbour(&mut world);
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    world.worker.obey(Command::Cross(WAN, 1), now);
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert!(!bell.wake.drain(), "it is awake, and a system call would be for nothing");
    assert_eq!(take(&mut world, &mut crossed), 1);
    bell.falls_asleep();
    for _ in 0..3 {
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    }
    assert!(bell.wake.drain(), "it sleeps");
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert!(!bell.wake.drain(), "it was called already");
    assert_eq!(take(&mut world, &mut crossed), 4);
}

#[test]
fn a_port_that_comes_back_is_crossed_to_again_though_its_receive_queue_here_went() {
    let mut world = World::new();
    let (mut crossed, _bell) = neighbour(&mut world);
    let receives = || {
        let mut lane = Lane::interface(WAN, 1, Port::Memory(Memory::new()));
        lane.can_send = false;
        lane
    };
    let now = world.now;
    for _ in 0..2 {
        world.worker.obey(Command::Close(WAN), now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 0);
        world.worker.obey(Command::Open(receives()), now);
        world.worker.obey(Command::Cross(WAN, 1), now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 1);
        // The queue's device failed: what others send by is not touched.
        world.worker.close(|lane| lane.port == WAN, now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 1);
    }
    assert_eq!(world.totals().drops[DropReason::PortDown as usize], 2);
}

/// With two rings that send, packets of a flow could overtake each other when one is full.
#[test]
fn of_a_ports_lanes_one_sends() {
    let mut world = World::new();
    world.worker.open(Lane::interface(WAN, 1, Port::Memory(Memory::new())));
    let sends = |world: &World| world.worker.lanes.iter().filter(|lane| lane.port == WAN && lane.sends).count();
    assert_eq!(sends(&world), 1);
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    world.worker.open(Lane::interface(WAN, 1, Port::Memory(Memory::new())));
    assert_eq!(sends(&world), 1);
}

/// The numbers of the datagrams of a flow, in the order in which they were sent.
fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|frame| frame[ETHERNET + 28]).collect()
}

#[test]
fn a_flow_keeps_its_order_when_one_of_the_ports_rings_is_full_and_when_it_goes() {
    let mut world = World::new();
    let now = world.now;
    let never = Faults { jam: 1000, ..Faults::default() };
    let jammed = Port::Faulty(Box::new(Faulty::new(Port::Memory(Memory::new()), never, 1)));
    world.worker.obey(Command::Close(WAN), now);
    world.worker.obey(Command::Open(Lane::interface(WAN, 0, jammed)), now);
    world.worker.obey(Command::Open(Lane::interface(WAN, 1, Port::Memory(Memory::new()))), now);
    for number in 0..3 {
        world.receive(ethernet(&udp_v4(FAR_V4, &[number])));
    }
    assert_eq!(world.totals().queued, 3, "they wait for the queue that the flow takes");
    // The first queue goes: what waits takes the other, all of it.
    let first = world.worker.lanes.iter_mut().find(|lane| lane.port == WAN).expect("it was opened");
    first.alive = false;
    world.worker.close(|lane| !lane.alive, now);
    world.receive(ethernet(&udp_v4(FAR_V4, &[3])));
    assert_eq!(numbers(&world.sent(WAN)), [0, 1, 2, 3]);
    world.assert_balance();
}

/// The first of two workers may sleep by the time its packets arrive at the second.
#[test]
fn what_crosses_is_queued_until_it_arrives_and_not_until_its_sender_looks() {
    let (mut near, mut far) = near_and_far(8);
    (0..3).for_each(|_| near.put(LAN, ethernet(&udp_v4(FAR_V4, b"x"))));
    near.poll();
    assert_eq!((near.totals().queued, near.totals().forwarded), (3, 0));
    assert!(near.totals().balances());
    far.poll();
    assert_eq!((far.sent(WAN).len(), near.totals().queued, near.totals().forwarded), (3, 0, 3));
    assert!(near.totals().balances());
}

/// A card may hash a first fragment by its ports and the rest by addresses alone: they reach two workers.
#[test]
fn fragments_that_reach_two_workers_meet_at_one() {
    let inner = framed(TUNNEL_MAC, FAR_MAC, &udp_v4(FAR_V4, &[7; 600]));
    let whole = vxlan(AWS_A, &inner);
    let (data, middle) = (&whole[ETHERNET + 20..], 320);
    let fragment = |data: &[u8], offset: usize, more| {
        let ip = raw_v4(WAN_V4, data, |header| {
            (header.source, header.protocol) = (REMOTE_V4, etherparse::ip_number::UDP);
            header.fragment_offset = IpFragOffset::try_new(offset as u16 / 8).expect("13 bits");
            header.more_fragments = more;
        });
        framed(WAN_MAC, ROUTER_MAC, &ip)
    };
    let fragments = [fragment(&data[..middle], 0, true), fragment(&data[middle..], middle, false)];
    let mut sent = Vec::new();
    for first in 0..2 {
        let mut workers = [World::new(), World::new()];
        let bell = || Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
        for (from, to) in [(0, 1), (1, 0)] {
            let (ring, crossed) = rtrb::RingBuffer::new(8);
            workers[from].worker.cross_to(Outbound::new(to, ring, bell()));
            workers[to].worker.cross_from(crossed);
            let page = workers[to].worker.pipeline.tally.page();
            workers[from].peers.push(page);
            workers[from].worker.slow.share(from, 2);
        }
        workers[first].put(WAN, fragments[0].clone());
        workers[1 - first].put(WAN, fragments[1].clone());
        for round in 0..3 {
            workers.iter_mut().for_each(World::poll);
            assert!(workers[0].totals().balances(), "round {round}: {:?}", workers[0].totals());
        }
        let totals = workers[0].totals();
        assert_eq!((totals.received, totals.absorbed, totals.forwarded, totals.queued), (2, 1, 1, 0));
        sent.push(workers.each_mut().map(|world| world.sent(WAN).len()));
    }
    assert!(sent == [[1, 0]; 2] || sent == [[0, 1]; 2], "always the same: {sent:?}");
    // No room on the way there is a loss with a name.
    let mut world = World::new();
    let (mut crossed, _bell) = neighbour(&mut world);
    let owner = usize::from(sent[0] == [0, 1]);
    world.worker.slow.share(1 - owner, 2);
    world.worker.outbound[0].peer = owner;
    for _ in 0..12 {
        world.put(WAN, fragments[1].clone());
        world.poll();
    }
    world.poll();
    assert_eq!((world.totals().drops[DropReason::QueueFull as usize], world.totals().queued), (4, 8));
    assert_eq!(take(&mut world, &mut crossed), 8);
}
