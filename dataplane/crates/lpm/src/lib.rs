//! Longest-prefix match for IPv4 and IPv6 over many VRFs, read while it is written.
//!
//! One writer changes a table ([`Writer4`], [`Writer6`]); any number of cheap readers
//! ([`Reader4`], [`Reader6`]) look addresses up meanwhile, without a lock, an atomic
//! read-modify-write or an allocation. Addresses are `u32` or `u128` in host byte order, and an
//! answer is a [`Value`], which the owner uses as an index into tables of its own.
//!
//! ```
//! use lpm::{Limits, Prefix4, Value, Writer4};
//!
//! let mut writer = Writer4::new(Limits::default())?;
//! let reader = writer.reader();
//! let tunnel = Value::new(7).unwrap();
//! writer.insert(3, Prefix4::new(0x0a01_0000, 16)?, tunnel)?;
//! assert_eq!(reader.lookup(3, 0x0a01_0203), Some(tunnel));
//! assert_eq!(reader.lookup(4, 0x0a01_0203), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a reader may see
//!
//! For each address, a change is one atomic store, so a lookup gives the answer from before the
//! change or the one from after it. A change that spans many addresses (a short prefix, a whole
//! VRF, many routes at once) reaches them one after the other.
//!
//! The default route of a VRF, and of IPv6 routes of up to 8 bits, are apart from the rest. A lookup or
//! batch during which they change begins again, so that it never combines what was never there
//! together.
//!
//! # Giving memory back
//!
//! What a change takes out of a table, a reader may still be walking. It is set aside until
//! the owner says that every reader has passed:
//!
//! 1. change the table;
//! 2. `let mark = writer.retire_mark()`;
//! 3. wait until every reader has finished the lookup or batch that it was in, and has read
//!    something that was written after step 1: an epoch, which it loads between two batches
//!    (acquire) and repeats where the owner sees it (release). That a reader has gone round its
//!    loop is not enough: its next batch might still find the old entry;
//! 4. `writer.reclaim(mark)`.
//!
//! A reclaim that comes too early is memory-safe, but lookups in flight may then give answers
//! of other prefixes. The same wait protects what a [`Value`] stands for: do not use one again
//! before it is over.
//!
//! # Left out
//!
//! Where routes come from, which of several sources wins, and what a value means. Routes are
//! kept for the writer's own needs only; the owner has its own RIB.
#![deny(unsafe_code)]

mod address;
mod arena;
mod defaults;
mod lanes;
mod limits;
pub mod naive;
mod prefix;
mod v4;
mod v6;
mod value;

pub use address::Address;
pub use arena::Mark;
pub use limits::{Change, Limits, TableError, Usage};
pub use prefix::{Prefix, PrefixError};
pub use v4::{Reader4, Writer4};
pub use v6::{Reader6, Writer6};
pub use value::Value;

/// An IPv4 prefix.
pub type Prefix4 = Prefix<u32>;
/// An IPv6 prefix.
pub type Prefix6 = Prefix<u128>;

#[cfg(test)]
mod tests;
