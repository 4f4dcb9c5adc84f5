//! Exclusive ownership of a packet's memory.

use std::mem;
use std::ptr::NonNull;
use std::slice;

use crate::umem::{Chunk, ChunkSize};

mod segments;

pub use segments::Segments;

/// Sole ownership of one packet's memory: a chunk, or for jumbo frames a chain of them, the headers in
/// the first.
///
/// Not `Clone`: a chunk is in a pool, in a ring, or in one frame, and the borrow checker knows which.
/// A frame must be put into a [`Pool`](crate::Pool) or sent; dropping one that owns a chunk is our own
/// mistake, and a debug build panics. (A release build loses the chunk, and the account shows it.)
#[must_use = "a frame that is not put back is lost to its pool"]
pub struct Frame {
    /// The first chunk. Its first [`LINK`] octets describe the next chunk if `more > 0`.
    chunk: NonNull<u8>,
    /// Where in the first chunk its data starts: `LINK..=size`.
    offset: u16,
    /// Octets of data in the first chunk: `offset + len <= size`.
    len: u16,
    /// Chunks after the first.
    more: u16,
    /// Octets of a chunk; 0 if this frame owns none.
    size: u16,
}

/// What a chunk's first octets say about the next chunk of the chain.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link {
    next: NonNull<u8>,
    offset: u16,
    len: u16,
}

/// Octets at the start of each chunk that hold the link and never data.
pub(crate) const LINK: usize = 16;
const _: () = assert!(size_of::<Link>() <= LINK && size_of::<Frame>() == 16);

