//! The memory that packets live in.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::error::Error;
use crate::frame::Frame;
use crate::pool::Pool;

/// User headroom of a received packet in octets, in addition to the 256 that the kernel keeps.
pub const HEADROOM: usize = 128;

/// Where in its chunk a received packet starts: the kernel's 256 octets and [`HEADROOM`].
pub const RECEIVE_OFFSET: usize = 256 + HEADROOM;

/// Size of a chunk. The kernel's aligned mode knows these two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkSize {
    /// 2,048 octets: holds a frame of up to 1,664 octets.
    #[default]
    Octets2048,
    /// 4,096 octets: holds a frame of up to 3,712 octets.
    Octets4096,
}

impl ChunkSize {
    /// In octets.
    #[inline]
    pub const fn octets(self) -> usize {
        match self {
            Self::Octets2048 => 2_048,
            Self::Octets4096 => 4_096,
        }
    }

    /// log2 of the octets: an address is divided by a shift, not by a division.
    #[inline]
    pub(crate) const fn shift(self) -> u32 {
        match self {
            Self::Octets2048 => 11,
            Self::Octets4096 => 12,
        }
    }

    /// The longest frame that one chunk takes on receive, in octets.
    pub const fn longest_frame(self) -> usize {
        self.octets() - RECEIVE_OFFSET
    }
}

/// A handle on packet memory: an anonymous mapping, cut into chunks.
///
/// The memory is never unmapped, so a [`Frame`] may outlive every handle. Hence one UMEM per process,
/// not one per reload.
#[derive(Clone, Copy)]
pub struct Umem {
    area: &'static Area,
}

/// The mapping, and the chunks that are in no pool.
pub(crate) struct Area {
    base: NonNull<u8>,
    octets: usize,
    chunk_size: ChunkSize,
    chunks: usize,
    depot: Mutex<Vec<Chunk>>,
    lost: AtomicUsize,
    pub(crate) donors: Mutex<Vec<crate::bind::Donor>>,
}

// SAFETY: `base` is only turned into references by the owner of a chunk, and a chunk has one owner at
// a time: the depot (behind its mutex), a pool, a frame, or the kernel. The rest is `Sync` by itself.
unsafe impl Sync for Area {}
// SAFETY: as above; nothing in it is bound to the thread that made it.
unsafe impl Send for Area {}

impl Umem {
    /// Maps `chunks` chunks; all of them are free. Needs no privilege.
    ///
    /// # Errors
    ///
    /// [`Error::ChunkCount`] if there are none or too many, [`Error::Memory`] if the kernel has not
    /// that much.
    pub fn new(chunks: usize, chunk_size: ChunkSize) -> Result<Self, Error> {
        // Rings of u32 indices and bitmaps by chunk: 2^31 chunks are 4 TiB, more than anyone means.
        let max = (isize::MAX as usize / chunk_size.octets()).min(1 << 31);
        if chunks == 0 || chunks > max {
            return Err(Error::ChunkCount { chunks, max });
        }
        let octets = chunks * chunk_size.octets();
        let base = map(octets).map_err(|source| Error::Memory { octets, source })?;
        // The lowest addresses on top: a small process then touches few pages.
        let free = (0..chunks)
            .rev()
            .map(|index| {
                // SAFETY: index < chunks, so the offset stays within the mapping of `octets`.
                Chunk(unsafe { base.add(index * chunk_size.octets()) })
            })
            .collect();
        let area = Box::leak(Box::new(Area {
            base,
            octets,
            chunk_size,
            chunks,
            depot: Mutex::new(free),
            lost: AtomicUsize::new(0),
            donors: Mutex::new(Vec::new()),
        }));
        Ok(Self { area })
    }

    /// A pool for one worker; see [`Pool::new`].
    pub fn pool(&self, low: usize, high: usize) -> Pool {
        Pool::new(self, low, high)
    }

    /// The size of its chunks.
    #[inline]
    pub fn chunk_size(&self) -> ChunkSize {
        self.area.chunk_size
    }

    /// How many chunks it has.
    #[inline]
    pub fn chunks(&self) -> usize {
        self.area.chunks
    }

    /// How many chunks are in no pool, no ring and no packet.
    pub fn free(&self) -> usize {
        self.depot().len()
    }

