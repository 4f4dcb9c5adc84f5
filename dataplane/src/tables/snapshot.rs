//! How a snapshot is published, read and known to be read no more.
//!
//! A reader costs one load per poll while nothing changes. Publishing takes a lock that readers take too, but
//! only in the poll that finds a new version.

use super::sync::{Arc, AtomicU64, Mutex, MutexGuard, fence};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::*;

/// The writing end: one per table.
#[derive(Debug)]
pub struct Published<T> {
    shared: Arc<Shared<T>>,
}

/// A reader: one per worker.
#[derive(Debug)]
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    seen: Arc<AtomicU64>,
    version: u64,
    current: Arc<T>,
}

#[derive(Debug)]
struct Shared<T> {
    version: AtomicU64,
    slot: Mutex<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    current: Arc<T>,
    readers: Vec<Arc<AtomicU64>>,
}

/// What a reader that holds nothing has seen: every version there will be.
const AT_REST: u64 = u64::MAX;

/// Publishes a first value.
pub fn published<T>(first: T) -> Published<T> {
    let slot = Mutex::new(Slot { current: Arc::new(first), readers: Vec::new() });
    Published { shared: Arc::new(Shared { version: AtomicU64::new(1), slot }) }
}

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        // A panic elsewhere cannot leave the slot half changed: both fields are replaced whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Published<T> {
    /// Replaces the value; returns the version to ask [`Self::passed`] for.
    pub fn publish(&self, next: T) -> u64 {
        let mut slot = self.shared.slot();
        slot.current = Arc::new(next);
        // Under the lock, so that versions and values keep step. SeqCst pairs with the fence of a waking reader.
        self.shared.version.fetch_add(1, SeqCst) + 1
    }

    /// A new version of the same value: for a change made in place. Returns the version to ask [`Self::passed`] for.
    pub fn mark(&self) -> u64 {
        let _slot = self.shared.slot();
        self.shared.version.fetch_add(1, SeqCst) + 1
    }

    /// The value that a reader would get now.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.shared.slot().current)
    }

    /// Whether no reader can still use a value older than `version`, nor what it read before then from tables that
    /// change in place.
    pub fn passed(&self, version: u64) -> bool {
        fence(SeqCst);
        self.shared.slot().readers.iter().all(|seen| seen.load(SeqCst) >= version)
    }

    /// A new reader, at rest until its first load.
    pub fn reader(&self) -> Reader<T> {
        let seen = Arc::new(AtomicU64::new(AT_REST));
        let mut slot = self.shared.slot();
        slot.readers.push(Arc::clone(&seen));
        Reader { shared: Arc::clone(&self.shared), seen, version: 0, current: Arc::clone(&slot.current) }
    }
}

impl<T> Reader<T> {
    /// The newest value. Once per poll: whatever was read before counts as done with.
    #[inline(always)]
    pub fn load(&mut self) -> &T {
        if self.shared.version.load(Acquire) != self.version {
            self.renew();
        }
        &self.current
    }

    #[cold]
    fn renew(&mut self) {
        let slot = self.shared.slot();
        self.version = self.shared.version.load(Relaxed);
        self.current = Arc::clone(&slot.current);
        // Under the lock: a reader that was at rest would else hold what a writer takes for passed.
        self.seen.store(self.version, SeqCst);
        drop(slot);
    }

    /// The worker is about to sleep and holds nothing: nobody waits for it.
    pub fn rest(&mut self) {
        self.seen.store(AT_REST, SeqCst);
    }

    /// The worker is awake: from here on it may read. The fence comes before its first read, so that a writer that
    /// saw it at rest has made its change visible to it.
    pub fn wake(&mut self) {
        self.seen.store(self.version, SeqCst);
        fence(SeqCst);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.shared.slot().readers.retain(|seen| !Arc::ptr_eq(seen, &self.seen));
    }
}