// SAFETY: a frame owns its chunks: no other frame, pool, ring or thread reaches that memory, which is
// never unmapped. So it may move to another thread, and shared references only read.
unsafe impl Send for Frame {}
// SAFETY: as above: `&Frame` gives only `&[u8]`.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame that owns nothing: what a recycled packet holds.
    #[inline]
    pub const fn empty() -> Self {
        Self { chunk: NonNull::dangling(), offset: 0, len: 0, more: 0, size: 0 }
    }

    /// One chunk whose data is `len` octets from `offset` on.
    #[inline]
    pub(crate) fn new(chunk: Chunk, offset: u16, len: u16, size: ChunkSize) -> Self {
        let size = size.octets() as u16;
        debug_assert!(LINK <= offset as usize && offset as usize + len as usize <= size as usize);
        Self { chunk: chunk.0, offset, len, more: 0, size }
    }

    /// Whether it owns no chunk. (A frame of zero octets may own one.)
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Moves the frame out and leaves an empty one.
    #[inline]
    pub fn take(&mut self) -> Frame {
        mem::replace(self, Frame::empty())
    }

    /// The data of the first chunk: all headers.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: offset + len <= size, so this is inside the chunk that the frame owns (or of length
        // zero at a dangling pointer). The memory was zeroed when it was mapped, so it is initialised;
        // nobody writes to it while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.chunk.as_ptr().wrapping_add(self.offset as usize), self.len as usize) }
    }

    /// The data of the first chunk.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference.
        unsafe { self.part_mut(self.offset, self.len) }
    }

    /// Makes `n` octets of room before the data and returns them; their content is arbitrary. `None`
    /// if the first chunk has not that much headroom.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() {
            return None;
        }
        // At most 4,096, by the line above; so the casts are exact and the sums fit.
        self.offset -= n as u16;
        self.len += n as u16;
        // SAFETY: offset >= LINK still, and offset + len is what it was.
        Some(unsafe { self.part_mut(self.offset, n as u16) })
    }

    /// The `n` octets before the data: what [`Self::advance`] took off and nothing has been put over since. `None` if the
    /// first chunk has not that much headroom.
    #[inline]
    pub fn before(&self, n: usize) -> Option<&[u8]> {
        if n > self.headroom() {
            return None;
        }
        // SAFETY: as in `bytes`; n is at most the offset less LINK, so this stays behind the link.
        Some(unsafe { slice::from_raw_parts(self.chunk.as_ptr().wrapping_add(self.offset as usize - n), n) })
    }

    /// Takes `n` octets off the front of the first chunk; `false`, and nothing changed, if it has not
    /// that many.
    #[inline]
    pub fn advance(&mut self, n: usize) -> bool {
        if n > self.len as usize {
            return false;
        }
        self.offset += n as u16;
        self.len -= n as u16;
        true
    }

    /// Cuts the data of the whole chain to its first `total` octets; `false`, and nothing changed, if
    /// there are fewer. Chunks past the end stay in the chain with no data, and go back to a pool with it.
    #[inline]
    pub fn set_len(&mut self, total: usize) -> bool {
        if self.more == 0 {
            let fits = total <= self.len as usize;
            if fits {
                self.len = total as u16;
            }
            return fits;
        }
        self.set_len_of_chain(total)
    }

    /// Makes `n` octets of room after the data of the last chunk and returns them; their content is
    /// arbitrary. `None` if there is not that much tailroom.
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let n = n as u16; // at most a chunk, by the line above
        if self.more == 0 {
            let at = self.offset + self.len;
            self.len += n;
            // SAFETY: at + n <= size, because n is within the tailroom.
            return Some(unsafe { self.part_mut(at, n) });
        }
        let before = self.link_to_last();
        // SAFETY: `before` is the second to last chunk of this chain, so its link is valid and ours.
        let mut link = unsafe { before.read() };
        let at = link.offset + link.len;
        link.len += n;
        // SAFETY: as above; the first LINK octets of a chunk hold no data, so no slice covers them.
        unsafe { before.write(link) };
        // SAFETY: at + n <= size, and the last chunk is this frame's own; `&mut self` is held.
        Some(unsafe { slice::from_raw_parts_mut(link.next.as_ptr().add(at as usize), n as usize) })
    }

    /// Appends a copy of `octets` to the last chunk; `false`, and nothing changed, if its tailroom is
    /// too small.
    #[inline]
    pub fn extend(&mut self, octets: &[u8]) -> bool {
        match self.append(octets.len()) {
            Some(room) => {
                room.copy_from_slice(octets);
                true
            }
            None => false,
        }
    }

    /// Puts the chunks of `tail` after the own ones.
    ///
    /// # Panics
    ///
    /// If the chain would exceed 65,536 chunks, or the two are of UMEMs with different chunk sizes.
    pub fn chain(&mut self, mut tail: Frame) {
        if tail.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = tail;
            return;
        }
        // Tailroom is reckoned by the first chunk's size, so it must hold for all.
        assert_eq!(self.size, tail.size, "a chain is of one UMEM");
        let more = u16::try_from(self.more as usize + tail.chunks());
        self.more = more.expect("a packet of 65,536 chunks cannot be received or made");
        let link = Link { next: tail.chunk, offset: tail.offset, len: tail.len };
        let added = tail.chunks();
        mem::forget(tail.take());
        let mut last = self.chunk;
        for _ in 0..self.more as usize - added {
            // SAFETY: every chunk of this chain but the last has a valid link.
            last = unsafe { last.cast::<Link>().read() }.next;
        }
        // SAFETY: `last` is a chunk of this frame, aligned to its size, and its first LINK octets hold
        // no data. The tail's chunks are owned by `self` from here on: `tail` was forgotten.
        unsafe { last.cast::<Link>().write(link) };
    }

    /// The first chunk, and the rest of the chain.
    pub fn split(mut self) -> (Frame, Option<Frame>) {
        if self.more == 0 {
            return (self, None);
        }
        // SAFETY: more > 0, so the first chunk's link is valid.
        let link = unsafe { self.chunk.cast::<Link>().read() };
        let rest = Frame { chunk: link.next, offset: link.offset, len: link.len, more: self.more - 1, size: self.size };
        self.more = 0;
        (self, Some(rest))
    }

    /// How many chunks it owns: as many descriptors as it takes on a ring.
    #[inline]
    pub const fn chunks(&self) -> usize {
        if self.size == 0 { 0 } else { self.more as usize + 1 }
    }

    /// Octets of data in the whole chain.
    #[inline]
    pub fn total(&self) -> usize {
        if self.more == 0 {
            return self.len as usize;
        }
        self.segments().map(<[u8]>::len).sum()
    }

    /// Octets that [`Frame::prepend`] can give.
    #[inline]
    pub const fn headroom(&self) -> usize {
        // An empty frame has offset 0; all others at least LINK.
        (self.offset as usize).saturating_sub(LINK)
    }

    /// Octets that [`Frame::append`] can give: what is left of the last chunk.
    #[inline]
    pub fn tailroom(&self) -> usize {
        if self.more == 0 {
            return (self.size - self.offset - self.len) as usize;
        }
        // SAFETY: the pointer is to the valid link of the second to last chunk.
        let link = unsafe { self.link_to_last().read() };
        (self.size - link.offset - link.len) as usize
    }

    /// Asks the processor to bring the start of the data into its first cache.
    #[inline]
    pub fn prefetch(&self) {
        let start = self.chunk.as_ptr().wrapping_add(self.offset as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint: it accesses nothing, faults on nothing, at any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above; PRFM changes no register, no flag and no memory.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) start, options(nostack, readonly, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = start;
    }

    /// The data, chunk by chunk, in order. A segment may be empty.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        Segments::of(self)
    }

    /// Calls `visit` with the data of each chunk in order, to be changed in place.
    pub fn for_each_segment_mut(&mut self, mut visit: impl FnMut(&mut [u8])) {
        let mut segments = self.segments();
        while let Some((start, len)) = segments.step() {
            // SAFETY: `step` yields each chunk's data once, so no two slices overlap, and none is
            // alive beyond its call. The frame owns the chunks; `&mut self` is held all along.
            visit(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) });
        }
    }

    /// Copies data from the position `at` of the whole packet into `out`; `false`, with `out`
    /// arbitrary, if the packet ends before `out` is full.
    pub fn copy_to(&self, mut at: usize, mut out: &mut [u8]) -> bool {
        for segment in self.segments() {
            if out.is_empty() {
                break;
            }
            if at >= segment.len() {
                at -= segment.len();
                continue;
            }
            let n = out.len().min(segment.len() - at);
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&segment[at..at + n]);
            out = later;
            at = 0;
        }
        // A copy of nothing fits wherever the packet reaches: `at` is then what it falls short of.
        out.is_empty() && (at == 0 || at <= self.total())
    }

    /// Detaches the first chunk, whatever data it has; the rest of the chain remains.
    #[inline]
    pub(crate) fn pop_chunk(&mut self) -> Option<Chunk> {
        self.pop_part().map(|(chunk, _, _)| chunk)
    }

    /// Detaches the first chunk, with the place of its data: offset and length.
    #[inline]
    pub(crate) fn pop_part(&mut self) -> Option<(Chunk, u16, u16)> {
        if self.size == 0 {
            return None;
        }
        let part = (Chunk(self.chunk), self.offset, self.len);
        if self.more == 0 {
            mem::forget(self.take());
        } else {
            // SAFETY: more > 0, so the first chunk's link is valid.
            let link = unsafe { self.chunk.cast::<Link>().read() };
            self.chunk = link.next;
            self.offset = link.offset;
            self.len = link.len;
            self.more -= 1;
        }
        Some(part)
    }

    #[cold]
    fn set_len_of_chain(&mut self, total: usize) -> bool {
        if total > self.total() {
            return false;
        }
        let mut rest = total;
        self.len = rest.min(self.len as usize) as u16;
        rest -= self.len as usize;
        let mut chunk = self.chunk;
        for _ in 0..self.more {
            let link: NonNull<Link> = chunk.cast();
            // SAFETY: every chunk but the last has a valid link in octets that hold no data.
            let mut value = unsafe { link.read() };
            value.len = rest.min(value.len as usize) as u16;
            rest -= value.len as usize;
            // SAFETY: as above.
            unsafe { link.write(value) };
            chunk = value.next;
        }
        true
    }

    /// The link that describes the last chunk. Only for `more > 0`.
    fn link_to_last(&self) -> NonNull<Link> {
        debug_assert!(self.more > 0);
        let mut link: NonNull<Link> = self.chunk.cast();
        for _ in 1..self.more {
            // SAFETY: every chunk but the last has a valid link, and this walks more - 1 of them.
            link = unsafe { link.read() }.next.cast();
        }
        link
    }

    /// # Safety
    ///
    /// `offset >= LINK` and `offset + len <= size`, or `len == 0`.
    #[inline]
    unsafe fn part_mut(&mut self, offset: u16, len: u16) -> &mut [u8] {
        // SAFETY: by contract inside the chunk that the frame owns exclusively and clear of its link;
        // initialised since it was mapped.
        unsafe { slice::from_raw_parts_mut(self.chunk.as_ptr().wrapping_add(offset as usize), len as usize) }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("chunks", &self.chunks())
            .field("total", &self.total())
            .field("headroom", &self.headroom())
            .finish()
    }
}

#[cfg(debug_assertions)]
impl Drop for Frame {
    fn drop(&mut self) {
        if !self.is_empty() && !std::thread::panicking() {
            panic!("a frame of {} octets was dropped, not put back", self.total());
        }
    }
}
