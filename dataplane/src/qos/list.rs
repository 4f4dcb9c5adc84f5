//! Lists through the elements of a slice: what is in one can be taken out of its middle.

/// No element.
pub const NIL: u32 = u32::MAX;

/// The neighbours of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The one before.
    pub previous: u32,
    /// The one after.
    pub next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { previous: NIL, next: NIL }
    }
}

/// What can be in a list, or in several: `KIND` tells which of its links.
pub trait Linked<const KIND: usize> {
    /// The neighbours in lists of that kind.
    fn link(&mut self) -> &mut Link;
}

impl Linked<0> for Link {
    #[inline(always)]
    fn link(&mut self) -> &mut Link {
        self
    }
}

/// A list of elements of a slice. An element is in at most one list of a kind; whoever owns it knows in which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<const KIND: usize = 0> {
    /// The first.
    pub head: u32,
    /// The last.
    pub tail: u32,
}

impl<const KIND: usize> Default for List<KIND> {
    fn default() -> Self {
        Self { head: NIL, tail: NIL }
    }
}

impl<const KIND: usize> List<KIND> {
    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Whether there is one and no other.
    #[inline(always)]
    pub const fn is_single(&self) -> bool {
        self.head == self.tail && self.head != NIL
    }

    /// Adds an element that is in no list of this kind.
    #[inline(always)]
    pub fn push<T: Linked<KIND>>(&mut self, elements: &mut [T], at: u32) {
        *elements[at as usize].link() = Link { previous: self.tail, next: NIL };
        if self.tail == NIL {
            self.head = at;
        } else {
            elements[self.tail as usize].link().next = at;
        }
        self.tail = at;
    }

    /// Takes an element of this list out.
    #[inline(always)]
    pub fn remove<T: Linked<KIND>>(&mut self, elements: &mut [T], at: u32) {
        let Link { previous, next } = std::mem::take(elements[at as usize].link());
        if previous == NIL {
            self.head = next;
        } else {
            elements[previous as usize].link().next = next;
        }
        if next == NIL {
            self.tail = previous;
        } else {
            elements[next as usize].link().previous = previous;
        }
    }

    /// The first becomes the last.
    #[inline(always)]
    pub fn rotate<T: Linked<KIND>>(&mut self, elements: &mut [T]) {
        if self.head != self.tail {
            let first = self.head;
            self.remove(elements, first);
            self.push(elements, first);
        }
    }
}
