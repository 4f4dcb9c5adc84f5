//! A worker's own free chunks.

use crate::frame::Frame;
use crate::umem::{Chunk, Umem};

/// A last-in-first-out stack of free chunks (the warm ones first), which exchanges with the UMEM's
/// depot in bulk: the lock is taken once per `low` chunks, and nothing is allocated after the start.
///
/// Belongs to one worker. Dropping it gives its chunks to the depot.
pub struct Pool {
    umem: Umem,
    free: Vec<Chunk>,
    low: usize,
    high: usize,
}

impl Pool {
    /// An empty pool: brings in up to `low` chunks when it runs out, and hands over all above `low`
    /// when it has `high`.
    ///
    /// # Panics
    ///
    /// Unless `0 < low < high`.
    pub fn new(umem: &Umem, low: usize, high: usize) -> Self {
        assert!(0 < low && low < high, "a pool needs 0 < low ({low}) < high ({high})");
        Self { umem: *umem, free: Vec::with_capacity(high), low, high }
    }

    /// A frame of one chunk and no octets, its data at the position where received packets start.
    /// `None` when pool and depot are empty.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let chunk = self.take_chunk()?;
        Some(chunk.into_frame(self.umem.chunk_size()))
    }

    /// A frame with a copy of `octets`, in as many chunks as they need. `None`, and nothing taken,
    /// when there are too few. For tests, captures and control traffic.
    pub fn frame_of(&mut self, octets: &[u8]) -> Option<Frame> {
        let mut frame = self.take()?;
        let mut rest = octets;
        loop {
            let (now, later) = rest.split_at(rest.len().min(frame.tailroom()));
            let fits = frame.extend(now);
            debug_assert!(fits, "cut to the tailroom");
            rest = later;
            if rest.is_empty() {
                return Some(frame);
            }
            match self.take() {
                Some(next) => frame.chain(next),
                None => {
                    self.put(frame);
                    return None;
                }
            }
        }
    }

    /// Takes a frame back, the whole chain. An empty frame is nothing.
    ///
    /// # Panics
    ///
    /// If the frame is of another UMEM.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        let mut rest = frame;
        while let Some(chunk) = rest.pop_chunk() {
            assert!(self.umem.owns(chunk.0), "a frame goes back to its own UMEM");
            self.put_chunk(chunk);
        }
    }

    /// How many chunks it holds.
    #[inline]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The memory its chunks are of.
    #[inline]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    #[inline]
    pub(crate) fn take_chunk(&mut self) -> Option<Chunk> {
        if self.free.is_empty() {
            self.restock();
        }
        self.free.pop()
    }

    /// The chunk must be of this pool's UMEM.
    #[inline]
    pub(crate) fn put_chunk(&mut self, chunk: Chunk) {
        debug_assert!(self.umem.owns(chunk.0));
        if self.free.len() == self.high {
            self.hand_over();
        }
        self.free.push(chunk);
    }

    #[cold]
    fn restock(&mut self) {
        let mut depot = self.umem.depot();
        let from = depot.len().saturating_sub(self.low);
        self.free.extend(depot.drain(from..));
    }

    #[cold]
    fn hand_over(&mut self) {
        // From the bottom: what lies there is cold, what was put last is still in the cache.
        self.umem.depot().extend(self.free.drain(..self.high - self.low));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.umem.depot().append(&mut self.free);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("free", &self.free.len())
            .field("low", &self.low)
            .field("high", &self.high)
            .finish()
    }
}
