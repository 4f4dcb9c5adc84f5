//! Devices of the kernel: a tunnel's TUN or TAP, and `penstock0`.
//!
//! The worker that reads a device has it as a port; every worker can write to it, because a write is one whole
//! packet to the kernel.

use super::Driver;
use crate::packet::{Batch, DropReason, Packet, PortId, Stock, Time, TunnelId, Vrf};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use sys::tun::Tun;

/// Longest packet that a device hands over, link header included: the largest MTU and a VLAN-tagged header.
const LONGEST: usize = 65_535 + 18;

/// Chunks of a packet that is written to a device at most: a datagram is put together from that many fragments.
const MOST_CHUNKS: usize = 64;

/// A device as a port: what the host sends into the tunnel.
pub struct Tap {
    device: Arc<Tun>,
    buffer: Box<[u8]>,
    /// The device was deleted: control makes another, and gives it to the worker as a new port.
    gone: bool,
}

impl Tap {
    /// Reads from the device.
    pub fn new(device: Arc<Tun>) -> Self {
        Self { device, buffer: vec![0; LONGEST].into(), gone: false }
    }
}

impl Driver for Tap {
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        let mut lost = 0;
        while batch.room() > 0 {
            let length = match self.device.read(&mut self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(_) => {
                    self.gone = true;
                    break;
                }
            };
            match stock.frames.frame_of(&self.buffer[..length]) {
                Some(frame) => {
                    let packet = stock.wrap(frame, port, false, now);
                    batch.push(packet);
                }
                None => lost += 1,
            }
        }
        lost
    }

    /// Nothing is routed to a device: what is for it is punted.
    fn room(&self) -> usize {
        0
    }

    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        stock.put(packet);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        !self.gone
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn close(self, _stock: &mut Stock) {}
}

/// Where punted packets go.
#[derive(Clone)]
pub enum Outlet {
    /// A device of the kernel.
    Device(Arc<Tun>),
    /// Nowhere, as if it were a device: in `replay`.
    Virtual,
}

impl Outlet {
    fn write(&self, packet: &Packet, ethernet: bool) -> Result<(), DropReason> {
        let Self::Device(device) = self else { return Ok(()) };
        let mut skip = if ethernet { 0 } else { usize::from(packet.l3) };
        let mut pieces = [IoSlice::new(&[]); MOST_CHUNKS];
        let mut count = 0;
        for segment in packet.frame.segments() {
            let Some(piece) = pieces.get_mut(count) else { return Err(DropReason::TooLong) };
            *piece = IoSlice::new(segment.get(skip..).unwrap_or(&[]));
            skip = skip.saturating_sub(segment.len());
            count += 1;
        }
        match device.write_vectored(&pieces[..count]) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(DropReason::DeviceFull),
        }
    }
}

/// All devices that a worker writes to.
#[derive(Clone, Default)]
pub struct Outlets {
    tunnels: Vec<Option<(Outlet, bool)>>,
    host: Option<Outlet>,
}

impl Outlets {
    /// None: everything for the host is dropped.
    pub fn none() -> Self {
        Self::default()
    }

    /// The device of a tunnel, and whether it takes Ethernet frames.
    pub fn set_tunnel(&mut self, id: TunnelId, outlet: Outlet, ethernet: bool) {
        if self.tunnels.len() <= id.index() {
            self.tunnels.resize(id.index() + 1, None);
        }
        self.tunnels[id.index()] = Some((outlet, ethernet));
    }

    /// The way to the host for what has no device of its own: `penstock0`.
    pub fn set_host(&mut self, outlet: Outlet) {
        self.host = Some(outlet);
    }

    /// Hands a packet to the kernel: by the device of the tunnel that it came out of; without one, in the default VRF,
    /// by `penstock0`.
    ///
    /// # Errors
    ///
    /// There is no way, or the kernel did not take it.
    pub fn write(&mut self, packet: &Packet) -> Result<(), DropReason> {
        if packet.tunnel != TunnelId::NONE
            && let Some(Some((outlet, ethernet))) = self.tunnels.get(packet.tunnel.index())
        {
            return outlet.write(packet, *ethernet);
        }
        match &self.host {
            Some(outlet) if packet.vrf == Vrf::DEFAULT => outlet.write(packet, false),
            _ => Err(DropReason::NoLocalPath),
        }
    }
}
