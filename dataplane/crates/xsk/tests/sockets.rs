//! Sockets on veth pairs in namespaces of their own.

mod support;

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use support::{Namespace, Random, Redirect, Wire, frame, ifindex, lacks_privilege};
use xsk::{Bound, ChunkSize, Config, Error, Frame, Kick, MAX_CHUNKS, Mode, Pool, Socket, Umem, Waiter};

/// Small rings, so that every test runs them round.
fn config(name: &str, queue: u32) -> Config {
    Config {
        rx_size: 256,
        tx_size: 128,
        fill_size: 256,
        completion_size: 256,
        tx_budget: 128,
        ..Config::new(ifindex(name), queue)
    }
}

fn memory(chunks: usize) -> (Umem, Pool) {
    let umem = Umem::new(chunks, ChunkSize::Octets2048).expect("a little memory");
    (umem, umem.pool(64, 256))
}

/// Waits for the next packet.
fn receive(socket: &mut Socket) -> Frame {
    let mut waiter = Waiter::new();
    for _ in 0..100 {
        if let Some(frame) = socket.receive() {
            return frame;
        }
        waiter.wait([socket.as_fd()], Some(Duration::from_millis(100))).expect("poll works");
    }
    panic!("nothing received: {:?}", socket.statistics());
}

/// Reaps until the kernel holds nothing for sending.
fn drain(socket: &mut Socket, umem: &Umem, pool: &mut Pool) {
    for _ in 0..1_000_000 {
        socket.flush().expect("the device lives");
        socket.reap(pool);
        if umem.account().with_socket(socket).transmit == 0 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("sent frames do not complete: {socket:?}");
}

fn octets(frame: &Frame) -> Vec<u8> {
    frame.segments().flatten().copied().collect()
}

fn send(socket: &mut Socket, pool: &mut Pool, octets: &[u8]) {
    let frame = pool.frame_of(octets).expect("the pool has frames");
    assert!(frame.chunks() <= socket.tx_room());
    socket.send(frame);
    socket.flush().expect("the device lives");
}

#[test]
fn receives_and_sends_every_octet() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let redirect = Redirect::attach(ifindex("a"));
        let mut socket = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        redirect.serve(0, socket.as_raw_fd());
        let wire = Wire::new(ifindex("b"));
        for (seed, len) in [14, 60, 64, 128, 1_000, 1_513, 1_514].into_iter().enumerate() {
            let sent = frame(len, seed as u64);
            wire.send(&sent);
            let received = receive(&mut socket);
            assert_eq!(octets(&received), sent);
            assert_eq!(received.headroom(), xsk::RECEIVE_OFFSET - 16);
            pool.put(received);
            send(&mut socket, &mut pool, &sent);
            assert_eq!(wire.receive(), sent);
        }
        drain(&mut socket, &umem, &mut pool);
        socket.refill(&mut pool);
        let account = umem.account().with_pool(&pool).with_socket(&socket);
        assert_eq!((account.in_packets(), account.receive), (0, 256));
        socket.close(&mut pool);
        let account = umem.account().with_pool(&pool);
        assert_eq!((account.in_packets(), account.lost), (0, 0));
    });
}

