//! AF_XDP for Penstock: memory that the kernel and the workers share, frames that have exactly one
//! owner, the four rings, and sockets.
//!
//! [`Umem`] is the memory, cut into chunks. A [`Frame`] owns a chunk or a chain of them; a [`Pool`]
//! holds the free ones of a worker. These three need neither privilege nor socket, so tests and
//! simulation move the same frames that a network card fills. A [`Socket`] hands frames to the kernel
//! and takes them back; it always knows which chunks the kernel holds, so that closing one returns
//! every frame, also of a device that is gone.
//!
//! ```
//! let umem = xsk::Umem::new(64, xsk::ChunkSize::Octets2048)?;
//! let mut pool = umem.pool(8, 32);
//! let mut frame = pool.frame_of(b"inner").expect("64 chunks are free");
//! frame.prepend(6).expect("headroom for encapsulation").copy_from_slice(b"outer ");
//! assert_eq!(frame.bytes(), b"outer inner");
//! assert_eq!(umem.account().with_pool(&pool).in_packets(), 1);
//! pool.put(frame);
//! # Ok::<(), xsk::Error>(())
//! ```
//!
//! The interface is safe: there is no way to own a chunk twice. Left out on purpose: loading and
//! attaching XDP programs, unaligned chunks, TX metadata, and busy polling (which does nothing in
//! copy mode).

mod bind;
mod error;
mod frame;
mod held;
mod pool;
mod release;
mod report;
mod ring;
mod socket;
mod sys;
mod umem;
mod wait;

pub use bind::{Bound, Config, Mode};
pub use error::{Error, NotZeroCopy};
pub use frame::{Frame, Segments};
pub use pool::Pool;
pub use report::{Counters, Kick, Statistics};
pub use socket::{MAX_CHUNKS, Socket};
pub use umem::{Account, ChunkSize, HEADROOM, RECEIVE_OFFSET, Umem};
pub use wait::Waiter;
