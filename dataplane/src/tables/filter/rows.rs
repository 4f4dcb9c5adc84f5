//! Rows of bits, and the tables that say which row is a packet's.

/// Bits that are looked at in one step.
pub const GROUP: usize = 4 * WORD;
/// Bits of a word.
pub const WORD: usize = 64;

/// Some bits of a row.
pub type Group = [u64; 4];

/// The rows of one thing that rules ask for, by class.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Groups that each row has.
    width: usize,
    groups: Box<[Group]>,
    /// By row: which of its groups are not empty.
    summaries: Box<[u64]>,
}

/// One row: which of its groups are not empty, and all of them.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    summary: u64,
    groups: &'a [Group],
}

impl Rows {
    /// Rules that a row has bits for at most: a summary has 64 bits.
    pub const MOST: usize = 64 * GROUP;

    /// Of rows with `width` groups each.
    pub fn new(width: usize, groups: Vec<Group>) -> Self {
        let summary = |row: &[Group]| {
            let full = row.iter().enumerate().filter(|(_, group)| **group != [0; 4]);
            full.fold(0, |summary, (at, _)| summary | 1 << at)
        };
        let summaries = groups.chunks(width).map(summary).collect();
        Self { width, groups: groups.into(), summaries }
    }

    /// The row of a class.
    #[inline(always)]
    pub fn row(&self, class: u16) -> Row<'_> {
        let at = usize::from(class);
        Row { summary: self.summaries[at], groups: &self.groups[at * self.width..][..self.width] }
    }

    /// The row of a class where rows have one group.
    #[inline(always)]
    pub fn only(&self, class: u16) -> &Group {
        &self.groups[usize::from(class)]
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.summaries.len()
    }

    /// By class.
    pub fn groups(&self, class: usize) -> &[Group] {
        &self.groups[class * self.width..][..self.width]
    }
}

/// The lowest bit that all rows have in these groups.
#[inline(always)]
pub fn first<const N: usize>(rows: &[Row<'_>; N], groups: u64) -> Option<usize> {
    let mut candidates = rows.iter().fold(groups, |all, row| all & row.summary);
    while candidates != 0 {
        let at = candidates.trailing_zeros() as usize;
        let words = rows.iter().fold([u64::MAX; 4], |all, row| both(&all, &row.groups[at]));
        if words[0] | words[1] | words[2] | words[3] != 0 {
            return Some(at * GROUP + lowest(&words));
        }
        candidates &= candidates - 1;
    }
    None
}

/// The bits that both have.
#[inline(always)]
pub fn both(one: &Group, other: &Group) -> Group {
    std::array::from_fn(|word| one[word] & other[word])
}

/// The lowest bit of a group; [`GROUP`] if it has none.
#[inline(always)]
pub fn lowest(words: &Group) -> usize {
    // Which word is anybody's guess: this way there is nothing to be guessed wrong.
    let half = 2 * usize::from(words[0] | words[1] == 0);
    let word = half + usize::from(words[half] == 0);
    word * 64 + words[word].trailing_zeros() as usize
}

/// A pair of classes to the class of both.
#[derive(Clone, Debug)]
pub struct Fold {
    width: usize,
    classes: Box<[u16]>,
}

impl Fold {
    /// `classes` has a line for each first class, with `width` second ones.
    pub fn new(width: usize, classes: Vec<u16>) -> Self {
        Self { width, classes: classes.into() }
    }

    /// The class of both.
    #[inline(always)]
    pub fn class(&self, first: u16, second: u16) -> u16 {
        self.classes[usize::from(first) * self.width + usize::from(second)]
    }
}

/// Ports to classes. Most pages of 256 ports are alike, so that what is read often stays in the nearest cache.
#[derive(Clone, Debug)]
pub struct PortClasses {
    pages: Box<[u8; 256]>,
    classes: Box<[[u16; 256]]>,
    /// The class of packets without ports.
    none: u16,
}

impl PortClasses {
    /// Of the class of each port, and of packets without ports.
    pub fn new(classes: &[u16], none: u16) -> Self {
        let mut pages: Vec<[u16; 256]> = Vec::new();
        let mut index = Box::new([0; 256]);
        for (slot, page) in index.iter_mut().zip(classes.chunks_exact(256)) {
            let found = pages.iter().position(|other| other == page).unwrap_or_else(|| {
                pages.push(std::array::from_fn(|at| page[at]));
                pages.len() - 1
            });
            // There are 256 pages, so the last has number 255.
            *slot = found as u8;
        }
        Self { pages: index, classes: pages.into(), none }
    }

    /// The class of a port.
    #[inline(always)]
    pub fn class(&self, port: u16) -> u16 {
        let [page, at] = port.to_be_bytes();
        self.classes[usize::from(self.pages[usize::from(page)])][usize::from(at)]
    }

    /// The class of packets without ports.
    #[inline(always)]
    pub const fn none(&self) -> u16 {
        self.none
    }
}