#[test]
fn a_received_frame_is_rewritten_in_place_and_sent_on_by_another_interface() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.veth("c", "d", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(2048);
        let redirect = Redirect::attach(ifindex("a"));
        let mut from = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        let mut to = Socket::bind(&umem, &mut pool, &config("c", 0)).expect("a shared UMEM");
        assert!(!from.is_sharer() && to.is_sharer());
        redirect.serve(0, from.as_raw_fd());
        let (source, sink) = (Wire::new(ifindex("b")), Wire::new(ifindex("d")));
        for seed in 0..2_000 {
            let inner = frame(60 + seed as usize % 900, seed);
            source.send(&inner);
            let mut packet = receive(&mut from);
            let outer = frame(50, seed);
            packet.prepend(50).expect("headroom").copy_from_slice(&outer);
            to.send(packet);
            assert_eq!(to.flush().expect("the device lives"), Kick::Done);
            assert_eq!(sink.receive(), [outer, inner].concat());
            to.reap(&mut pool);
            from.refill(&mut pool);
        }
        drain(&mut to, &umem, &mut pool);
        // By `from` they came, by the completion ring of `to` they returned: none with `from`.
        let account = umem.account().with_socket(&from);
        assert_eq!((account.receive, account.transmit), (256, 0));
        let account = account.with_socket(&to).with_pool(&pool);
        assert_eq!(account.in_packets(), 0);
        from.close(&mut pool);
        to.close(&mut pool);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn every_queue_has_a_socket_of_its_own() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 2, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(4096);
        let (near, far) = (Redirect::attach(ifindex("a")), Redirect::attach(ifindex("b")));
        let mut bind = |name: &str, redirect: &Redirect, queue| {
            let socket = Socket::bind(&umem, &mut pool, &config(name, queue)).expect("a queue");
            redirect.serve(queue, socket.as_raw_fd());
            socket
        };
        let mut a = [bind("a", &near, 0), bind("a", &near, 1)];
        let mut b = [bind("b", &far, 0), bind("b", &far, 1)];
        // What is sent by queue q of one end arrives at queue q of the other.
        for (queue, seed) in [(0, 1), (1, 2), (1, 3), (0, 4)] {
            let sent = frame(200, seed);
            send(&mut a[queue], &mut pool, &sent);
            let received = receive(&mut b[queue]);
            assert_eq!(octets(&received), sent);
            assert!(b[1 - queue].receive().is_none());
            b[queue].send(received);
            b[queue].flush().expect("the device lives");
            let returned = receive(&mut a[queue]);
            assert_eq!(octets(&returned), sent);
            pool.put(returned);
        }
        for socket in a.into_iter().chain(b) {
            socket.close(&mut pool);
        }
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn jumbo_frames_pass_whole_both_ways_also_by_a_sharer() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 9000);
    space.veth("c", "d", 1, 9000);
    space.enter(|| {
        let (umem, mut pool) = memory(4096);
        let mut bind = |name| {
            let redirect = Redirect::attach(ifindex(name));
            let jumbo = Config { multi_buffer: true, ..config(name, 0) };
            let socket = Socket::bind(&umem, &mut pool, &jumbo).expect("a free queue");
            assert_eq!(socket.max_chunks(), MAX_CHUNKS);
            redirect.serve(0, socket.as_raw_fd());
            (redirect, socket)
        };
        let mut near = [bind("a"), bind("c")];
        assert!(!near[0].1.is_sharer() && near[1].1.is_sharer());
        for ((_, socket), far) in near.iter_mut().zip(["b", "d"]) {
            let wire = Wire::new(ifindex(far));
            for (seed, len) in [60, 1_664, 1_665, 5_000, 9_013, 9_014].into_iter().enumerate() {
                for round in 0..60 {
                    let sent = frame(len, seed as u64 * 100 + round);
                    wire.send(&sent);
                    let received = receive(socket);
                    assert_eq!(received.total(), len);
                    assert_eq!(received.chunks(), len.div_ceil(1_664));
                    assert_eq!(octets(&received), sent);
                    assert!(received.chunks() <= socket.tx_room());
                    socket.send(received);
                    assert_eq!(socket.flush().expect("the device lives"), Kick::Done);
                    assert_eq!(wire.receive(), sent);
                    socket.reap(&mut pool);
                    socket.refill(&mut pool);
                }
            }
            drain(socket, &umem, &mut pool);
            assert_eq!(socket.statistics().expect("bound").tx_invalid, 0);
        }
        for (_, socket) in near {
            socket.close(&mut pool);
        }
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn what_cannot_be_sent_is_counted_and_comes_back() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let jumbo = Config { multi_buffer: true, ..config("a", 0) };
        let mut socket = Socket::bind(&umem, &mut pool, &jumbo).expect("a free queue");
        let wire = Wire::new(ifindex("b"));
        // Too long, no octets at all, no chunk at all.
        let long = pool.frame_of(&vec![0; 18 * 1_664]).expect("frames");
        assert_eq!(long.chunks(), MAX_CHUNKS + 1);
        socket.send(long);
        socket.send(pool.take().expect("frames"));
        socket.send(Frame::empty());
        assert_eq!(socket.counters().unsendable, 3);
        assert_eq!(socket.tx_room(), 128);
        assert_eq!(socket.flush().expect("the device lives"), Kick::Idle);
        // Chunks without data in the middle of a chain take no descriptor.
        let mut chain = pool.frame_of(&frame(100, 1)).expect("frames");
        chain.chain(pool.take().expect("frames"));
        chain.chain(pool.frame_of(&[1, 2, 3]).expect("frames"));
        chain.chain(pool.take().expect("frames"));
        let expected = octets(&chain);
        socket.send(chain);
        assert_eq!(socket.tx_room(), 126);
        assert_eq!(socket.flush().expect("the device lives"), Kick::Done);
        assert_eq!(wire.receive(), expected);
        drain(&mut socket, &umem, &mut pool);
        // No room.
        for _ in 0..129 {
            socket.send(pool.frame_of(&frame(60, 2)).expect("frames"));
        }
        assert_eq!(socket.counters().unsendable, 4);
        assert_eq!(socket.tx_room(), 0);
        drain(&mut socket, &umem, &mut pool);
        assert_eq!(socket.statistics().expect("bound").tx_invalid, 0);
        let account = umem.account().with_socket(&socket).with_pool(&pool);
        assert_eq!(account.in_packets(), 0);
        socket.close(&mut pool);

        let mut single = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        single.send(pool.frame_of(&vec![0; 1_665]).expect("frames"));
        assert_eq!((single.max_chunks(), single.counters().unsendable), (1, 1));
        drop(single);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn a_queue_has_one_owner_and_is_free_again_after_close() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let (others, mut other_pool) = memory(1024);
        let first = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        let error = Socket::bind(&others, &mut other_pool, &config("a", 0)).expect_err("taken");
        assert!(matches!(error, Error::Busy { queue: 0, .. }), "{error}");
        assert_eq!(others.account().with_pool(&other_pool).in_packets(), 0);
        first.close(&mut pool);
        // The release is deferred work: each of these finds the queue busy for a while.
        for _ in 0..5 {
            let socket =
                Socket::bind(&others, &mut other_pool, &config("a", 0)).expect("free again within two seconds");
            socket.close(&mut other_pool);
        }
        assert_eq!(others.account().with_pool(&other_pool).in_packets(), 0);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn a_deleted_device_returns_every_chunk() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let redirect = Redirect::attach(ifindex("a"));
        let mut socket = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        redirect.serve(0, socket.as_raw_fd());
        let wire = Wire::new(ifindex("b"));
        for seed in 0..100 {
            wire.send(&frame(300, seed));
        }
        let received = receive(&mut socket);
        // On the TX ring, never to be completed.
        for seed in 0..100 {
            socket.send(pool.frame_of(&frame(300, seed)).expect("frames"));
        }
        space.run("ip link del dev a");
        // First ENETDOWN, then ENXIO.
        let died = (0..1_000).any(|_| match socket.flush() {
            Err(Error::Dead { .. }) => true,
            Ok(kick) => {
                assert_eq!(kick, Kick::Down);
                std::thread::yield_now();
                false
            }
            Err(error) => panic!("{error}"),
        });
        assert!(died || socket.counters().kicks_down > 0);
        socket.reap(&mut pool);
        let account = umem.account().with_socket(&socket).with_pool(&pool);
        assert_eq!((account.transmit, account.in_packets()), (100, 1));
        socket.close(&mut pool);
        pool.put(received);
        let account = umem.account().with_pool(&pool);
        assert_eq!((account.in_packets(), account.lost), (0, 0));
    });
}

