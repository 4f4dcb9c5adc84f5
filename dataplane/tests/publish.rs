//! The order in which tables are published, read, and given back, in thousands of interleavings of threads (shuttle).
//!
//! What is published stands for a table that changes in place: readers meet memory that is given back only if the order is
//! wrong. The file under test is compiled here a second time, over shuttle's threads and locks.
#![forbid(unsafe_code)]

mod sync {
    pub use shuttle::sync::atomic::{AtomicU64, fence};
    pub use shuttle::sync::{Arc, Mutex, MutexGuard};
}

#[path = "../src/tables/snapshot.rs"]
#[expect(dead_code, reason = "the readers here need no more")]
mod snapshot;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::thread;
use snapshot::published;
use sync::Arc;

/// Memory that a table points into.
#[derive(Clone, Debug)]
struct Block {
    given_back: Arc<AtomicBool>,
}

impl Block {
    fn new() -> Self {
        Self { given_back: Arc::new(AtomicBool::new(false)) }
    }
}

/// A writer replaces what is published and, once every reader has passed, gives back what was there before. Readers
/// load once per round, use what they loaded for a while, and sleep now and then.
fn storm() {
    let table = published(Block::new());
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let mut reader = table.reader();
            thread::spawn(move || {
                for _ in 0..4 {
                    let block = reader.load().clone();
                    for _ in 0..2 {
                        assert!(!block.given_back.load(SeqCst), "a reader met memory that had been given back");
                        thread::yield_now();
                    }
                    if thread_rng().r#gen() {
                        reader.rest();
                        thread::yield_now();
                        reader.wake();
                    }
                }
                reader.rest();
            })
        })
        .collect();
    for _ in 0..3 {
        let before = table.current();
        let version = table.publish(Block::new());
        while !table.passed(version) {
            thread::yield_now();
        }
        before.given_back.store(true, SeqCst);
    }
    readers.into_iter().for_each(|reader| reader.join().expect("no reader panicked"));
}

#[test]
fn nothing_is_given_back_that_a_reader_still_uses() {
    shuttle::check_random(storm, 2_000);
    shuttle::check_pct(storm, 1_000, 3);
}
