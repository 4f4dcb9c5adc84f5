//! Frames and pools against a model of plain octets. Needs no privilege.

use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use xsk::{ChunkSize, Error, Frame, HEADROOM, Pool, RECEIVE_OFFSET, Umem};

fn umem(chunks: usize, size: ChunkSize) -> (Umem, Pool) {
    let umem = Umem::new(chunks, size).expect("a little memory");
    let pool = umem.pool(8, 32);
    (umem, pool)
}

fn content(frame: &Frame) -> Vec<u8> {
    frame.segments().flatten().copied().collect()
}

/// What a frame should be: the data of each chunk, and the room around it.
#[derive(Clone, Debug, Default)]
struct Model {
    chunks: Vec<Vec<u8>>,
    headroom: usize,
    tailroom: Vec<usize>,
}

impl Model {
    fn total(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    fn new_chunk(size: ChunkSize, data: Vec<u8>) -> Self {
        let tailroom = size.octets() - RECEIVE_OFFSET - data.len();
        Self { chunks: vec![data], headroom: RECEIVE_OFFSET - 16, tailroom: vec![tailroom] }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Prepend(usize, u8),
    Advance(usize),
    SetLen(usize),
    Extend(Vec<u8>),
    Chain(Vec<u8>),
    SplitAndDropFirst,
    SplitAndDropRest,
    Invert,
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![
        3 => 0..120_usize,
        1 => 0..5_000_usize,
        1 => Just(RECEIVE_OFFSET - 16),
        1 => Just(1_664_usize),
    ];
    prop_oneof![
        3 => (length.clone(), any::<u8>()).prop_map(|(n, fill)| Step::Prepend(n, fill)),
        3 => length.clone().prop_map(Step::Advance),
        1 => length.prop_map(Step::SetLen),
        3 => vec(any::<u8>(), 0..400).prop_map(Step::Extend),
        3 => vec(any::<u8>(), 0..1_664).prop_map(Step::Chain),
        1 => Just(Step::SplitAndDropFirst),
        1 => Just(Step::SplitAndDropRest),
        1 => Just(Step::Invert),
        1 => Just(Step::Take),
    ]
}

proptest! {
    /// Whatever is done to a frame, it holds the octets that a list of vectors would, offers the room
    /// that is left, and loses no chunk.
    #[test]
    fn a_frame_behaves_like_a_list_of_vectors(
        large in any::<bool>(),
        steps in vec(step(), 1..40),
        probe in (
            prop_oneof![0..400_usize, 0..6_000_usize],
            prop_oneof![Just(0), 0..200_usize, 0..3_000_usize],
        ),
    ) {
        let size = if large { ChunkSize::Octets4096 } else { ChunkSize::Octets2048 };
        let (umem, mut pool) = umem(64, size);
        let mut frame = pool.take().expect("64 chunks");
        let mut model = Model::new_chunk(size, vec![]);
        for step in steps {
            match step {
                Step::Prepend(n, fill) => {
                    let fits = n <= model.headroom && !model.chunks.is_empty();
                    match frame.prepend(n) {
                        Some(room) => {
                            prop_assert!(fits || n == 0);
                            prop_assert_eq!(room.len(), n);
                            room.fill(fill);
                            if let Some(first) = model.chunks.first_mut() {
                                first.splice(0..0, std::iter::repeat_n(fill, n));
                                model.headroom -= n;
                            }
                        }
                        None => prop_assert!(!fits),
                    }
                }
                Step::Advance(n) => {
                    let fits = n <= model.chunks.first().map_or(0, Vec::len);
                    prop_assert_eq!(frame.advance(n), fits);
                    if fits && n > 0 {
                        model.chunks[0].drain(..n);
                        model.headroom += n;
                    }
                }
                Step::SetLen(total) => {
                    let fits = total <= model.total();
                    prop_assert_eq!(frame.set_len(total), fits);
                    if fits {
                        let mut rest = total;
                        for (chunk, tailroom) in model.chunks.iter_mut().zip(&mut model.tailroom) {
                            let keep = rest.min(chunk.len());
                            *tailroom += chunk.len() - keep;
                            chunk.truncate(keep);
                            rest -= keep;
                        }
                    }
                }
                Step::Extend(octets) => {
                    let room = model.tailroom.last().copied().unwrap_or(0);
                    prop_assert_eq!(frame.tailroom(), room);
                    let fits = octets.len() <= room;
                    prop_assert_eq!(frame.extend(&octets), fits);
                    if let (true, Some(last), Some(room)) =
                        (fits, model.chunks.last_mut(), model.tailroom.last_mut())
                    {
                        *room -= octets.len();
                        last.extend(octets);
                    }
                }
                Step::Chain(octets) => {
                    let mut tail = pool.take().expect("64 chunks, 40 steps");
                    prop_assert!(tail.extend(&octets));
                    frame.chain(tail);
                    let tail = Model::new_chunk(size, octets);
                    if model.chunks.is_empty() {
                        model = tail;
                    } else {
                        model.chunks.extend(tail.chunks);
                        model.tailroom.extend(tail.tailroom);
                    }
                }
                Step::SplitAndDropRest => {
                    let (first, rest) = frame.split();
                    prop_assert_eq!(rest.is_some(), model.chunks.len() > 1);
                    rest.into_iter().for_each(|rest| pool.put(rest));
                    frame = first;
                    model.chunks.truncate(1);
                    model.tailroom.truncate(1);
                }
                Step::SplitAndDropFirst => {
                    let (first, rest) = frame.split();
                    pool.put(first);
                    frame = rest.unwrap_or(Frame::empty());
                    if !model.chunks.is_empty() {
                        model.chunks.remove(0);
                        model.tailroom.remove(0);
                    }
                    // Only the first chunk was ever advanced or prepended to.
                    model.headroom = if model.chunks.is_empty() { 0 } else { RECEIVE_OFFSET - 16 };
                }
                Step::Invert => {
                    frame.for_each_segment_mut(|segment| segment.iter_mut().for_each(|o| *o = !*o));
                    model.chunks.iter_mut().flatten().for_each(|octet| *octet = !*octet);
                }
                Step::Take => {
                    let taken = frame.take();
                    prop_assert!(frame.is_empty());
                    frame = taken;
                }
            }
            prop_assert_eq!(frame.chunks(), model.chunks.len());
            prop_assert_eq!(frame.is_empty(), model.chunks.is_empty());
            prop_assert_eq!(frame.total(), model.total());
            prop_assert_eq!(frame.headroom(), model.headroom);
            prop_assert_eq!(frame.tailroom(), model.tailroom.last().copied().unwrap_or(0));
            prop_assert_eq!(frame.bytes(), model.chunks.first().map_or(&[][..], |first| first));
            prop_assert!(frame.segments().eq(model.chunks.iter().map(Vec::as_slice)));
            prop_assert_eq!(
                umem.account().with_pool(&pool).in_packets(),
                frame.chunks()
            );
            let flat = model.chunks.concat();
            let (at, n) = probe;
            let mut out = vec![0; n];
            prop_assert_eq!(frame.copy_to(at, &mut out), at + n <= flat.len());
            if at + n <= flat.len() {
                prop_assert_eq!(&out[..], &flat[at..at + n]);
            }
        }
        frame.prefetch();
        pool.put(frame);
        prop_assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    }

    /// A packet of any length comes out of a frame as it went in, in as few chunks as can be.
    #[test]
    fn a_packet_is_copied_into_as_many_chunks_as_it_needs(length in 0..20_000_usize) {
        let (umem, mut pool) = umem(16, ChunkSize::Octets2048);
        let packet: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        match pool.frame_of(&packet) {
            Some(frame) => {
                prop_assert_eq!(frame.chunks(), length.div_ceil(1_664).max(1));
                prop_assert_eq!(content(&frame), packet);
                pool.put(frame);
            }
            None => prop_assert!(length > 16 * 1_664),
        }
        prop_assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    }
}

#[test]
fn a_received_packet_has_room_for_the_longest_encapsulation() {
    let (_, mut pool) = umem(4, ChunkSize::Octets2048);
    let mut frame = pool.take().expect("four chunks");
    assert!(frame.headroom() >= 112);
    assert_eq!(frame.headroom(), 256 + HEADROOM - 16);
    assert!(frame.prepend(112).is_some());
    pool.put(frame);
}

#[test]
fn a_pool_runs_dry_and_recovers() {
    let (umem, mut pool) = umem(5, ChunkSize::Octets2048);
    let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(frames.len(), 5);
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 5);
    assert!(pool.frame_of(&[1]).is_none());
    frames.drain(..).for_each(|frame| pool.put(frame));
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    assert!(pool.take().map(|frame| pool.put(frame)).is_some());
}

#[test]
fn a_pool_exchanges_in_bulk_between_its_marks() {
    let umem = Umem::new(100, ChunkSize::Octets2048).expect("a little memory");
    let mut pool = umem.pool(10, 30);
    let frames: Vec<Frame> = (0..50).map(|_| pool.take().expect("100 chunks")).collect();
    // Five times ten chunks, all handed out.
    assert_eq!((umem.free(), pool.free()), (50, 0));
    for frame in frames {
        pool.put(frame);
        assert!(pool.free() <= 30);
    }
    // At the 31st put twenty went to the depot, and twenty came after it.
    assert_eq!((umem.free(), pool.free()), (70, 30));
    drop(pool);
    assert_eq!(umem.free(), 100);
}

#[test]
fn the_chunk_that_was_put_last_is_taken_first() {
    let (_, mut pool) = umem(8, ChunkSize::Octets2048);
    let frame = pool.frame_of(b"warm").expect("eight chunks");
    let at = frame.bytes().as_ptr();
    pool.put(frame);
    let frame = pool.take().expect("eight chunks");
    assert_eq!(frame.bytes().as_ptr(), at);
    pool.put(frame);
}

#[test]
fn frames_cross_between_the_pools_of_workers() {
    let umem = Umem::new(64, ChunkSize::Octets2048).expect("a little memory");
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Frame>(8);
    let producer = thread::spawn(move || {
        let mut pool = umem.pool(4, 8);
        let mut sent = 0_u32;
        while sent < 20_000 {
            match pool.frame_of(&sent.to_be_bytes()) {
                Some(frame) => {
                    sender.send(frame).expect("the receiver takes all");
                    sent += 1;
                }
                None => thread::yield_now(),
            }
        }
    });
    let mut pool = umem.pool(4, 8);
    for expected in 0..20_000_u32 {
        let frame = receiver.recv().expect("the sender sends all");
        assert_eq!(frame.bytes(), expected.to_be_bytes());
        pool.put(frame);
    }
    producer.join().expect("the sender does not panic");
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 0);
    drop(pool);
    assert_eq!(umem.free(), 64);
}

