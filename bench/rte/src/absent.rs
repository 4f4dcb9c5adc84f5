//! What there is without DPDK: the same functions, and no table that they could be called on.

use crate::{Error, Lookup, Started, Width};
use std::marker::PhantomData;

/// Says that DPDK is not there.
///
/// # Errors
///
/// Always [`Error::NotBuilt`].
pub fn start(_cpu: usize, _heap_mib: usize) -> Result<Started, Error> {
    Err(Error::NotBuilt)
}

/// No value has this type.
#[derive(Clone, Copy, Debug)]
enum Never {}

macro_rules! absent {
    ($fib:ident, $writer:ident, $reader:ident, $address:ty) => {
        /// A table that there never is.
        #[derive(Debug)]
        pub struct $fib(Never);

        impl $fib {
            /// Never comes: nobody has a [`Started`].
            pub fn new(_: Started, _: usize, _: usize, _: Width) -> Result<Self, Error> {
                Err(Error::NotBuilt)
            }

            /// Not called.
            pub fn select(&mut self, _: Lookup) -> Result<(), Error> {
                match self.0 {}
            }

            /// Not called.
            pub fn split(&mut self) -> ($writer<'_>, $reader<'_>) {
                match self.0 {}
            }
        }

        /// Nor the one that changes it.
        #[derive(Debug)]
        pub struct $writer<'fib>(Never, PhantomData<&'fib mut $fib>);

        impl $writer<'_> {
            /// Not called.
            pub fn add(&mut self, _: $address, _: u8, _: u16) -> Result<(), Error> {
                match self.0 {}
            }

            /// Not called.
            pub fn delete(&mut self, _: $address, _: u8) -> Result<(), Error> {
                match self.0 {}
            }
        }

        /// Nor one that looks up.
        #[derive(Clone, Copy, Debug)]
        pub struct $reader<'fib>(Never, PhantomData<&'fib $fib>);

        impl $reader<'_> {
            /// Not called.
            pub fn lookup(&self, _: &[$address], _: &mut [u64]) {
                match self.0 {}
            }
        }
    };
}

absent!(Fib4, Writer4, Reader4, u32);
absent!(Fib6, Writer6, Reader6, [u8; 16]);
