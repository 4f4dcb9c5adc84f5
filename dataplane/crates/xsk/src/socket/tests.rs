//! A socket whose kernel is the test: honest, or not.

use std::collections::HashSet;
use std::os::fd::FromRawFd;

use proptest::prelude::*;

use super::*;
use crate::bind::parts;
use crate::sys::RingOffsets;
use crate::{ChunkSize, Umem};

/// The other side of the four rings.
struct Other {
    rx: Producer<Descriptor, Mapping>,
    tx: Consumer<Descriptor, Mapping>,
    fill: Consumer<u64, Mapping>,
    completion: Producer<u64, Mapping>,
}

const CONTINUES: u32 = libc::XDP_PKT_CONTD;

/// Both sides over a file in memory, laid out as the kernel does it.
fn pair(umem: &Umem) -> (Socket, Other) {
    const AREA: i64 = 64 << 10;
    let config = Config {
        rx_size: 32,
        tx_size: 32,
        fill_size: 32,
        completion_size: 64,
        multi_buffer: true,
        ..Config::new(1, 0)
    };
    // SAFETY: a valid C string; the descriptor is new, nobody else's.
    let fd = unsafe {
        let fd = libc::memfd_create(c"rings".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0 && libc::ftruncate(fd, 4 * AREA) == 0);
        OwnedFd::from_raw_fd(fd)
    };
    let offsets = RingOffsets { producer: 0, consumer: 64, flags: 128, desc: 192 };
    fn ring<T>(fd: &OwnedFd, at: i64, offsets: &RingOffsets, size: u32) -> crate::ring::Parts<T, Mapping> {
        parts(fd.as_fd(), at * AREA, offsets, size).expect("the file is large enough")
    }
    // SAFETY: each ring gets one producer and one consumer, which follow the protocol; the mappings
    // move into them.
    unsafe {
        let other = Other {
            rx: Producer::new(ring(&fd, 0, &offsets, 32)),
            tx: Consumer::new(ring(&fd, 1, &offsets, 32)),
            fill: Consumer::new(ring(&fd, 2, &offsets, 32)),
            completion: Producer::new(ring(&fd, 3, &offsets, 64)),
        };
        let kernel = Kernel {
            rx: Consumer::new(ring(&fd, 0, &offsets, 32)),
            tx: Producer::new(ring(&fd, 1, &offsets, 32)),
            fill: Producer::new(ring(&fd, 2, &offsets, 32)),
            completion: Consumer::new(ring(&fd, 3, &offsets, 64)),
            umem: *umem,
            fd,
        };
        (Socket::new(kernel, &config), other)
    }
}

impl Other {
    fn give(&mut self, addr: u64, len: u32, options: u32) {
        let descriptor = Descriptor { addr, len, options };
        if self.rx.push(descriptor) {
            self.rx.publish();
        }
    }

    fn complete(&mut self, addr: u64) {
        if self.completion.push(addr) {
            self.completion.publish();
        }
    }
}

fn memory(chunks: usize) -> (Umem, Pool) {
    let umem = Umem::new(chunks, ChunkSize::Octets2048).expect("a little memory");
    (umem, umem.pool(4, 8))
}

fn in_packets(umem: &Umem, pool: &Pool, socket: &Socket) -> usize {
    umem.account().with_pool(pool).with_socket(socket).in_packets()
}

#[test]
fn a_chain_that_arrives_in_parts_is_received_whole() {
    let (umem, mut pool) = memory(64);
    let (mut socket, mut other) = pair(&umem);
    socket.refill(&mut pool);
    let mut take = || other.fill.pop().expect("filled") + 384;
    let (one, two, three) = (take(), take(), take());
    other.give(one, 1_664, CONTINUES);
    assert!(socket.receive().is_none());
    assert_eq!(in_packets(&umem, &pool, &socket), 0);
    other.give(two, 1_664, CONTINUES);
    other.give(three, 10, 0);
    let frame = socket.receive().expect("complete now");
    assert_eq!((frame.chunks(), frame.total()), (3, 3_338));
    assert_eq!(in_packets(&umem, &pool, &socket), 3);
    pool.put(frame);
    // A socket that is closed in the middle of one has it still.
    let half = other.fill.pop().expect("filled");
    other.give(half + 384, 1_664, CONTINUES);
    assert!(socket.receive().is_none());
    socket.close(&mut pool);
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
}

