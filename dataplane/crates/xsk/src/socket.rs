//! One queue of one interface: four rings, and the books of what the kernel holds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::bind::{self, Bound, Config, Donor};
use crate::error::{Error, NotZeroCopy};
use crate::frame::{Frame, LINK};
use crate::held::Held;
use crate::pool::Pool;
use crate::release::Probe;
use crate::report::{Counters, Kick, Statistics};
use crate::ring::{Consumer, Producer};
use crate::sys::{self, Descriptor, Mapping};
use crate::umem::{Account, Chunk, Umem};

/// Chunks that one sent packet may have: the fragments of a socket buffer (MAX_SKB_FRAGS).
pub const MAX_CHUNKS: usize = 17;

/// An AF_XDP socket: one queue of one interface, both directions.
///
/// Belongs to one worker at a time. Dropping it closes it and gives what its rings held to the depot.
pub struct Socket {
    // Before `books`: fields drop in this order, and the chunks that the books give back must be
    // the kernel's no more.
    pub(crate) kernel: Kernel,
    pub(crate) books: Books,
    /// log2 of the chunk size.
    shift: u32,
    max_chunks: usize,
    most_outstanding: usize,
    counters: Counters,
    pub(crate) bound: Bound,
    pub(crate) not_zero_copy: Option<NotZeroCopy>,
    pub(crate) sharer: bool,
}

/// What the kernel keeps alive for us: the descriptor and the mappings of the rings. The socket is
/// released only when all of them are gone.
pub(crate) struct Kernel {
    pub(crate) rx: Consumer<Descriptor, Mapping>,
    pub(crate) tx: Producer<Descriptor, Mapping>,
    pub(crate) fill: Producer<u64, Mapping>,
    pub(crate) completion: Consumer<u64, Mapping>,
    pub(crate) umem: Umem,
    pub(crate) fd: OwnedFd,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        Donor::withdraw(&self.umem, &self.fd);
    }
}

/// Whose chunks are where.
pub(crate) struct Books {
    umem: Umem,
    /// Put on the fill ring and not yet received.
    filled: Held,
    /// Put on the TX ring and not yet completed.
    sent: Held,
    /// The chunks so far of a packet whose last descriptor has not come.
    partial: Frame,
    /// Chunks that were to be sent and had nothing to send.
    spare: Vec<Chunk>,
    /// Zero-copy only: asks whether the device has let go.
    pub(crate) probe: Option<Probe>,
}

impl Socket {
    /// Opens a socket on one queue and fills its fill ring from `pool`.
    ///
    /// With [`Mode::Auto`](crate::Mode::Auto) zero-copy is tried, then copy; why it is not zero-copy
    /// is told by [`Socket::not_zero_copy`]. Blocks for up to two seconds while the queue is busy, as
    /// it is for some milliseconds after another socket on it was closed.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`] but those of [`Umem::new`] and [`Error::Dead`].
    ///
    /// # Panics
    ///
    /// If the pool is of another UMEM.
    pub fn bind(umem: &Umem, pool: &mut Pool, config: &Config) -> Result<Socket, Error> {
        bind::bind(umem, pool, config)
    }

    pub(crate) fn new(kernel: Kernel, config: &Config) -> Self {
        let umem = kernel.umem;
        Self {
            kernel,
            books: Books {
                umem,
                filled: Held::new(umem.chunks()),
                sent: Held::new(umem.chunks()),
                partial: Frame::empty(),
                spare: Vec::with_capacity(config.tx_size as usize),
                probe: None,
            },
            shift: umem.chunk_size().shift(),
            max_chunks: if config.multi_buffer { MAX_CHUNKS } else { 1 },
            most_outstanding: config.tx_size as usize + config.completion_size as usize,
            counters: Counters::default(),
            bound: Bound::Copy,
            not_zero_copy: None,
            sharer: false,
        }
    }

    /// The next received packet, the whole chain; `None` when there is none (yet).
    #[inline]
    pub fn receive(&mut self) -> Option<Frame> {
        loop {
            let descriptor = self.kernel.rx.pop()?;
            let Some(part) = self.accept(descriptor) else {
                self.counters.bogus += 1;
                continue;
            };
            let continues = descriptor.options & libc::XDP_PKT_CONTD != 0;
            if !continues && self.books.partial.is_empty() {
                return Some(part);
            }
            self.books.partial.chain(part);
            if !continues {
                return Some(self.books.partial.take());
            }
        }
    }

    /// Descriptors that the TX ring has room for: a frame takes [`Frame::chunks`] of them.
    #[inline]
    pub fn tx_room(&self) -> usize {
        self.kernel.tx.room_now() as usize
    }

