//! What the tables of both families have in common, so that a bench or a test is written once.

use crate::random::Draw;
use lpm::{Change, Limits, Mark, Prefix, Reader4, Reader6, TableError, Usage, Value, Writer4, Writer6};

/// A family's addresses, with its table.
pub trait Family: Draw {
    /// As it is in the names of figures.
    const NAME: &str;
    /// The writing side.
    type Writer: Write<Self, Reader = Self::Reader>;
    /// The reading side.
    type Reader: Read<Self>;
}

/// A writing side.
pub trait Write<A>: Sized + Send {
    /// Its reading side.
    type Reader;
    /// See [`Writer4::new`].
    fn new(limits: Limits) -> Result<Self, TableError>;
    /// See [`Writer4::reader`].
    fn reader(&self) -> Self::Reader;
    /// See [`Writer4::insert`].
    fn insert(&mut self, vrf: u16, prefix: Prefix<A>, value: Value) -> Result<Option<Value>, TableError>;
    /// See [`Writer4::remove`].
    fn remove(&mut self, vrf: u16, prefix: Prefix<A>) -> Result<Option<Value>, TableError>;
    /// See [`Writer4::apply`].
    fn apply(&mut self, changes: impl IntoIterator<Item = Change<A>>) -> Result<(), TableError>;
    /// See [`Writer4::retire_mark`].
    fn retire_mark(&mut self) -> Mark;
    /// See [`Writer4::reclaim`].
    fn reclaim(&mut self, mark: Mark) -> usize;
    /// See [`Writer4::usage`].
    fn usage(&self) -> Usage;
}

/// A reading side.
pub trait Read<A>: Clone + Send + Sync {
    /// See [`Reader4::lookup`].
    fn lookup(&self, vrf: u16, address: A) -> Option<Value>;
    /// See [`Reader4::lookup_batch`].
    fn lookup_batch(&self, vrfs: &[u16], addresses: &[A], values: &mut [Option<Value>]);
}

macro_rules! family {
    ($address:ty, $name:literal, $writer:ident, $reader:ident) => {
        impl Family for $address {
            const NAME: &str = $name;
            type Writer = $writer;
            type Reader = $reader;
        }

        impl Write<$address> for $writer {
            type Reader = $reader;
            fn new(limits: Limits) -> Result<Self, TableError> {
                $writer::new(limits)
            }
            fn reader(&self) -> $reader {
                $writer::reader(self)
            }
            fn insert(
                &mut self,
                vrf: u16,
                prefix: Prefix<$address>,
                value: Value,
            ) -> Result<Option<Value>, TableError> {
                $writer::insert(self, vrf, prefix, value)
            }
            fn remove(&mut self, vrf: u16, prefix: Prefix<$address>) -> Result<Option<Value>, TableError> {
                $writer::remove(self, vrf, prefix)
            }
            fn apply(&mut self, changes: impl IntoIterator<Item = Change<$address>>) -> Result<(), TableError> {
                $writer::apply(self, changes)
            }
            fn retire_mark(&mut self) -> Mark {
                $writer::retire_mark(self)
            }
            fn reclaim(&mut self, mark: Mark) -> usize {
                $writer::reclaim(self, mark)
            }
            fn usage(&self) -> Usage {
                $writer::usage(self)
            }
        }

        impl Read<$address> for $reader {
            #[inline]
            fn lookup(&self, vrf: u16, address: $address) -> Option<Value> {
                $reader::lookup(self, vrf, address)
            }
            #[inline]
            fn lookup_batch(&self, vrfs: &[u16], addresses: &[$address], values: &mut [Option<Value>]) {
                $reader::lookup_batch(self, vrfs, addresses, values);
            }
        }
    };
}

family!(u32, "v4", Writer4, Reader4);
family!(u128, "v6", Writer6, Reader6);