#[test]
fn a_chunk_that_the_kernel_does_not_have_is_not_taken_from_it() {
    let (umem, mut pool) = memory(64);
    let (mut socket, mut other) = pair(&umem);
    socket.refill(&mut pool);
    let addr = other.fill.pop().expect("filled");
    let sent = pool.frame_of(b"octets").expect("frames");
    socket.send(sent);
    socket.kernel.tx.publish();
    let on_tx = other.tx.pop().expect("sent").addr;
    let nowhere = [on_tx, 64 << 11, u64::MAX, u64::MAX >> 11];
    nowhere.iter().for_each(|addr| other.give(*addr, 60, 0));
    // Twice the same; outside of its chunk; over the link. The chunks of the latter do come back.
    other.give(addr + 384, 60, 0);
    other.give(addr + 384, 60, 0);
    let (long, low, wild) =
        (other.fill.pop().expect("filled"), other.fill.pop().expect("filled"), other.fill.pop().expect("filled"));
    other.give(long + 384, 1_665, 0);
    other.give(low + 8, 60, 0);
    other.give(wild + 384, u32::MAX, 0);
    let frame = socket.receive().expect("one is true");
    assert!(socket.receive().is_none());
    assert_eq!(socket.counters().bogus, 8);
    assert_eq!(in_packets(&umem, &pool, &socket), 1);
    pool.put(frame);
    // Completions of a chunk on the fill ring, of none, and of one twice.
    let filled = other.fill.pop().expect("filled");
    for addr in [filled, u64::MAX, on_tx, on_tx] {
        other.complete(addr);
    }
    socket.reap(&mut pool);
    assert_eq!(socket.counters().bogus, 11);
    let account = umem.account().with_pool(&pool).with_socket(&socket);
    assert_eq!((account.transmit, account.receive), (0, 28));
    assert_eq!(account.in_packets(), 0);
    drop(socket);
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    /// The kernel receives packets of these many chunks.
    Arrive(usize),
    /// The kernel sends and completes as many chunks, the last one first.
    Complete(usize),
    /// The kernel puts any number on a ring.
    Lie(u64, u32, bool),
    Receive,
    /// Sends or frees one of the frames that were received.
    Pass(usize, bool),
    Reap,
    Refill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5_usize).prop_map(Step::Arrive),
        3 => (1..9_usize).prop_map(Step::Complete),
        1 => (0..300_000_u64, 0..3_000_u32, any::<bool>())
            .prop_map(|(addr, len, sent)| Step::Lie(addr, len, sent)),
        4 => Just(Step::Receive),
        4 => (0..100_usize, any::<bool>()).prop_map(|(at, send)| Step::Pass(at, send)),
        2 => Just(Step::Reap),
        2 => Just(Step::Refill),
    ]
}

proptest! {
    /// Whatever a kernel says, no chunk has two owners, none is lost, and closing returns all.
    #[test]
    fn every_chunk_has_one_owner(
        chunks in 20..140_usize,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let (umem, mut pool) = memory(chunks);
        let (mut socket, mut other) = pair(&umem);
        let mut frames: Vec<Frame> = Vec::new();
        let mut to_complete = Vec::new();
        for step in steps {
            match step {
                Step::Arrive(n) => {
                    let addrs: Vec<u64> = std::iter::from_fn(|| other.fill.pop()).take(n).collect();
                    other.fill.release();
                    for (at, addr) in addrs.iter().enumerate() {
                        let options = if at + 1 < addrs.len() { CONTINUES } else { 0 };
                        other.give(addr + 384, 1_000, options);
                    }
                }
                Step::Complete(n) => {
                    to_complete.extend(std::iter::from_fn(|| other.tx.pop()).map(|sent| sent.addr));
                    other.tx.release();
                    for addr in (0..n).map_while(|_| to_complete.pop()) {
                        other.complete(addr);
                    }
                }
                Step::Lie(addr, len, true) => other.give(addr, len, 0),
                Step::Lie(addr, _, false) => other.complete(addr),
                Step::Receive => frames.extend(socket.receive()),
                Step::Pass(at, send) => {
                    if !frames.is_empty() {
                        let frame = frames.swap_remove(at % frames.len());
                        if send {
                            socket.send(frame);
                            socket.kernel.tx.publish();
                        } else {
                            pool.put(frame);
                        }
                    }
                }
                Step::Reap => socket.reap(&mut pool),
                Step::Refill => socket.refill(&mut pool),
            }
            let owned: usize = frames.iter().map(Frame::chunks).sum();
            prop_assert_eq!(in_packets(&umem, &pool, &socket), owned);
            let places: HashSet<usize> = frames
                .iter()
                .flat_map(Frame::segments)
                .map(|segment| segment.as_ptr().addr() >> 11)
                .collect();
            prop_assert_eq!(places.len(), owned);
        }
        socket.close(&mut pool);
        frames.drain(..).for_each(|frame| pool.put(frame));
        prop_assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    }
}
