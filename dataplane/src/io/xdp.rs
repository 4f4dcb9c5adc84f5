//! AF_XDP: one queue of an interface.

use super::ledger::Ledger;
use super::{Driver, Losses};
use crate::packet::{Batch, Outstanding, Packet, PortId, Stock, Time};
use std::os::fd::{AsFd, BorrowedFd};
use xsk::{Kick, Socket};

/// A socket as a port.
pub struct Xdp {
    socket: Socket,
    ledger: Ledger,
    /// The peer leaves transport checksums to hardware (veth, virtio).
    unfinished: bool,
    /// The last kick says that the kernel wants another.
    again: bool,
    /// Losses that were told.
    told: Losses,
}

impl Xdp {
    /// Over a bound socket. `unfinished`: the interface's peer may be a kernel that counts on checksum offload.
    pub fn new(socket: Socket, unfinished: bool) -> Self {
        let ledger = Ledger::new(socket.most_outstanding());
        Self { socket, ledger, unfinished, again: false, told: Losses::default() }
    }

    /// The socket, for its statistics.
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether sent packets still wait for a kick.
    pub const fn is_pending(&self) -> bool {
        self.again
    }
}

impl Driver for Xdp {
    #[inline]
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        let mut count = 0;
        while batch.room() > 0
            && let Some(frame) = self.socket.receive()
        {
            frame.prefetch();
            batch.push(stock.wrap(frame, port, self.unfinished, now));
            count += 1;
        }
        if count > 0 {
            self.socket.refill(&mut stock.frames);
        }
        0
    }

    #[inline]
    fn room(&self) -> usize {
        self.socket.tx_room()
    }

    #[inline]
    fn outstanding(&self) -> Outstanding {
        self.ledger.outstanding(self.socket.outstanding())
    }

    #[inline]
    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        let (octets, before) = (packet.frame.total(), self.socket.outstanding());
        self.socket.send(stock.unwrap(packet));
        self.ledger.give(self.socket.outstanding() - before, octets);
    }

    #[inline]
    fn flush(&mut self, stock: &mut Stock) -> bool {
        let kicked = self.socket.flush();
        self.socket.reap(&mut stock.frames);
        // A fill ring that ran dry while the pool was empty is filled when there are frames again.
        self.socket.refill(&mut stock.frames);
        let woken = self.socket.wake_rx();
        self.again = matches!(kicked, Ok(Kick::Again));
        kicked.is_ok() && woken.is_ok()
    }

    fn losses(&mut self) -> Losses {
        // A socket whose device is gone has nothing to say any more.
        let kernel = self.socket.statistics().unwrap_or_default();
        let own = self.socket.counters();
        let all = Losses {
            missed: kernel.rx_dropped + kernel.rx_ring_full + kernel.fill_ring_empty,
            unsent: kernel.tx_invalid + own.unsendable + own.kicks_refused,
        };
        let fresh = Losses {
            missed: all.missed.saturating_sub(self.told.missed),
            unsent: all.unsent.saturating_sub(self.told.unsent),
        };
        self.told = all;
        fresh
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn close(self, stock: &mut Stock) {
        self.socket.close(&mut stock.frames);
    }
}
