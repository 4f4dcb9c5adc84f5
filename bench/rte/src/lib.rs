//! DPDK's forwarding tables `rte_fib` and `rte_fib6`, as the opponent of a bench.
//!
//! Nothing of Penstock's needs DPDK. With the feature `dpdk` this crate links it (`apt-get install libdpdk-dev`);
//! without, [`start`] says that it is not there, and there is never a table.

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "dpdk")]
pub use dpdk::{Fib4, Fib6, Reader4, Reader6, Writer4, Writer6, start};

#[cfg(not(feature = "dpdk"))]
mod absent;
#[cfg(not(feature = "dpdk"))]
pub use absent::{Fib4, Fib6, Reader4, Reader6, Writer4, Writer6, start};

/// Proof that DPDK runs.
#[derive(Clone, Copy, Debug)]
pub struct Started(());

/// How wide an entry of a table is: what it can count with it, and how much of it a cache line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two octets: at most 32,767 groups of 256.
    Two,
    /// Four octets.
    Four,
}

impl Width {
    /// In octets.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// The code of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// What DPDK takes unless it is started with `--force-max-simd-bitwidth=512`.
    Scalar,
    /// AVX-512, where the CPU has it.
    Vector,
}

/// Why there is no opponent, or why it does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Built without it.
    #[error("built without DPDK: `apt-get install libdpdk-dev`, and run `scripts/bench lpm` again")]
    NotBuilt,
    /// It refuses, or there is no memory for its heap.
    #[error("DPDK does not start: error {0}")]
    NotStarted(i32),
    /// There is no room for the table in DPDK's heap.
    #[error("no table: DPDK has no room for it")]
    NoTable,
    /// A route is refused, most often because all groups of 256 are in use.
    #[error("route refused: error {0}")]
    Refused(i32),
    /// A CPU without AVX-512.
    #[error("this lookup does not run on this CPU")]
    NoSuchLookup,
}
