//! Single-producer single-consumer rings whose words another party (the kernel) shares.
//!
//! Each side keeps a copy of its own index and of the last index it saw of the peer, so the shared
//! line is touched once per batch, not per entry. Indices are free-running u32 that wrap; the
//! position of an entry is the index modulo the size, a power of two.

use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// The words and entries of one ring, wherever they are, and what keeps them there.
pub(crate) struct Parts<T, M> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<T>,
    /// A power of two.
    pub(crate) size: u32,
    /// The owner of the memory: a mapping, or a share of an allocation.
    pub(crate) _memory: M,
}

// SAFETY: the pointers are into `_memory`, which moves along; the words are atomic, and entries are
// accessed by the rules of `Producer` and `Consumer`, which hold on any thread.
unsafe impl<T: Send, M: Send> Send for Parts<T, M> {}

impl<T, M> Parts<T, M> {
    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid while `_memory` lives, by the contract of the constructors below.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    /// Whether the other side sleeps and wants a system call (XDP_RING_NEED_WAKEUP).
    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }.load(Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the mask keeps the offset below `size`, and there are `size` entries.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The side that writes entries.
pub(crate) struct Producer<T, M> {
    parts: Parts<T, M>,
    /// Where the next entry goes. Entries up to `published` are the consumer's.
    next: u32,
    published: u32,
    /// `next` may advance to here: the consumer's index as last seen, plus the size.
    limit: u32,
}

impl<T: Copy, M> Producer<T, M> {
    /// # Safety
    ///
    /// The pointers of `parts` are aligned and stay valid while `parts._memory` lives, `entries` for
    /// `size` of them, a power of two. This is the only producer, and the peer follows the protocol:
    /// it reads entries only below the producer index.
    pub(crate) unsafe fn new(parts: Parts<T, M>) -> Self {
        assert!(parts.size.is_power_of_two());
        let next = parts.producer().load(Relaxed);
        let limit = parts.consumer().load(Acquire).wrapping_add(parts.size);
        Self { parts, next, published: next, limit }
    }

    /// How many entries can be pushed. Asks the consumer only if fewer than `wanted` are known free.
    #[inline]
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        let room = self.limit.wrapping_sub(self.next);
        if room >= wanted {
            return room;
        }
        // Acquire: what the consumer read is read before we overwrite it.
        self.limit = self.parts.consumer().load(Acquire).wrapping_add(self.parts.size);
        self.limit.wrapping_sub(self.next)
    }

    /// How many entries are free by now, without keeping the answer.
    #[inline]
    pub(crate) fn room_now(&self) -> u32 {
        let used = self.next.wrapping_sub(self.parts.consumer().load(Acquire));
        self.parts.size.wrapping_sub(used)
    }

    /// Writes an entry, not yet visible to the consumer. `false`, and nothing written, if the ring is full.
    #[inline]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.next == self.limit && self.room(1) == 0 {
            return false;
        }
        // SAFETY: next is below limit, so the consumer has released this slot (acquired in `room`)
        // and will not read it before `publish`.
        unsafe { self.parts.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Makes all entries pushed so far visible.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.published != self.next {
            self.published = self.next;
            // Release: the entries are written before the index says so. Only we write it.
            self.parts.producer().store(self.next, Release);
        }
    }

    /// Whether the consumer has not yet taken all that is published.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.parts.consumer().load(Relaxed) != self.published
    }

    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.parts.needs_wakeup()
    }
}

/// The side that reads entries.
pub(crate) struct Consumer<T, M> {
    parts: Parts<T, M>,
    next: u32,
    /// Slots up to here are the producer's again.
    released: u32,
    /// The producer's index as last seen.
    limit: u32,
}

impl<T: Copy, M> Consumer<T, M> {
    /// # Safety
    ///
    /// As for [`Producer::new`], with the roles exchanged: the only consumer, and the peer writes
    /// entries before it moves its index past them.
    pub(crate) unsafe fn new(parts: Parts<T, M>) -> Self {
        assert!(parts.size.is_power_of_two());
        let next = parts.consumer().load(Relaxed);
        let limit = parts.producer().load(Acquire);
        Self { parts, next, released: next, limit }
    }