    /// Starts a leak account: add every pool and socket, then ask how many chunks are in packets.
    pub fn account(&self) -> Account {
        Account {
            total: self.chunks(),
            depot: self.free(),
            pools: 0,
            receive: 0,
            transmit: 0,
            lost: self.area.lost.load(Relaxed),
        }
    }

    /// Whether both are handles on the same memory.
    #[inline]
    pub fn is(&self, other: &Umem) -> bool {
        ptr::eq(self.area, other.area)
    }

    pub(crate) fn area(&self) -> &'static Area {
        self.area
    }

    pub(crate) fn depot(&self) -> MutexGuard<'static, Vec<Chunk>> {
        // A panic elsewhere cannot leave a Vec of chunks half changed.
        self.area.depot.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.area.base
    }

    #[inline]
    pub(crate) fn octets(&self) -> usize {
        self.area.octets
    }

    /// Whether the chunk at `chunk` is one of this UMEM.
    #[inline]
    pub(crate) fn owns(&self, chunk: NonNull<u8>) -> bool {
        (chunk.addr().get()).wrapping_sub(self.area.base.addr().get()) < self.area.octets
    }

    /// The index of an owned chunk.
    #[inline]
    pub(crate) fn index_of(&self, chunk: NonNull<u8>) -> usize {
        debug_assert!(self.owns(chunk));
        (chunk.addr().get() - self.area.base.addr().get()) >> self.area.chunk_size.shift()
    }

    /// The chunk with this index.
    ///
    /// # Safety
    ///
    /// The caller owns chunk `index`, and `index < self.chunks()`.
    #[inline]
    pub(crate) unsafe fn chunk(&self, index: usize) -> Chunk {
        debug_assert!(index < self.chunks());
        // SAFETY: index < chunks by contract, so the offset is within the mapping.
        Chunk(unsafe { self.area.base.add(index << self.area.chunk_size.shift()) })
    }

    /// Writes chunks off that a driver may still write to.
    pub(crate) fn lose(&self, chunks: usize) {
        self.area.lost.fetch_add(chunks, Relaxed);
    }
}

impl std::fmt::Debug for Umem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Umem").field("chunks", &self.area.chunks).field("chunk_size", &self.area.chunk_size).finish()
    }
}

/// Sole ownership of one free chunk. Not `Clone`, and made only in [`Umem::new`], from a frame, or
/// from what the kernel gives back.
pub(crate) struct Chunk(pub(crate) NonNull<u8>);

// SAFETY: a chunk is owned memory; whoever has it may use it, on any thread.
unsafe impl Send for Chunk {}

impl Chunk {
    /// A frame of no octets, its data at the receive position.
    #[inline]
    pub(crate) fn into_frame(self, size: ChunkSize) -> Frame {
        Frame::new(self, RECEIVE_OFFSET as u16, 0, size)
    }
}

/// Where every chunk is. At a quiet moment [`Account::in_packets`] is what the callers' queues hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// All chunks of the UMEM.
    pub total: usize,
    /// Free, in no pool.
    pub depot: usize,
    /// Free, in the pools added so far.
    pub pools: usize,
    /// With the kernel for receiving: on the fill ring, on the RX ring, or in a driver.
    pub receive: usize,
    /// With the kernel for sending: on the TX ring, in a driver, or on the completion ring.
    pub transmit: usize,
    /// Written off: a driver did not let go of them.
    pub lost: usize,
}

impl Account {
    /// Adds what a pool holds.
    #[must_use]
    pub fn with_pool(mut self, pool: &Pool) -> Self {
        self.pools += pool.free();
        self
    }

    /// The chunks that are nowhere else: in frames.
    ///
    /// # Panics
    ///
    /// If more chunks are accounted for than exist: then one has two owners.
    pub fn in_packets(&self) -> usize {
        self.total
            .checked_sub(self.depot + self.pools + self.receive + self.transmit + self.lost)
            .expect("a chunk has one owner, so the parts cannot exceed the whole")
    }
}

/// Anonymous memory, zeroed and faulted in.
fn map(octets: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            octets,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // A child must not share pages that a device writes to: copy-on-write would part them from us.
    // SAFETY: advice on the mapping just made; it changes what a child inherits, nothing here.
    if unsafe { libc::madvise(address, octets, libc::MADV_DONTFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}
