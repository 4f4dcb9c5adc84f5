//! The memory that the blocks of all VRFs share, and which parts of it are free.
//!
//! Two halves. [`Memory`] is what readers hold: words in one reserved region that never moves.
//! [`Arena`] is the writer's: it cuts blocks out of the region, keeps what was replaced until
//! readers have passed, and then hands it out again. What is in a block it neither knows nor
//! clears.
//!
//! A block is 16, 32, or a multiple of 64 octets, aligned so that one of at most 64 lies in one
//! cache line. Neighbouring free lines join, and a line whose pieces are all free is a free line
//! again, so that no order of changes can leave the memory in crumbs for good. All operations
//! take constant time.
//!
//! ```text
//!  line 0        1        2                 4
//!  ├──────────┼────────┼─────────────────┼────┬──┬──┬────────┼ ─ ─
//!  │ never    │ block  │ block of 128    │ 32 │16│  │ free run of lines
//!  │ given    │ of 64  │                 │    │  │  │
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64};

use sys::Pages;

/// A moment in a writer's life: what was taken out of its tables before this can be given back
/// once all readers have passed it. Means nothing to another writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "memory comes back only when the mark is given to `reclaim`"]
pub struct Mark(pub(crate) u64);

/// What readers and the writer share: words of 64 bits, all zero at first.
#[derive(Debug)]
pub(crate) struct Memory(Pages);

impl Memory {
    /// All of it. [`Block::word`] is an index into this; there are at least [`MARGIN_WORDS`]
    /// words before and behind every block.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        self.0.as_u64()
    }

    /// The same as words of 32 bits, for tables that use no others: see [`Pages::as_u32`].
    #[inline]
    pub fn as_u32(&self) -> &[AtomicU32] {
        self.0.as_u32()
    }
}

/// Words that are in the memory, but in no block, before the first and behind the last: a reader
/// may compute an index from a block that is already another (when the owner reclaims too
/// early), and within this distance it needs no check. Those before stay zero.
pub(crate) const MARGIN_WORDS: usize = MOST_LINES * LINE_WORDS;

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins, as an index into [`Memory::words`].
    pub word: u32,
    /// How large it is.
    pub size: Size,
}

/// A size that blocks can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(u16);

impl Size {
    /// The largest block: 4 KiB.
    pub const MAX_BYTES: usize = MOST_LINES * LINE_BYTES;

    /// The smallest size that holds `bytes`, 1..=[`Size::MAX_BYTES`].
    #[inline]
    pub const fn holding(bytes: usize) -> Self {
        debug_assert!(bytes > 0 && bytes <= Self::MAX_BYTES);
        let pieces = match bytes {
            ..=16 => 1,
            17..=32 => 2,
            _ => bytes.div_ceil(LINE_BYTES) * LINE_PIECES as usize,
        };
        Self(pieces as u16)
    }

    /// In octets.
    #[inline]
    pub const fn bytes(self) -> usize {
        self.0 as usize * PIECE_BYTES
    }
}

/// The writer's half: where there is room.
#[derive(Debug)]
pub(crate) struct Arena {
    /// One for each line that was ever given.
    lines: Vec<Line>,
    /// The first of the free runs of `i + 1` lines, the last list also of longer ones; then the
    /// lines in pieces with a free half, and those with free quarters only.
    first: [u32; LISTS],
    /// Bit `i` is set when there is a free run in list `i`.
    runs: u64,
    /// Oldest first, each with the mark that will cover it.
    retired: VecDeque<(Mark, Block)>,
    next_mark: Mark,
    limit_lines: usize,
    in_use_bytes: usize,
    retired_bytes: usize,
    is_huge: bool,
}

/// What is known of a line, where it matters: at both ends of a free run, and of a line in
/// pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    state: State,
    /// Neighbours in the list that the state puts it in; [`NONE`] at the ends.
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a block of whole lines, or inside a free run.
    #[default]
    Covered,
    /// The first or last line of so many free ones.
    Free(u32),
    /// Cut into quarters, of which these four bits are free.
    Pieces(u8),
}

