//! Drivers: where packets come from and go to.
//!
//! A driver is one file, a `mod` line, a variant of [`Port`] and its arms.

mod faulty;
mod ledger;
mod memory;
mod pcap;
mod tap;
mod xdp;

pub use faulty::{Faults, Faulty};
pub use memory::Memory;
pub use pcap::{Capture, CaptureError, PcapIn, PcapOut, Record};
pub use tap::{Outlet, Outlets, Tap};
pub use xdp::Xdp;

use crate::packet::{Batch, Outstanding, Packet, PortId, Stock, Time};
use std::os::fd::BorrowedFd;

/// Packets that the page has never seen, or has seen off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Arrived and not received: no room in the ring, or no frame that the kernel could have put them in.
    pub missed: u64,
    /// Sent and not gone out: the kernel refused them.
    pub unsent: u64,
}

/// What a driver does for a worker. All calls are the worker's own thread.
pub trait Driver {
    /// Adds received packets of `port` to the batch until it is full or nothing waits. Returns how many were lost
    /// because no frame was left.
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64;

    /// Descriptors that can be sent now: a packet takes one per chunk.
    fn room(&self) -> usize;

    /// What was sent and has not been seen to go out; nothing for a driver whose packets are gone when they are sent.
    fn outstanding(&self) -> Outstanding {
        Outstanding::default()
    }

    /// Sends a packet for which there is room, whole.
    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock);

    /// What was sent goes out, and what has gone out comes back to the stock. Once per round. `false`: the device is
    /// gone for good, and the port is to be closed.
    fn flush(&mut self, stock: &mut Stock) -> bool;

    /// What was lost outside of the page since this was asked last: by the kernel, or between it and the driver.
    fn losses(&mut self) -> Losses {
        Losses::default()
    }

    /// What to sleep on until packets come; `None` for a driver that is not a device.
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Frames that it holds go back to the stock.
    fn close(self, stock: &mut Stock);
}

/// The drivers there are.
#[expect(clippy::large_enum_variant, reason = "a worker has a handful of ports, for its whole life")]
pub enum Port {
    /// AF_XDP.
    Xdp(Xdp),
    /// A tunnel's device.
    Tap(Tap),
    /// Queues in memory, for simulation and benches.
    Memory(Memory),
    /// Any of them, with faults.
    Faulty(Box<Faulty>),
}

impl Driver for Port {
    #[inline]
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        match self {
            Self::Xdp(driver) => driver.receive(port, stock, batch, now),
            Self::Tap(driver) => driver.receive(port, stock, batch, now),
            Self::Memory(driver) => driver.receive(port, stock, batch, now),
            Self::Faulty(driver) => driver.receive(port, stock, batch, now),
        }
    }

    #[inline]
    fn room(&self) -> usize {
        match self {
            Self::Xdp(driver) => driver.room(),
            Self::Tap(driver) => driver.room(),
            Self::Memory(driver) => driver.room(),
            Self::Faulty(driver) => driver.room(),
        }
    }

    #[inline]
    fn outstanding(&self) -> Outstanding {
        match self {
            Self::Xdp(driver) => driver.outstanding(),
            Self::Tap(driver) => driver.outstanding(),
            Self::Memory(driver) => driver.outstanding(),
            Self::Faulty(driver) => driver.outstanding(),
        }
    }

    #[inline]
    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        match self {
            Self::Xdp(driver) => driver.send(packet, stock),
            Self::Tap(driver) => driver.send(packet, stock),
            Self::Memory(driver) => driver.send(packet, stock),
            Self::Faulty(driver) => driver.send(packet, stock),
        }
    }

    #[inline]
    fn flush(&mut self, stock: &mut Stock) -> bool {
        match self {
            Self::Xdp(driver) => driver.flush(stock),
            Self::Tap(driver) => driver.flush(stock),
            Self::Memory(driver) => driver.flush(stock),
            Self::Faulty(driver) => driver.flush(stock),
        }
    }

    fn losses(&mut self) -> Losses {
        match self {
            Self::Xdp(driver) => driver.losses(),
            Self::Tap(driver) => driver.losses(),
            Self::Memory(driver) => driver.losses(),
            Self::Faulty(driver) => driver.losses(),
        }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Xdp(driver) => driver.wait_on(),
            Self::Tap(driver) => driver.wait_on(),
            Self::Memory(driver) => driver.wait_on(),
            Self::Faulty(driver) => driver.wait_on(),
        }
    }

    fn close(self, stock: &mut Stock) {
        match self {
            Self::Xdp(driver) => driver.close(stock),
            Self::Tap(driver) => driver.close(stock),
            Self::Memory(driver) => driver.close(stock),
            Self::Faulty(driver) => driver.close(stock),
        }
    }
}
