//! What a socket tells about itself.

use crate::sys::RawStatistics;

/// What a kick did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// No system call was due.
    Idle,
    /// The kernel took what there was, as far as it says.
    Done,
    /// Not all was taken (EAGAIN: the budget is used up; ENOBUFS): kick again in the next round.
    Again,
    /// The device refused a packet, which is lost and will complete (EBUSY): its peer is down or its
    /// queue full.
    Refused,
    /// The interface is down (ENETDOWN): the packets wait in the ring.
    Down,
}

/// What happened at the edge of a socket, since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kicks that ended in [`Kick::Again`].
    pub kicks_again: u64,
    /// Kicks that ended in [`Kick::Refused`]: as many packets lost.
    pub kicks_refused: u64,
    /// Kicks that ended in [`Kick::Down`].
    pub kicks_down: u64,
    /// Packets that [`Socket::send`](crate::Socket::send) could not send: no octets, too many chunks, or no room.
    pub unsendable: u64,
    /// Refills that found the pool and the depot empty while the fill ring had room.
    pub starved: u64,
    /// Descriptors that name a chunk which the kernel did not have, or octets outside of it.
    pub bogus: u64,
}

/// The kernel's counters (XDP_STATISTICS), since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets not received for reasons other than the next three, as: longer than a chunk.
    pub rx_dropped: u64,
    /// Fill-ring entries that named no chunk.
    pub rx_invalid: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Packets dropped because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// TX descriptors that were skipped as wrong.
    pub tx_invalid: u64,
    /// Times that the kernel found the TX ring empty.
    pub tx_ring_empty: u64,
}

impl From<RawStatistics> for Statistics {
    fn from(raw: RawStatistics) -> Self {
        Self {
            rx_dropped: raw.rx_dropped,
            rx_invalid: raw.rx_invalid_descs,
            rx_ring_full: raw.rx_ring_full,
            fill_ring_empty: raw.rx_fill_ring_empty_descs,
            tx_invalid: raw.tx_invalid_descs,
            tx_ring_empty: raw.tx_ring_empty_descs,
        }
    }
}