impl Arena {
    /// An empty arena of `bytes`, rounded down to lines, and its memory. `None` when the system
    /// refuses to reserve it, or words could not be numbered by 32 bits.
    pub fn new(bytes: usize) -> Option<(Self, Memory)> {
        let limit_lines = bytes / LINE_BYTES;
        let all_bytes = limit_lines.checked_add(2 * MOST_LINES)?.checked_mul(LINE_BYTES)?;
        u32::try_from(all_bytes / WORD_BYTES).ok()?;
        let memory = Memory(Pages::reserve(all_bytes).ok()?);
        let arena = Self {
            lines: Vec::new(),
            first: [NONE; LISTS],
            runs: 0,
            retired: VecDeque::new(),
            next_mark: Mark(0),
            limit_lines,
            in_use_bytes: 0,
            retired_bytes: 0,
            is_huge: false,
        };
        Some((arena, memory))
    }

    /// Asks for pages of 2 MiB, before anything is taken: of the last one, a part is for nothing.
    pub fn advise_huge(&mut self, memory: &Memory) {
        debug_assert!(self.lines.is_empty(), "a page that is there stays small");
        memory.0.advise_huge(0, memory.0.len());
        self.is_huge = true;
    }

    /// A block, with whatever its last owner left in it. `None` when there is no room.
    pub fn take(&mut self, size: Size) -> Option<Block> {
        let piece = if size.bytes() < LINE_BYTES {
            self.take_pieces(size)?
        } else {
            self.take_lines(size.bytes() / LINE_BYTES)? * LINE_PIECES
        };
        self.in_use_bytes += size.bytes();
        Some(Block { word: (piece * PIECE_WORDS) + MARGIN_WORDS as u32, size })
    }

    /// Gives back a block that no reader has ever seen.
    pub fn give(&mut self, block: Block) {
        self.in_use_bytes -= block.size.bytes();
        self.free(block);
    }

    /// Asks for what giving back a block will read.
    pub fn prefetch(&self, block: Block) {
        let line = (block.word as usize - MARGIN_WORDS) / LINE_WORDS;
        sys::prefetch_read(&self.lines[line]);
    }

    /// Sets a block aside that readers may still be in, but cannot find any more.
    pub fn retire(&mut self, block: Block) {
        self.in_use_bytes -= block.size.bytes();
        self.retired_bytes += block.size.bytes();
        self.retired.push_back((self.next_mark, block));
    }

    /// A mark that covers all that was retired before.
    pub fn mark(&mut self) -> Mark {
        let mark = self.next_mark;
        self.next_mark = Mark(mark.0 + 1);
        mark
    }

    /// Frees what `mark` and earlier ones cover, and returns its octets.
    pub fn reclaim(&mut self, mark: Mark) -> usize {
        let before = self.retired_bytes;
        while let Some((_, block)) = self.retired.pop_front_if(|(covered, _)| *covered <= mark) {
            self.retired_bytes -= block.size.bytes();
            self.free(block);
        }
        before - self.retired_bytes
    }

    /// Octets in blocks that are neither free nor retired.
    pub fn in_use_bytes(&self) -> usize {
        self.in_use_bytes
    }

    /// Octets in blocks that wait for [`Arena::reclaim`].
    pub fn retired_bytes(&self) -> usize {
        self.retired_bytes
    }

    /// Octets that are free, together; the largest block may be smaller.
    pub fn free_bytes(&self) -> usize {
        self.limit_bytes() - self.in_use_bytes - self.retired_bytes
    }

    /// Octets that were ever given, with the rest of a page of 2 MiB: what the memory costs.
    pub fn touched_bytes(&self) -> usize {
        let given = self.lines.len() * LINE_BYTES;
        if !self.is_huge || given == 0 {
            return given;
        }
        let end = MARGIN_WORDS * WORD_BYTES + given;
        let whole = (self.limit_bytes() + 2 * MARGIN_WORDS * WORD_BYTES) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        // What lies behind the last whole page of 2 MiB is of small ones.
        if end <= whole { end.next_multiple_of(HUGE_PAGE_BYTES) } else { end }
    }

