//! Who has the next turn: numbers in a ring, so that those who come after are known long before.
//!
//! Nothing is taken out of the middle. Who owns an entry knows that it stands there, and whether it still means something.

use super::list::NIL;

/// Leaves in the order of their turns, each at most once.
#[derive(Clone, Debug)]
pub struct Ring {
    /// A power of two.
    places: Box<[u32]>,
    head: u32,
    tail: u32,
}

impl Ring {
    /// For so many.
    pub fn new(most: usize) -> Self {
        Self { places: vec![NIL; most.next_power_of_two()].into(), head: 0, tail: 0 }
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// How many there are.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    /// The one that has its turn `turns` after the first; the last if there are not so many, any number if there is none.
    #[inline(always)]
    pub fn ahead(&self, turns: u32) -> u32 {
        let last = self.tail.wrapping_sub(self.head).wrapping_sub(1);
        self.places[self.place(self.head.wrapping_add(turns.min(last)))]
    }

    /// The first; any number if there is none.
    #[inline(always)]
    pub fn first(&self) -> u32 {
        self.ahead(0)
    }

    /// Adds one at the end.
    #[inline(always)]
    pub fn push(&mut self, leaf: u32) {
        let place = self.place(self.tail);
        self.places[place] = leaf;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the first out.
    #[inline(always)]
    pub const fn pop(&mut self) {
        self.head = self.head.wrapping_add(1);
    }

    /// The first becomes the last.
    #[inline(always)]
    pub fn rotate(&mut self) {
        let first = self.first();
        self.pop();
        self.push(first);
    }

    #[inline(always)]
    const fn place(&self, at: u32) -> usize {
        at as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against a deque, full and across the wrap.
        #[test]
        fn keeps_the_order_of_turns(most in 1..20_usize, steps in vec(0..3_u8, 1..200)) {
            let (mut ring, mut model) = (Ring::new(most), VecDeque::new());
            (ring.head, ring.tail) = (u32::MAX - 30, u32::MAX - 30);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0 if model.len() < most => {
                        ring.push(number as u32);
                        model.push_back(number as u32);
                    }
                    1 if !model.is_empty() => {
                        ring.pop();
                        model.pop_front();
                    }
                    2 if !model.is_empty() => {
                        ring.rotate();
                        model.rotate_left(1);
                    }
                    _ => {}
                }
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(model.iter().enumerate().all(|(at, leaf)| ring.ahead(at as u32) == *leaf));
                prop_assert!(model.back().is_none_or(|last| ring.ahead(model.len() as u32 + 3) == *last));
            }
        }
    }
}
