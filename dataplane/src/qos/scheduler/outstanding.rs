//! How much of a port's packets is in its ring: what waits there is out of the scheduler's hands, in the order in which it was
//! given, unmarked. So it is no more than keeps the link busy from one round to the next (the idea of Linux's BQL).

use crate::packet::{Batch, Outstanding};
use crate::qos::spec::Rate;

/// What a queue may let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Descriptors: a packet takes as many as its frame has chunks.
    pub descriptors: usize,
    /// Octets on the wire, of which the last packet may be in excess.
    pub octets: u64,
}

impl Room {
    /// So many descriptors, whatever their packets' length.
    pub const fn of(descriptors: usize) -> Self {
        Self { descriptors, octets: u64::MAX }
    }
}

impl From<usize> for Room {
    fn from(descriptors: usize) -> Self {
        Self::of(descriptors)
    }
}

/// What a port's ring may hold: the octets of some time at its rate, or some batches, whichever is more.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    octets: u64,
}

/// Nanoseconds of the port's rate.
const HELD_NS: u64 = 20_000;
/// Descriptors, however slow the port is: one batch is on its way while the worker makes the next.
const HELD: usize = 2 * Batch::SIZE;

impl Bound {
    /// Of a port with that rate, if it is known.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { octets: rate.map_or(0, |rate| rate.octets_in(HELD_NS)) }
    }

    /// What may still be given to a ring that has `free` descriptors.
    #[inline]
    pub fn room(&self, free: usize, held: Outstanding) -> Room {
        let descriptors = HELD.saturating_sub(held.descriptors);
        let octets = self.octets.saturating_sub(held.octets);
        // A batch that may go anyway need not be counted in octets.
        if descriptors < Batch::SIZE && octets != 0 {
            Room { descriptors: free, octets }
        } else {
            Room::of(free.min(descriptors))
        }
    }

    /// Whether half of what the ring may hold is gone.
    pub const fn is_half_empty(&self, held: Outstanding) -> bool {
        held.descriptors <= HELD / 2 || held.octets <= self.octets / 2
    }
}