    /// Octets in all.
    pub fn limit_bytes(&self) -> usize {
        self.limit_lines * LINE_BYTES
    }

    fn free(&mut self, block: Block) {
        let piece = (block.word - MARGIN_WORDS as u32) / PIECE_WORDS;
        let line = piece / LINE_PIECES;
        if block.size.bytes() >= LINE_BYTES {
            self.free_lines(line, u32::from(block.size.0) / LINE_PIECES);
            return;
        }
        let State::Pieces(free) = self.lines[line as usize].state else {
            unreachable!("a block below a line's size is in a line in pieces");
        };
        let mask = mask(block.size) << (piece % LINE_PIECES);
        debug_assert_eq!(free & mask, 0, "a block is given back once");
        self.set_pieces(line, free, free | mask);
    }

    /// The first of `count` lines.
    fn take_lines(&mut self, count: usize) -> Option<u32> {
        // The shortest run that is long enough.
        let list = (self.runs >> (count - 1) << (count - 1)).trailing_zeros() as usize;
        if list == u64::BITS as usize {
            // Lines never given yet, after those that are free at the end of the others.
            let end = self.lines.len();
            let run = match self.lines.last() {
                Some(&Line { state: State::Free(run), .. }) => run as usize,
                _ => 0,
            };
            let line = end - run;
            if count > self.limit_lines - line {
                return None;
            }
            if run > 0 {
                self.unlink_run(line as u32, run as u32);
            }
            self.lines.resize(line + count, Line::default());
            return Some(line as u32);
        }
        let line = self.first[list];
        let State::Free(run) = self.lines[line as usize].state else {
            unreachable!("runs begin with their length");
        };
        self.unlink_run(line, run);
        let rest = run - count as u32;
        if rest > 0 {
            self.link_run(line + count as u32, rest);
        }
        Some(line)
    }

    /// Joins the lines with the free runs before and behind them.
    fn free_lines(&mut self, line: u32, count: u32) {
        let (mut start, mut end) = (line, line + count);
        if let Some(before) = start.checked_sub(1)
            && let State::Free(run) = self.lines[before as usize].state
        {
            start -= run;
            self.unlink_run(start, run);
        }
        if let Some(&Line { state: State::Free(run), .. }) = self.lines.get(end as usize) {
            self.unlink_run(end, run);
            end += run;
        }
        self.link_run(start, end - start);
    }

    fn link_run(&mut self, line: u32, run: u32) {
        let list = run_list(run);
        self.lines[(line + run - 1) as usize].state = State::Free(run);
        self.lines[line as usize].state = State::Free(run);
        self.link(list, line);
        self.runs |= 1 << list;
    }

    fn unlink_run(&mut self, line: u32, run: u32) {
        let list = run_list(run);
        self.unlink(list, line);
        self.lines[(line + run - 1) as usize].state = State::Covered;
        self.lines[line as usize].state = State::Covered;
        if self.first[list] == NONE {
            self.runs &= !(1 << list);
        }
    }

    /// The first of so many quarters of a line, from the line that fits best.
    fn take_pieces(&mut self, size: Size) -> Option<u32> {
        let wanted = mask(size);
        let fitting = if wanted == mask(QUARTER) { self.first[QUARTERS] } else { NONE };
        let mut line = if fitting == NONE { self.first[HALVES] } else { fitting };
        let free = match self.lines.get(line as usize) {
            Some(&Line { state: State::Pieces(free), .. }) => free,
            _ => {
                line = self.take_lines(1)?;
                self.lines[line as usize].state = State::Pieces(0);
                self.set_pieces(line, 0, ALL_PIECES & !wanted);
                return Some(line * LINE_PIECES);
            }
        };
        let at = if wanted == mask(QUARTER) {
            free.trailing_zeros()
        } else if free & wanted == wanted {
            0
        } else {
            2
        };
        self.set_pieces(line, free, free & !(wanted << at));
        Some(line * LINE_PIECES + at)
    }