    /// Chunks that were sent and have not been reaped.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.books.sent.count()
    }

    /// The most that [`Socket::outstanding`] can be: the kernel takes a chunk from the TX ring when the completion ring has a
    /// place for it.
    pub const fn most_outstanding(&self) -> usize {
        self.most_outstanding
    }

    /// The most chunks that one frame may have here: [`MAX_CHUNKS`], or 1 without multi-buffer.
    #[inline]
    pub const fn max_chunks(&self) -> usize {
        self.max_chunks
    }

    /// Puts a packet on the TX ring, the whole chain; it leaves at the next [`Socket::flush`].
    ///
    /// The caller has looked at [`Socket::tx_room`] and [`Socket::max_chunks`]. What cannot be sent
    /// nevertheless, or has no octets, is counted as unsendable and goes back to the pool.
    ///
    /// # Panics
    ///
    /// If the frame is of another UMEM.
    #[inline]
    pub fn send(&mut self, mut frame: Frame) {
        let chunks = frame.chunks();
        if chunks > self.max_chunks || self.kernel.tx.room(chunks as u32) < chunks as u32 {
            return self.refuse(frame);
        }
        // One descriptor behind: whether a chunk has a successor with data shows only then, and an
        // empty descriptor is invalid.
        let mut last: Option<Descriptor> = None;
        while let Some((chunk, offset, len)) = frame.pop_part() {
            assert!(self.books.umem.owns(chunk.0), "a frame is sent by a socket of its own UMEM");
            if len == 0 {
                self.books.spare.push(chunk);
                continue;
            }
            let index = self.books.umem.index_of(chunk.0);
            self.books.sent.set(index);
            let descriptor =
                Descriptor { addr: ((index << self.shift) + offset as usize) as u64, len: u32::from(len), options: 0 };
            if let Some(mut descriptor) = last.replace(descriptor) {
                descriptor.options = libc::XDP_PKT_CONTD;
                self.kernel.tx.push(descriptor);
            }
        }
        match last {
            Some(descriptor) => {
                let pushed = self.kernel.tx.push(descriptor);
                debug_assert!(pushed, "room was checked for all chunks");
            }
            None => self.counters.unsendable += 1,
        }
    }

    /// Takes what was sent, from whatever port it came, into `pool`.
    ///
    /// # Panics
    ///
    /// If the pool is of another UMEM.
    #[inline]
    pub fn reap(&mut self, pool: &mut Pool) {
        assert!(pool.umem().is(&self.books.umem), "frames go back to a pool of their own UMEM");
        while let Some(addr) = self.kernel.completion.pop() {
            let index = (addr >> self.shift) as usize;
            if !self.books.sent.clear(index) {
                self.counters.bogus += 1;
                continue;
            }
            // SAFETY: the bit was set, so `send` consumed the owner of this chunk of the UMEM, and the
            // kernel has just completed it; the bit is clear now, so this happens once.
            pool.put_chunk(unsafe { self.books.umem.chunk(index) });
        }
        while let Some(chunk) = self.books.spare.pop() {
            pool.put_chunk(chunk);
        }
    }

    /// Fills the fill ring from `pool`, and gives the slots of received packets back.
    ///
    /// # Panics
    ///
    /// If the pool is of another UMEM.
    #[inline]
    pub fn refill(&mut self, pool: &mut Pool) {
        assert!(pool.umem().is(&self.books.umem), "a fill ring takes chunks of its own UMEM");
        self.kernel.rx.release();
        for _ in 0..self.kernel.fill.room(u32::MAX) {
            let Some(chunk) = pool.take_chunk() else {
                self.counters.starved += 1;
                break;
            };
            let index = self.books.umem.index_of(chunk.0);
            self.books.filled.set(index);
            let pushed = self.kernel.fill.push((index << self.shift) as u64);
            debug_assert!(pushed, "within the room");
        }
        self.kernel.fill.publish();
    }

    /// Makes what was sent visible to the kernel, and kicks it if it wants that. Once per round.
    ///
    /// # Errors
    ///
    /// [`Error::Dead`]: close the socket.
    #[inline]
    pub fn flush(&mut self) -> Result<Kick, Error> {
        self.kernel.tx.publish();
        // A driver may set the flag just after we looked. Then the ring is still pending in the next
        // round, and sleeping in `poll` wakes the driver too.
        if !self.kernel.tx.is_pending() || !self.kernel.tx.needs_wakeup() {
            return Ok(Kick::Idle);
        }
        let result = sys::wake_tx(self.kernel.fd.as_fd());
        self.kicked(result)
    }

    /// Wakes a driver that sleeps because its fill ring was empty. After [`Socket::refill`], once per
    /// round; in copy mode never a system call.
    ///
    /// # Errors
    ///
    /// [`Error::Dead`]: close the socket.
    #[inline]
    pub fn wake_rx(&mut self) -> Result<Kick, Error> {
        if !self.kernel.fill.needs_wakeup() {
            return Ok(Kick::Idle);
        }
        let result = sys::wake_rx(self.kernel.fd.as_fd());
        self.kicked(result)
    }

    /// The kernel's counters.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it does not tell.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        sys::option::<sys::RawStatistics>(self.kernel.fd.as_fd(), libc::XDP_STATISTICS)
            .map(Statistics::from)
            .map_err(|source| Error::System { what: "reading the statistics of an AF_XDP socket", source })
    }

    /// Our own counters.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The mode it runs in, as the kernel says.
    pub const fn bound(&self) -> Bound {
        self.bound
    }

    /// Why it is not zero-copy; `None` if it is, or if that was not tried.
    pub const fn not_zero_copy(&self) -> Option<NotZeroCopy> {
        self.not_zero_copy
    }

    /// Whether it was bound by the memory registration of another socket.
    pub const fn is_sharer(&self) -> bool {
        self.sharer
    }

    /// Closes the socket and takes all that its rings held into `pool`, also when its device is gone
    /// and nothing will ever complete.
    ///
    /// The kernel has stopped writing when this returns: the descriptor and the ring mappings are
    /// released first, and that waits for all who are still receiving. In zero-copy mode it waits (up
    /// to two seconds) until the driver has given the queue back; if it does not, those chunks are
    /// written off as lost. The kernel may go on *reading* chunks whose sending had begun (virtio_net
    /// in copy mode refers to the pages): such a packet may leave with octets of the chunk's next
    /// user, but no memory is harmed.
    ///
    /// This holds as long as ours is the only descriptor: one that was duplicated from [`AsFd`], or
    /// inherited by a child that was forked and does not exec, keeps the kernel receiving into chunks
    /// that are someone else's. So neither is allowed; an XSKMAP takes the descriptor without keeping it.
    ///
    /// # Panics
    ///
    /// If the pool is of another UMEM.
    pub fn close(self, pool: &mut Pool) {
        assert!(pool.umem().is(&self.books.umem), "frames go back to a pool of their own UMEM");
        let Socket { kernel, mut books, .. } = self;
        drop(kernel);
        books.settle(|chunk| pool.put_chunk(chunk));
    }

    /// Ownership of the chunk that the kernel hands over with this descriptor, if it is true.
    #[inline]
    fn accept(&mut self, descriptor: Descriptor) -> Option<Frame> {
        let size = 1_u64 << self.shift;
        let index = (descriptor.addr >> self.shift) as usize;
        if !self.books.filled.clear(index) {
            return None;
        }
        // SAFETY: the bit was set, so `refill` consumed the owner of this chunk of the UMEM, and the
        // kernel has just put it on the RX ring; the bit is clear now, so this happens once.
        let chunk = unsafe { self.books.umem.chunk(index) };
        let offset = descriptor.addr & (size - 1);
        if offset < LINK as u64 || offset + u64::from(descriptor.len) > size {
            self.books.spare.push(chunk);
            return None;
        }
        // Both are at most the chunk size, so they fit.
        let (offset, len) = (offset as u16, descriptor.len as u16);
        Some(Frame::new(chunk, offset, len, self.books.umem.chunk_size()))
    }

    #[cold]
    fn refuse(&mut self, mut frame: Frame) {
        self.counters.unsendable += 1;
        while let Some(chunk) = frame.pop_chunk() {
            assert!(self.books.umem.owns(chunk.0), "a frame is sent by a socket of its own UMEM");
            self.books.spare.push(chunk);
        }
    }

    fn kicked(&mut self, result: io::Result<()>) -> Result<Kick, Error> {
        let Err(source) = result else {
            return Ok(Kick::Done);
        };
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => {
                self.counters.kicks_again += 1;
                Ok(Kick::Again)
            }
            Some(libc::EBUSY) => {
                self.counters.kicks_refused += 1;
                Ok(Kick::Refused)
            }
            Some(libc::ENETDOWN) => {
                self.counters.kicks_down += 1;
                Ok(Kick::Down)
            }
            _ => Err(Error::Dead { source }),
        }
    }
}