#[test]
fn an_empty_frame_can_be_asked_anything() {
    let mut frame = Frame::empty();
    assert!(frame.is_empty() && frame.bytes().is_empty() && frame.bytes_mut().is_empty());
    assert_eq!((frame.chunks(), frame.total()), (0, 0));
    assert_eq!((frame.headroom(), frame.tailroom()), (0, 0));
    assert!(frame.prepend(1).is_none() && !frame.extend(&[1]) && !frame.advance(1));
    assert!(frame.set_len(0) && !frame.set_len(1));
    assert_eq!(frame.segments().count(), 0);
    assert!(frame.copy_to(0, &mut []) && !frame.copy_to(0, &mut [0]));
    frame.prefetch();
    let (first, rest) = frame.split();
    assert!(first.is_empty() && rest.is_none());
}

#[test]
#[cfg(debug_assertions)]
fn dropping_a_frame_that_owns_a_chunk_panics() {
    let (umem, mut pool) = umem(4, ChunkSize::Octets2048);
    let frame = pool.take().expect("four chunks");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
    assert!(outcome.is_err());
    assert_eq!(umem.account().with_pool(&pool).in_packets(), 1);
}

#[test]
fn a_frame_goes_back_to_its_own_memory_only() {
    let (_, mut ours) = umem(4, ChunkSize::Octets2048);
    let (_, mut theirs) = umem(4, ChunkSize::Octets2048);
    let frame = theirs.take().expect("four chunks");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ours.put(frame)));
    assert!(outcome.is_err());
    assert_eq!(ours.free(), 0);

    let (_, mut large) = umem(4, ChunkSize::Octets4096);
    let mut frame = ours.take().expect("four chunks");
    let tail = large.take().expect("four chunks");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| frame.chain(tail)));
    assert!(outcome.is_err());
    ours.put(frame);
}

#[test]
fn refuses_a_umem_that_cannot_be() {
    for chunks in [0, usize::MAX] {
        let error = Umem::new(chunks, ChunkSize::Octets2048).expect_err("not a size");
        assert!(matches!(error, Error::ChunkCount { .. }), "{error}");
    }
}

#[test]
fn handles_and_frames_may_go_to_other_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Sync>() {}
    sendable::<Frame>();
    shareable::<Frame>();
    sendable::<Pool>();
    sendable::<xsk::Socket>();
    sendable::<Umem>();
    shareable::<Umem>();
}