    /// The quarters `old` of a line were free, and `new` are.
    fn set_pieces(&mut self, line: u32, old: u8, new: u8) {
        let (old, list) = (pieces_list(old), pieces_list(new));
        if old != list {
            if let Some(old) = old {
                self.unlink(old, line);
            }
            if new == ALL_PIECES {
                self.free_lines(line, 1);
                return;
            }
            if let Some(list) = list {
                self.link(list, line);
            }
        } else if new == ALL_PIECES {
            // From half free to all free: the same list, but a whole line again.
            self.unlink(HALVES, line);
            self.free_lines(line, 1);
            return;
        }
        self.lines[line as usize].state = State::Pieces(new);
    }

    fn link(&mut self, list: usize, line: u32) {
        let next = self.first[list];
        if let Some(next) = self.lines.get_mut(next as usize) {
            next.previous = line;
        }
        let this = &mut self.lines[line as usize];
        (this.previous, this.next) = (NONE, next);
        self.first[list] = line;
    }

    fn unlink(&mut self, list: usize, line: u32) {
        let Line { previous, next, .. } = self.lines[line as usize];
        match self.lines.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.first[list] = next,
        }
        if let Some(next) = self.lines.get_mut(next as usize) {
            next.previous = previous;
        }
    }
}

fn run_list(run: u32) -> usize {
    (run as usize).min(MOST_LINES) - 1
}

fn pieces_list(free: u8) -> Option<usize> {
    if free == 0 {
        None
    } else if free & 0b0011 == 0b0011 || free & 0b1100 == 0b1100 {
        Some(HALVES)
    } else {
        Some(QUARTERS)
    }
}

/// The first quarters of a line that a block below its size takes.
fn mask(size: Size) -> u8 {
    (1 << size.0) - 1
}

