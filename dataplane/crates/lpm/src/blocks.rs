//! Which blocks are free, in use, or waiting for readers to pass.

use std::collections::VecDeque;

use crate::Mark;

/// The bookkeeping of the blocks; their contents are in the table.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// For each block ever used: what keeps it, prefixes that end in it and blocks below it.
    kept_by: Vec<u16>,
    free: Vec<u32>,
    /// Oldest first, each with the mark that will cover it.
    retired: VecDeque<(Mark, u32)>,
    next_mark: Mark,
    limit: usize,
}

impl Blocks {
    pub fn new(limit: usize) -> Self {
        Self {
            // Block 0 is the one that stays empty.
            kept_by: vec![0],
            free: Vec::new(),
            retired: VecDeque::new(),
            next_mark: Mark(0),
            limit,
        }
    }

    /// `None` when all are in use or retired. What the block held is still in it.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        if self.ever_used() == self.limit {
            return None;
        }
        let block = u32::try_from(self.kept_by.len()).expect("the limit is below 2^31");
        self.kept_by.push(0);
        Some(block)
    }

    /// Sets a block aside that no entry points to any more.
    pub fn retire(&mut self, block: u32) {
        self.kept_by[block as usize] = 0;
        self.retired.push_back((self.next_mark, block));
    }

    /// One more prefix or block in `block`.
    pub fn keep(&mut self, block: u32) {
        self.kept_by[block as usize] += 1;
    }

    /// One less; true when nothing is left that keeps it.
    pub fn release(&mut self, block: u32) -> bool {
        let kept_by = &mut self.kept_by[block as usize];
        *kept_by -= 1;
        *kept_by == 0
    }

    pub fn mark(&mut self) -> Mark {
        let mark = self.next_mark;
        self.next_mark = Mark(mark.0 + 1);
        mark
    }

    /// Returns how many came back.
    pub fn reclaim(&mut self, mark: Mark) -> usize {
        let passed = self.retired.partition_point(|&(covered, _)| covered <= mark);
        self.free.extend(self.retired.drain(..passed).map(|(_, block)| block));
        passed
    }

    pub fn available(&self) -> usize {
        self.limit - self.ever_used() + self.free.len()
    }

    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    pub fn in_use(&self) -> usize {
        self.ever_used() - self.free.len() - self.retired.len()
    }

    pub fn ever_used(&self) -> usize {
        self.kept_by.len() - 1
    }

    pub fn limit(&self) -> usize {
        self.limit
    }
}