impl Books {
    /// Gives all chunks back. Only when the socket is closed.
    fn settle(&mut self, mut give: impl FnMut(Chunk)) {
        let released = self.probe.take().is_none_or(Probe::wait);
        if released {
            for index in self.filled.drain().chain(self.sent.drain()) {
                // SAFETY: the bit was set, so `refill` or `send` consumed the owner of this chunk of
                // the UMEM; the kernel has released the socket and will not write to it. The bits are
                // clear now, and a chunk has one in at most one of the two.
                give(unsafe { self.umem.chunk(index) });
            }
        } else {
            self.umem.lose(self.filled.count() + self.sent.count());
            self.filled.drain().chain(self.sent.drain()).for_each(drop);
        }
        while let Some(chunk) = self.partial.pop_chunk() {
            give(chunk);
        }
        self.spare.drain(..).for_each(give);
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        let umem = self.umem;
        // Nothing is left after `close`. Otherwise the socket was dropped: its `kernel` went before.
        self.settle(|chunk| umem.depot().push(chunk));
    }
}

impl Account {
    /// Adds what a socket holds.
    #[must_use]
    pub fn with_socket(mut self, socket: &Socket) -> Self {
        let books = &socket.books;
        self.receive += books.filled.count() + books.partial.chunks();
        self.transmit += books.sent.count() + books.spare.len();
        self
    }
}

/// For an XSKMAP and for [`Waiter`](crate::Waiter); not to be duplicated, see [`Socket::close`].
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.kernel.fd.as_raw_fd()
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.as_raw_fd())
            .field("bound", &self.bound)
            .field("filled", &self.books.filled.count())
            .field("sent", &self.books.sent.count())
            .finish()
    }
}

#[cfg(test)]
mod tests;
