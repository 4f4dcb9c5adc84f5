//! From routes to the intervals of addresses that have the same answer.

use std::ops::Add;

/// Intervals, each from its address to the next one's. Addresses are of any kind of number that
/// holds all that matters of them: for most routes 64 bits do, in half the time of 128.
#[derive(Debug, Default)]
pub(super) struct Sketch<A> {
    pub starts: Vec<(A, u16)>,
    /// The routes that hold the address that the sweep has come to, the longest last: their last
    /// addresses and their values.
    open: Vec<(A, u16)>,
}

impl<A: Copy + Ord + Add<Output = A> + From<u8>> Sketch<A> {
    /// Adds the addresses from `first` to `last`, which follow those before: `base` where none of
    /// the routes is. Those are within, each from an address to an address, whatever holds another
    /// before that.
    #[inline]
    pub fn add(&mut self, first: A, last: A, base: u16, routes: impl Iterator<Item = (A, A, u16)>) {
        self.set(first, base);
        for (address, end, value) in routes {
            self.close(address, base);
            self.set(address, value);
            self.open.push((end, value));
        }
        while let Some((end, _)) = self.open.pop() {
            if end < last {
                self.set(end + A::from(1), self.open.last().map_or(base, |open| open.1));
            }
        }
    }

    /// Ends the routes that end before `address`.
    #[inline]
    fn close(&mut self, address: A, base: u16) {
        while let Some((end, _)) = self.open.pop_if(|(end, _)| *end < address) {
            self.set(end + A::from(1), self.open.last().map_or(base, |open| open.1));
        }
    }

    /// From here on it is this: of several at one address, the last counts.
    #[inline]
    fn set(&mut self, address: A, value: u16) {
        self.starts.pop_if(|(start, _)| *start == address);
        if self.starts.last().is_none_or(|last| last.1 != value) {
            self.starts.push((address, value));
        }
    }
}

/// An interval of keys: a value, or more than one below a single key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    pub key: u32,
    pub value: u16,
    /// Where below the key it changes from that: a range of the intervals, empty if nowhere.
    pub from: u32,
    pub to: u32,
}

impl Keyed {
    pub fn plain(key: u32, value: u16) -> Self {
        Self { key, value, from: 0, to: 0 }
    }

    pub fn is_child(self) -> bool {
        self.from < self.to
    }
}

/// The intervals, up to the address `last`, as 32 bits of their addresses see them, those `shift`
/// bits from the end.
pub(super) fn keyed(starts: &[(u128, u16)], last: u128, shift: u32, out: &mut Vec<Keyed>) {
    out.clear();
    let below = (1_u128 << shift) - 1;
    let key = |address: u128| (address >> shift) as u32;
    let mut at = 0;
    while let Some(&(start, value)) = starts.get(at) {
        let is_whole = start & below == 0;
        let from = at + usize::from(is_whole);
        let inside = |&(next, _): &(u128, u16)| key(next) == key(start);
        let to = match starts.get(from) {
            // Nearly always.
            next if is_whole && !next.is_some_and(inside) => from,
            _ => from + starts[from..].iter().take_while(|next| inside(next)).count(),
        };
        if from == to {
            out.push(Keyed::plain(key(start), value));
            at = to;
            continue;
        }
        // What holds at the key's first address began before, unless an interval begins there.
        let value = starts[from - 1].1;
        out.push(Keyed { key: key(start), value, from: from as u32, to: to as u32 });
        let end = start | below;
        if end < last && starts.get(to).is_none_or(|next| next.0 != end + 1) {
            out.push(Keyed::plain(key(start) + 1, starts[to - 1].1));
        }
        at = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(starts: &[(u128, u16)], expected: &[(u32, u16, usize)]) {
        let mut out = Vec::new();
        keyed(starts, 0xffff, 4, &mut out);
        let got: Vec<_> = out.iter().map(|keyed| (keyed.key, keyed.value, (keyed.to - keyed.from) as usize)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn what_changes_below_a_key_is_a_child_and_goes_on_behind_it() {
        check(&[(0, 1)], &[(0, 1, 0)]);
        check(&[(0, 1), (0x20, 2), (0x30, 1)], &[(0, 1, 0), (2, 2, 0), (3, 1, 0)]);
        check(&[(0, 1), (0x25, 2), (0x26, 1)], &[(0, 1, 0), (2, 1, 2), (3, 1, 0)]);
        check(&[(0, 1), (0x25, 2)], &[(0, 1, 0), (2, 1, 1), (3, 2, 0)]);
        check(&[(0, 1), (0x25, 2), (0x30, 3)], &[(0, 1, 0), (2, 1, 1), (3, 3, 0)]);
        check(&[(0, 1), (0x20, 2), (0x2f, 3), (0x41, 4)], &[(0, 1, 0), (2, 2, 1), (3, 3, 0), (4, 3, 1), (5, 4, 0)]);
        check(&[(0, 1), (0xffff, 2)], &[(0, 1, 0), (0xfff, 1, 1)]);
        check(&[(0, 1), (1, 2)], &[(0, 1, 1), (1, 2, 0)]);
    }
}