    /// The oldest entry. Slots go back to the producer when all known entries are read, or by
    /// [`Consumer::release`].
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.next == self.limit {
            self.release();
            // Acquire: the producer wrote the entries before this index.
            self.limit = self.parts.producer().load(Acquire);
            if self.next == self.limit {
                return None;
            }
        }
        // SAFETY: next is below the producer's index, so this entry is written and will not be
        // overwritten before we release it.
        let entry = unsafe { self.parts.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of all entries read so far back to the producer.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            // Release: our reads are done before the producer overwrites. Only we write this word.
            self.parts.consumer().store(self.next, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A ring in ordinary memory, as the kernel lays one out.
    struct Heap {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: Box<[UnsafeCell<u64>]>,
    }

    // SAFETY: the cells are accessed by one producer and one consumer, by the protocol under test.
    unsafe impl Sync for Heap {}

    fn ring(size: u32, start: u32) -> (Producer<u64, Arc<Heap>>, Consumer<u64, Arc<Heap>>) {
        let heap = Arc::new(Heap {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| UnsafeCell::new(u64::MAX)).collect(),
        });
        let parts = || Parts {
            producer: NonNull::from(&heap.producer),
            consumer: NonNull::from(&heap.consumer),
            flags: NonNull::from(&heap.flags),
            entries: NonNull::new(heap.entries.as_ptr().cast_mut().cast()).expect("a box"),
            size,
            _memory: Arc::clone(&heap),
        };
        // SAFETY: the pointers are into `heap`, which both sides keep; one producer, one consumer.
        unsafe { (Producer::new(parts()), Consumer::new(parts())) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32),
        Publish,
        Pop(u32),
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..12_u32).prop_map(Step::Push),
            Just(Step::Publish),
            (0..12_u32).prop_map(Step::Pop),
            Just(Step::Release),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// What comes out is what was published, in order; nothing is overwritten before it is
        /// released, wherever the indices start.
        #[test]
        fn behaves_like_two_queues(
            steps in steps(),
            log_size in 0..5_u32,
            start in prop_oneof![Just(0), (u32::MAX - 40)..=u32::MAX, any::<u32>()],
        ) {
            let size = 1 << log_size;
            let (mut producer, mut consumer) = ring(size, start);
            let mut unpublished = VecDeque::new();
            let mut visible = VecDeque::new();
            // Read but not released: still taking up room.
            let mut unreleased = 0;
            let mut known = 0; // entries that the consumer has seen the index of
            let mut value = 0_u64;
            for step in steps {
                match step {
                    Step::Push(n) => for _ in 0..n {
                        let free = size as usize - unpublished.len() - visible.len() - unreleased;
                        prop_assert_eq!(producer.room_now() as usize, free);
                        prop_assert_eq!(producer.push(value), free > 0);
                        if free > 0 {
                            unpublished.push_back(value);
                        }
                        value += 1;
                    },
                    Step::Publish => {
                        producer.publish();
                        visible.append(&mut unpublished);
                    }
                    Step::Pop(n) => for _ in 0..n {
                        if known == 0 {
                            unreleased = 0;
                            known = visible.len();
                        }
                        prop_assert_eq!(consumer.pop(), visible.pop_front());
                        if known > 0 {
                            known -= 1;
                            unreleased += 1;
                        }
                    },
                    Step::Release => {
                        consumer.release();
                        unreleased = 0;
                    }
                }
                let waiting = visible.len() + unreleased;
                prop_assert_eq!(producer.is_pending(), waiting > 0);
                prop_assert!(producer.room(size + 1) <= size);
            }
        }
    }

    #[test]
    fn hands_every_entry_over_once_between_threads_across_the_wrap() {
        const ENTRIES: u64 = 200_000;
        let (mut producer, mut consumer) = ring(64, u32::MAX - 1_000);
        let sender = std::thread::spawn(move || {
            let mut value = 0;
            while value < ENTRIES {
                // Batches of different lengths: publish now and then.
                if producer.push(value) {
                    value += 1;
                    if value.is_multiple_of(7) {
                        producer.publish();
                    }
                } else {
                    producer.publish();
                    std::thread::yield_now();
                }
            }
            producer.publish();
        });
        let mut expected = 0;
        while expected < ENTRIES {
            match consumer.pop() {
                Some(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        sender.join().expect("the sender does not panic");
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn reads_the_wakeup_flag() {
        let (producer, consumer) = ring(4, 0);
        assert!(!producer.needs_wakeup());
        consumer.parts._memory.flags.store(1, Relaxed);
        assert!(producer.needs_wakeup());
    }
}
