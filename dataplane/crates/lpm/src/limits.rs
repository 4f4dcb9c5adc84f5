//! What the tables of both families have in common: bounds, what they hold, why they refuse.

use crate::{Prefix, Value};

/// A route that comes, goes, or gets another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<A> {
    /// The VRF that has the route.
    pub vrf: u16,
    /// Where it leads.
    pub prefix: Prefix<A>,
    /// Its value from now on; `None` takes it out.
    pub value: Option<Value>,
}

/// How much a table may hold. Both are address space until they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// VRFs, numbered from 0: each reserves 1 MiB for IPv4 or 64 MiB for IPv6, and one without
    /// routes uses none of it.
    pub vrfs: u16,
    /// Octets for what lies below the first bits of an address, all VRFs together.
    pub bytes: usize,
}

impl Default for Limits {
    /// 1,024 VRFs and 256 MiB: ten times a full Internet table of IPv4, or one of IPv6.
    fn default() -> Self {
        Self { vrfs: 1024, bytes: 256 << 20 }
    }
}

/// What a table holds, and what it takes. The writer's own list of routes is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Prefixes of all VRFs.
    pub prefixes: usize,
    /// Octets out of [`Limits::bytes`] that lookups can reach.
    pub used_bytes: usize,
    /// Octets out of [`Limits::bytes`] that wait for readers: see `reclaim`.
    pub retired_bytes: usize,
    /// [`Limits::bytes`], rounded down to what can be used.
    pub limit_bytes: usize,
    /// Octets of memory behind the table: what was ever written stays, for what comes next.
    pub resident_bytes: usize,
}

/// Why a table cannot be made or a route not be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The VRF's number is beyond the table.
    #[error("vrf {vrf}: the table holds {vrfs} VRFs, numbered from 0")]
    NoSuchVrf {
        /// The number given.
        vrf: u16,
        /// [`Limits::vrfs`].
        vrfs: u16,
    },
    /// There is no room for the route. If enough is retired, it can be tried again after
    /// `reclaim`.
    #[error(
        "table full: the route needs {needed_bytes} bytes, {free_bytes} of {limit_bytes} are free \
         and {retired_bytes} wait for readers"
    )]
    Full {
        /// What the route takes.
        needed_bytes: usize,
        /// What is free.
        free_bytes: usize,
        /// What a reclaim would free.
        retired_bytes: usize,
        /// What there is in all.
        limit_bytes: usize,
    },
    /// The system refuses to reserve the memory, or the limit is beyond what can be numbered.
    #[error("cannot reserve {bytes} bytes and {vrfs} VRFs for routes")]
    NoMemory {
        /// [`Limits::bytes`].
        bytes: usize,
        /// [`Limits::vrfs`].
        vrfs: u16,
    },
}