const HUGE_PAGE_BYTES: usize = 2 << 20;
const WORD_BYTES: usize = size_of::<AtomicU64>();
const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / WORD_BYTES;
const PIECE_BYTES: usize = 16;
const PIECE_WORDS: u32 = (PIECE_BYTES / WORD_BYTES) as u32;
const LINE_PIECES: u32 = (LINE_BYTES / PIECE_BYTES) as u32;
const ALL_PIECES: u8 = 0b1111;
const QUARTER: Size = Size::holding(PIECE_BYTES);
/// Lines in the largest block; as many lists as a u64 has bits.
const MOST_LINES: usize = 64;
const HALVES: usize = MOST_LINES;
const QUARTERS: usize = MOST_LINES + 1;
const LISTS: usize = MOST_LINES + 2;
/// No line.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        /// One of the blocks there are, the index modulo their number.
        Give(usize),
        Retire(usize),
        Mark,
        Reclaim,
    }

    fn bytes() -> impl Strategy<Value = usize> {
        prop_oneof![Just(16_usize), 17..=32_usize, Just(64), 1..=512_usize, 1..=Size::MAX_BYTES]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => bytes().prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::Give),
            2 => any::<usize>().prop_map(Step::Retire),
            1 => Just(Step::Mark),
            1 => Just(Step::Reclaim),
        ]
    }

    /// The blocks that may not be given again, by where they begin.
    #[derive(Default)]
    struct Held(std::collections::BTreeMap<u32, Block>);

    impl Held {
        fn add(&mut self, block: Block) {
            let first = block.word as usize;
            let bytes = block.size.bytes();
            assert_eq!(first * 8 % bytes.min(64), 0, "{block:?} is not aligned");
            if let Some((_, before)) = self.0.range(..=block.word).next_back() {
                assert!(before.word as usize + before.size.bytes() / 8 <= first, "{before:?} reaches into {block:?}");
            }
            if let Some((_, after)) = self.0.range(block.word..).next() {
                assert!(first + bytes / 8 <= after.word as usize, "{block:?} reaches into {after:?}");
            }
            self.0.insert(block.word, block);
        }

        fn bytes(&self) -> usize {
            self.0.values().map(|block| block.size.bytes()).sum()
        }
    }

    proptest! {
        /// Blocks never overlap and lie within the margins, whatever is given back and when; the
        /// counts are right after every step; and in the end the whole arena is one run again.
        #[test]
        fn gives_no_octet_twice_and_loses_none(lines in 1..200_usize, steps in vec(step(), 1..300)) {
            let (mut arena, memory) = Arena::new(lines * LINE_BYTES).unwrap();
            let mut held = Held::default();
            let (mut live, mut marks) = (Vec::new(), Vec::new());
            let mut waiting: Vec<(Option<Mark>, Block)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(bytes) => if let Some(block) = arena.take(Size::holding(bytes)) {
                        prop_assert!(block.size.bytes() >= bytes && block.size.bytes() < bytes + 64);
                        prop_assert!(block.word as usize >= MARGIN_WORDS);
                        prop_assert!(block.word as usize + block.size.bytes() / 8 + MARGIN_WORDS <= memory.words().len());
                        held.add(block);
                        live.push(block);
                    },
                    Step::Give(_) | Step::Retire(_) if live.is_empty() => {}
                    Step::Give(index) => {
                        let block = live.swap_remove(index % live.len());
                        held.0.remove(&block.word);
                        arena.give(block);
                    }
                    Step::Retire(index) => {
                        let block = live.swap_remove(index % live.len());
                        waiting.push((None, block));
                        arena.retire(block);
                    }
                    Step::Mark => {
                        let mark = arena.mark();
                        for (covered, _) in &mut waiting {
                            covered.get_or_insert(mark);
                        }
                        marks.push(mark);
                    }
                    Step::Reclaim => if !marks.is_empty() {
                        let mark = marks.remove(0);
                        let freed: Vec<_> = waiting.extract_if(.., |(covered, _)| *covered == Some(mark)).collect();
                        for (_, block) in &freed {
                            held.0.remove(&block.word);
                        }
                        let bytes: usize = freed.iter().map(|(_, block)| block.size.bytes()).sum();
                        prop_assert_eq!(arena.reclaim(mark), bytes);
                    },
                }
                prop_assert_eq!(arena.in_use_bytes() + arena.retired_bytes(), held.bytes());
                prop_assert_eq!(arena.in_use_bytes(), live.iter().map(|block| block.size.bytes()).sum::<usize>());
            }
            for block in live {
                arena.give(block);
            }
            let mark = arena.mark();
            arena.reclaim(mark);
            prop_assert_eq!(arena.free_bytes(), lines * LINE_BYTES);
            let most = lines.min(MOST_LINES);
            prop_assert!(arena.take(Size::holding(most * LINE_BYTES)).is_some());
            for _ in 0..(lines - most) * 4 {
                prop_assert!(arena.take(QUARTER).is_some());
            }
            prop_assert_eq!(arena.free_bytes(), 0);
        }
    }

    #[test]
    fn what_was_cut_small_can_be_had_large_again() {
        let (mut arena, _memory) = Arena::new(100 * LINE_BYTES).unwrap();
        let quarters: Vec<_> = std::iter::from_fn(|| arena.take(QUARTER)).collect();
        assert_eq!(quarters.len(), 400);
        // Odd ones first, so that no two neighbours are free until the even ones come.
        for parity in [1, 0] {
            assert_eq!(arena.take(Size::holding(64)), None);
            for block in quarters.iter().skip(parity).step_by(2) {
                arena.give(*block);
            }
        }
        let large = arena.take(Size::holding(Size::MAX_BYTES)).unwrap();
        assert_eq!(arena.take(Size::holding(36 * LINE_BYTES)).map(|block| block.size.bytes()), Some(36 * LINE_BYTES));
        assert_eq!(arena.take(QUARTER), None);
        assert_eq!(large.size.bytes(), Size::MAX_BYTES);
    }

    #[test]
    fn more_than_can_be_numbered_is_refused() {
        assert!(Arena::new(usize::MAX).is_none());
        assert!(Arena::new(33 << 30).is_none());
    }
}
