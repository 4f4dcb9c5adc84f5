//! What there is without DPDK: the same functions, and nothing that they could be called on.

use crate::{Error, Lookup, Meter, Profile, Started, Width};
use std::marker::PhantomData;
use std::ops::Range;

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

/// A scheduler that there never is.
#[derive(Debug)]
pub struct Scheduler(Never);

impl Scheduler {
    /// As DPDK's has them.
    pub const QUEUES: u32 = 8;

    /// Never comes.
    pub fn new(_: Started, _: u32, _: u32, _: usize, _: u32) -> Result<Self, Error> {
        Err(Error::NotBuilt)
    }

    /// Not called.
    pub fn put(&mut self, _: u32, _: u32, _: u32) -> bool {
        match self.0 {}
    }

    /// Not called.
    pub fn enqueue(&mut self) -> usize {
        match self.0 {}
    }

    /// Not called.
    pub fn dequeue(&mut self, _: usize) -> usize {
        match self.0 {}
    }

    /// Not called.
    pub fn recycle(&mut self) {
        match self.0 {}
    }
}

/// Meters that there never are.
#[derive(Debug)]
pub struct Meters(Never);

impl Meters {
    /// Never come.
    pub fn new(_: Started, _: Meter, _: Profile, _: Vec<usize>) -> Result<Self, Error> {
        Err(Error::NotBuilt)
    }

    /// Not called.
    pub fn pass(&mut self, _: u64) {
        match self.0 {}
    }

    /// Not called.
    pub fn colour(&mut self, _: Range<usize>, _: u32) -> &[u8] {
        match self.0 {}
    }
}