#[test]
fn sharing_survives_whichever_socket_goes_first() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    let names = ["a", "b", "c", "d"];
    let add = |name: &str| space.veth(name, &format!("{name}-peer"), 1, 1500);
    names.iter().for_each(|name| add(name));
    space.enter(|| {
        let (umem, mut pool) = memory(4096);
        let mut sockets: Vec<(&str, Socket)> = Vec::new();
        let works = |name: &str, socket: &mut Socket, pool: &mut Pool| {
            let wire = Wire::new(ifindex(&format!("{name}-peer")));
            let redirect = Redirect::attach(ifindex(name));
            redirect.serve(0, socket.as_raw_fd());
            let sent = frame(100, 7);
            wire.send(&sent);
            let received = receive(socket);
            assert_eq!(octets(&received), sent);
            socket.send(received);
            socket.flush().expect("the device lives");
            assert_eq!(wire.receive(), sent);
            drain(socket, &umem, pool);
            socket.refill(pool);
        };
        let mut random = Random(42);
        // Every order of opening, closing and deleting: the first opened, the donor, is no exception.
        for _ in 0..60 {
            let name = names[random.below(4) as usize];
            match sockets.iter().position(|(open, _)| *open == name) {
                None => {
                    let socket = Socket::bind(&umem, &mut pool, &config(name, 0))
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    sockets.push((name, socket));
                }
                Some(at) => {
                    let (_, socket) = sockets.swap_remove(at);
                    if random.below(2) == 0 {
                        // The device goes while its socket is still there to be picked as a donor.
                        space.run(&format!("ip link del dev {name}"));
                        add(name);
                        let fresh = Socket::bind(&umem, &mut pool, &config(name, 0))
                            .unwrap_or_else(|error| panic!("{name} again: {error}"));
                        sockets.push((name, fresh));
                    }
                    socket.close(&mut pool);
                }
            }
            for (name, socket) in &mut sockets {
                works(name, socket, &mut pool);
            }
            let account = sockets
                .iter()
                .fold(umem.account().with_pool(&pool), |account, (_, socket)| account.with_socket(socket));
            assert_eq!(account.in_packets(), 0);
            assert_eq!(account.receive, 256 * sockets.len());
        }
        sockets.clear();
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn a_donor_without_a_device_is_passed_over() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.veth("c", "d", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(2048);
        let dead = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        space.run("ip link del dev a");
        // The only candidate has lost its device: this one registers the memory again,
        let first = Socket::bind(&umem, &mut pool, &config("c", 0)).expect("a free queue");
        assert!(!first.is_sharer());
        // and lends it, though the dead one is still there.
        space.veth("a", "b", 1, 1500);
        let second = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        assert!(second.is_sharer());
        dead.close(&mut pool);
        // One that came by sharing lends as well.
        first.close(&mut pool);
        let third = Socket::bind(&umem, &mut pool, &config("c", 0)).expect("a free queue");
        assert!(third.is_sharer());
        // Not across kinds of registration: the flag for several chunks belongs to all who share.
        let jumbo = Config { multi_buffer: true, ..config("d", 0) };
        let other = Socket::bind(&umem, &mut pool, &jumbo).expect("a free queue");
        assert!(!other.is_sharer());
        for socket in [second, third, other] {
            socket.close(&mut pool);
        }
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn the_account_balances_over_many_packets_and_no_octet_changes() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 3000);
    space.enter(|| {
        let (umem, mut pool) = memory(2048);
        let mut bind = |name: &str| {
            let redirect = Redirect::attach(ifindex(name));
            let config = Config { multi_buffer: true, ..config(name, 0) };
            let socket = Socket::bind(&umem, &mut pool, &config).expect("a free queue");
            redirect.serve(0, socket.as_raw_fd());
            (redirect, socket)
        };
        let (_keep_a, mut a) = bind("a");
        let (_keep_b, mut b) = bind("b");
        let mut waiter = Waiter::new();
        let mut random = Random(1);
        let (mut sent, mut received, mut held) = (0_u64, 0_u64, Vec::new());
        let mut idle = 0;
        while received < 100_000 {
            // As many as are in flight at most fit the receiver's rings: none is lost.
            let mut burst = random.below(64);
            while burst > 0 && sent < 100_000 && sent - received < 100 && a.tx_room() >= 2 {
                let len = 60 + random.below(2_900) as usize;
                let mut packet = frame(60, sent);
                packet.resize(len, sent as u8);
                packet[14..22].copy_from_slice(&sent.to_be_bytes());
                a.send(pool.frame_of(&packet).expect("the pool has frames"));
                sent += 1;
                burst -= 1;
            }
            if random.below(4) > 0 {
                a.flush().expect("the device lives");
            }
            a.reap(&mut pool);
            idle += 1;
            while let Some(packet) = b.receive() {
                idle = 0;
                let mut number = [0; 8];
                assert!(packet.copy_to(14, &mut number));
                assert_eq!(u64::from_be_bytes(number), received);
                let fill = received as u8;
                assert!(octets(&packet)[60..].iter().all(|octet| *octet == fill));
                received += 1;
                held.push(packet);
            }
            // Some stay for a while, in any order.
            while held.len() > random.below(200) as usize {
                let at = random.below(held.len() as u64) as usize;
                pool.put(held.swap_remove(at));
            }
            b.refill(&mut pool);
            let chunks: usize = held.iter().map(Frame::chunks).sum();
            let account = umem.account().with_pool(&pool);
            let account = account.with_socket(&a).with_socket(&b);
            assert_eq!(account.in_packets(), chunks);
            if idle > 100 {
                assert!(idle < 1_000, "{sent} sent, {received} received: {:?}", b.statistics());
                let fds = [a.as_fd(), b.as_fd()];
                waiter.wait(fds, Some(Duration::from_millis(10))).expect("poll works");
            }
        }
        held.drain(..).for_each(|packet| pool.put(packet));
        assert_eq!((a.counters().bogus, b.counters().bogus), (0, 0));
        a.close(&mut pool);
        b.close(&mut pool);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn reception_recovers_after_the_fill_ring_ran_dry() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        // Fewer chunks than the fill ring takes.
        let (umem, mut pool) = memory(64);
        let redirect = Redirect::attach(ifindex("a"));
        let mut socket = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        redirect.serve(0, socket.as_raw_fd());
        assert_eq!(socket.counters().starved, 1);
        let wire = Wire::new(ifindex("b"));
        let mut held = Vec::new();
        for seed in 0..64 {
            wire.send(&frame(100, seed));
            held.push(receive(&mut socket));
            socket.refill(&mut pool);
        }
        // Nothing left to receive into: the kernel counts the loss.
        wire.send(&frame(100, 64));
        let before = Instant::now();
        while socket.statistics().expect("bound").fill_ring_empty == 0 {
            assert!(before.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert!(socket.receive().is_none());
        held.drain(..).for_each(|packet| pool.put(packet));
        socket.refill(&mut pool);
        socket.wake_rx().expect("the device lives");
        for seed in 100..300 {
            let sent = frame(100, seed);
            wire.send(&sent);
            let received = receive(&mut socket);
            assert_eq!(octets(&received), sent);
            pool.put(received);
            socket.refill(&mut pool);
        }
        socket.close(&mut pool);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn a_link_that_is_down_delays_and_a_peer_that_is_down_loses() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let mut socket = Socket::bind(&umem, &mut pool, &config("a", 0)).expect("a free queue");
        let wire = Wire::new(ifindex("b"));
        space.run("ip link set dev a down");
        let sent = frame(100, 1);
        socket.send(pool.frame_of(&sent).expect("frames"));
        assert_eq!(socket.flush().expect("alive"), Kick::Down);
        assert_eq!(umem.account().with_socket(&socket).transmit, 1);
        space.run("ip link set dev a up");
        assert_eq!(socket.flush().expect("alive"), Kick::Done);
        assert_eq!(wire.receive(), sent);
        drain(&mut socket, &umem, &mut pool);

        space.run("ip link set dev b down");
        for _ in 0..3 {
            socket.send(pool.frame_of(&frame(100, 2)).expect("frames"));
        }
        // One packet is lost by each kick, and completes.
        for left in [2, 1, 0] {
            assert_eq!(socket.flush().expect("alive"), Kick::Refused);
            socket.reap(&mut pool);
            assert_eq!(umem.account().with_socket(&socket).transmit, left);
        }
        assert_eq!(socket.flush().expect("alive"), Kick::Idle);
        assert_eq!(socket.counters().kicks_refused, 3);
        space.run("ip link set dev b up");
        send(&mut socket, &mut pool, &sent);
        drop(socket);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn more_than_a_kick_may_send_takes_several() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let frugal = Config {
            tx_budget: 0, // brought up to 32
            ..config("a", 0)
        };
        let mut socket = Socket::bind(&umem, &mut pool, &frugal).expect("a free queue");
        let wire = Wire::new(ifindex("b"));
        for seed in 0..100 {
            socket.send(pool.frame_of(&frame(100, seed)).expect("frames"));
        }
        for _ in 0..3 {
            assert_eq!(socket.flush().expect("alive"), Kick::Again);
        }
        assert_eq!(socket.flush().expect("alive"), Kick::Done);
        assert_eq!(socket.flush().expect("alive"), Kick::Idle);
        for seed in 0..100 {
            assert_eq!(wire.receive(), frame(100, seed));
        }
        socket.close(&mut pool);
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn the_mode_is_explained_and_errors_name_the_thing() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let base = config("a", 0);
        let with = |mode| Config { mode, ..base.clone() };
        let error = Socket::bind(&umem, &mut pool, &with(Mode::ZeroCopy)).expect_err("a veth");
        let index = base.ifindex;
        assert_eq!(
            error.to_string(),
            format!("queue 0 of interface {index} cannot do zero-copy: its driver has no AF_XDP zero-copy: ask for `auto` or `copy`")
        );
        let socket = Socket::bind(&umem, &mut pool, &with(Mode::Auto)).expect("copy");
        assert_eq!(socket.bound(), Bound::Copy);
        let reason = socket.not_zero_copy().expect("it was tried");
        assert_eq!(reason.errno(), libc::EOPNOTSUPP);
        socket.close(&mut pool);
        for mode in [Mode::Copy, Mode::Generic] {
            let socket = Socket::bind(&umem, &mut pool, &with(mode)).expect("copy");
            assert_eq!((socket.bound(), socket.not_zero_copy()), (Bound::Copy, None));
            socket.close(&mut pool);
        }

        let mut refused = |config: Config| Socket::bind(&umem, &mut pool, &config).expect_err("cannot be bound");
        let error = refused(Config { ifindex: 0x7fff_0000, ..base.clone() });
        assert!(matches!(error, Error::NoInterface { .. }), "{error}");
        let error = refused(Config { queue: 5, ..base.clone() });
        assert!(matches!(error, Error::NoQueue { queue: 5, .. }), "{error}");
        for size in [0, 1, 100, 1 << 21] {
            let error = refused(Config { fill_size: size, ..base.clone() });
            assert!(matches!(error, Error::RingSize { ring: "fill", .. }), "{error}");
        }
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

#[test]
fn without_privilege_or_locked_memory_the_error_says_what_to_do() {
    if lacks_privilege() {
        return;
    }
    let space = Namespace::new();
    space.veth("a", "b", 1, 1500);
    space.enter(|| {
        let (umem, mut pool) = memory(1024);
        let config = config("a", 0);
        const NET_RAW: u32 = 1 << 13;
        // The thread ends with this test. Capabilities and, by them, what root may lock go.
        let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
        // SAFETY: a valid rlimit. Those who hold CAP_IPC_LOCK, as the other tests, are not bound by it.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
        keep_capabilities(NET_RAW);
        let error = Socket::bind(&umem, &mut pool, &config).expect_err("2 MiB in 64 KiB");
        assert!(matches!(error, Error::LockedMemory { octets: 2_097_152, limit: 65_536 }), "{error}");
        keep_capabilities(0);
        let error = Socket::bind(&umem, &mut pool, &config).expect_err("no capability");
        assert!(matches!(error, Error::Permission), "{error}");
        assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    });
}

/// Drops all capabilities of this thread but those in the mask.
fn keep_capabilities(mask: u32) {
    // struct __user_cap_header_struct (version 3, this thread) and two data structs.
    let header = [0x2008_0522_u32, 0];
    let data = [mask, mask, 0, 0, 0, 0];
    // SAFETY: header and data are of the sizes that version 3 asks for.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}
