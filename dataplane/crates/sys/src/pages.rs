//! Memory that is reserved whole, used page by page, and never moves.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Address space, all zeros, at the same place until it is dropped.
///
/// A page costs memory from its first write on: one that was only read is the kernel's page of
/// zeros, which all share. Nothing is promised to be there: when the machine runs out of
/// memory, a first write ends the process, as it does on a thread's stack. Pages are of the
/// smallest size, even where the system prefers 2 MiB, until [`Pages::advise_huge`].
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    /// Reserves at least `bytes`, aligned to 2 MiB.
    ///
    /// # Errors
    ///
    /// When the system has no address space left or the process may not have as much.
    pub fn reserve(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).checked_next_multiple_of(PAGE);
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize - HUGE_PAGE);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start: map(bytes)?, bytes })
    }

    /// The octets reserved.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is none: never.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All of it, 64 bits at a time.
    #[inline]
    pub fn as_u64(&self) -> &[AtomicU64] {
        // SAFETY: `start` is aligned to a page and `bytes` long, mapped readable and writable and
        // initialised (to zeros) until `self` is dropped. It is seen through this and `as_u32`
        // alone, so only ever through atomics, which may be shared and written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// All of it, 32 bits at a time. One part of it is to be seen either so or by 64 bits: Rust
    /// does not say what threads see that mix the two.
    #[inline]
    pub fn as_u32(&self) -> &[AtomicU32] {
        // SAFETY: as for `as_u64`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 4) }
    }

    /// Asks for pages of 2 MiB behind `bytes` octets from `offset`, both rounded inwards to such
    /// pages. A wish: kernels without them, or told not to, go on as before.
    pub fn advise_huge(&self, offset: usize, bytes: usize) {
        let end = offset.saturating_add(bytes).min(self.bytes) / HUGE_PAGE * HUGE_PAGE;
        let start = offset.next_multiple_of(HUGE_PAGE);
        #[cfg(not(miri))]
        if start < end {
            // SAFETY: the range is within the mapping, and the advice changes what pages it is
            // made of, not what is in it.
            let _ = unsafe { libc::madvise(self.start.as_ptr().add(start).cast(), end - start, libc::MADV_HUGEPAGE) };
        }
        #[cfg(miri)]
        let _ = (start, end);
    }
}

/// Asks for pages of 2 MiB behind memory that somebody else has, as far as whole ones are in it: best before anything is
/// written there. A wish, as in [`Pages::advise_huge`].
pub fn advise_huge<T>(memory: &[T]) {
    let range = memory.as_ptr_range();
    let start = (range.start as usize).next_multiple_of(HUGE_PAGE);
    let end = range.end as usize / HUGE_PAGE * HUGE_PAGE;
    #[cfg(not(miri))]
    if start < end {
        // SAFETY: the range is within memory that is borrowed for the call, and the advice changes what pages it is
        // made of, not what is in it.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(miri)]
    let _ = (start, end);
}

// SAFETY: the memory belongs to no thread, and all access to it is atomic.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

#[cfg(not(miri))]
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let all = bytes + HUGE_PAGE;
    // SAFETY: a new mapping where the kernel chooses touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            all,
            libc::PROT_READ | libc::PROT_WRITE,
            // Without NORESERVE, a default kernel refuses reservations beyond its memory.
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(HUGE_PAGE);
    // SAFETY: both ends are whole pages of the mapping just made, and nobody has seen them. The
    // advice is about the rest.
    unsafe {
        if before > 0 {
            libc::munmap(start.cast(), before);
        }
        if before < HUGE_PAGE {
            libc::munmap(start.add(before + bytes).cast(), HUGE_PAGE - before);
        }
        // One octet written would otherwise take 2 MiB where the system's default is so.
        libc::madvise(start.add(before).cast(), bytes, libc::MADV_NOHUGEPAGE);
        Ok(NonNull::new_unchecked(start.add(before)))
    }
}

/// Miri knows no reservation; a plain allocation is as good for what it looks at.
#[cfg(miri)]
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let layout = std::alloc::Layout::from_size_align(bytes, PAGE).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: the size is at least a page.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory.into())
}

impl Drop for Pages {
    fn drop(&mut self) {
        #[cfg(not(miri))]
        // SAFETY: exactly what `map` left mapped; slices of it borrow `self` and are gone.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.bytes);
        }
        #[cfg(miri)]
        // SAFETY: as `map` allocated it.
        unsafe {
            std::alloc::dealloc(self.start.as_ptr(), std::alloc::Layout::from_size_align(self.bytes, PAGE).unwrap());
        }
    }
}

/// The largest base page of the CPUs we run on; the smallest is 4 KiB.
const PAGE: usize = 64 << 10;
const HUGE_PAGE: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn is_all_zeros_until_written_and_costs_nothing_until_then() {
        // Far more than the machine has.
        let bytes = if cfg!(miri) { 1 << 16 } else { 1 << 40 };
        let pages = Pages::reserve(bytes).unwrap();
        assert_eq!(pages.len(), bytes);
        let words = pages.as_u64();
        assert_eq!(words.as_ptr() as usize % PAGE, 0);
        assert_eq!(words.len(), bytes / 8);
        words[words.len() - 1].store(7, Relaxed);
        assert_eq!(words[words.len() - 1].load(Relaxed), 7);
        assert_eq!(words[words.len() / 2].load(Relaxed), 0);
        pages.advise_huge(0, 1 << 22);
        assert_eq!(words[0].load(Relaxed), 0);
    }

    #[test]
    fn refuses_what_cannot_be_addressed() {
        Pages::reserve(usize::MAX).unwrap_err();
        Pages::reserve(isize::MAX as usize).unwrap_err();
        assert_eq!(Pages::reserve(0).unwrap().len(), PAGE);
    }
}
