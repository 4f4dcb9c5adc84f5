//! DPDK's forwarding tables `rte_fib` and `rte_fib6`, its scheduler `rte_sched` and its policers `rte_meter`, as the
//! opponents of a bench.
//!
//! Nothing of Penstock's needs DPDK. With the feature `dpdk` this crate links it (`apt-get install libdpdk-dev`);
//! without, [`start`] says that it is not there, and there is never any of them.

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "dpdk")]
pub use dpdk::{Fib4, Fib6, Meters, Reader4, Reader6, Scheduler, Writer4, Writer6, start};

#[cfg(not(feature = "dpdk"))]
mod absent;
#[cfg(not(feature = "dpdk"))]
pub use absent::{Fib4, Fib6, Meters, Reader4, Reader6, Scheduler, Writer4, Writer6, start};

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

/// Which of the meters; both rates' buckets are full at first, and colours that packets came with do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// `rte_meter_srtcm`.
    Rfc2697,
    /// `rte_meter_trtcm`.
    Rfc2698,
    /// `rte_meter_trtcm_rfc4115`.
    Rfc4115,
}

/// What a meter has: rates in bit/s, bursts in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The committed rate.
    pub cir: u64,
    /// The peak rate of RFC 2698, the excess rate of RFC 4115.
    pub pir: u64,
    /// The committed burst.
    pub cbs: u64,
    /// The second burst.
    pub pbs: u64,
}

/// Why there is no opponent, or why it does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Built without it.
    #[error("built without DPDK: `apt-get install libdpdk-dev pkg-config`, and run `scripts/bench` again")]
    NotBuilt,
    /// It refuses, or there is no memory for its heap.
    #[error("DPDK does not start: error {0}")]
    NotStarted(i32),
    /// There is no room for the table in DPDK's heap.
    #[error("no table: DPDK has no room for it")]
    NoTable,
    /// There is no room for the scheduler or its packets, or the pipes are no power of two.
    #[error("no scheduler: DPDK has no room for it, or refuses so many pipes")]
    NoScheduler,
    /// There is no room for the meters, or DPDK refuses the profile.
    #[error("no meters: DPDK has no room for them, or refuses their profile")]
    NoMeters,
    /// A route is refused, most often because all groups of 256 are in use.
    #[error("route refused: error {0}")]
    Refused(i32),
    /// A CPU without AVX-512.
    #[error("this lookup does not run on this CPU")]
    NoSuchLookup,
}
