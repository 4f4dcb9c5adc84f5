//! Walking a chain.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use super::{Frame, Link};

/// The data of a frame, chunk by chunk. See [`Frame::segments`].
pub struct Segments<'a> {
    chunk: NonNull<u8>,
    offset: u16,
    len: u16,
    left: usize,
    frame: PhantomData<&'a Frame>,
}

impl<'a> Segments<'a> {
    #[inline]
    pub(super) fn of(frame: &'a Frame) -> Self {
        Self { chunk: frame.chunk, offset: frame.offset, len: frame.len, left: frame.chunks(), frame: PhantomData }
    }

    /// Start and length of the next chunk's data.
    #[inline]
    pub(super) fn step(&mut self) -> Option<(NonNull<u8>, usize)> {
        if self.left == 0 {
            return None;
        }
        // SAFETY: offset + len is within the chunk, an invariant of `Frame` and `Link`.
        let start = unsafe { self.chunk.add(self.offset as usize) };
        let len = self.len as usize;
        self.left -= 1;
        if self.left > 0 {
            // SAFETY: every chunk of the chain but the last has a valid link.
            let link = unsafe { self.chunk.cast::<Link>().read() };
            self.chunk = link.next;
            self.offset = link.offset;
            self.len = link.len;
        }
        Some((start, len))
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (start, len) = self.step()?;
        // SAFETY: inside a chunk of the frame that is borrowed for 'a; nobody writes meanwhile.
        Some(unsafe { slice::from_raw_parts(start.as_ptr(), len) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Segments<'_> {}
