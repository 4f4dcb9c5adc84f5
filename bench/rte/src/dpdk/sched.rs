//! `rte_sched`.

use super::Opaque;
use crate::{Error, Started};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;

unsafe extern "C" {
    fn rte_shim_sched_new(subports: c_uint, pipes: c_uint) -> *mut Opaque;
    fn rte_shim_packets_new(count: usize, octets: c_uint) -> *mut Opaque;
    fn rte_shim_packet(packets: *mut Opaque, at: usize) -> *mut Opaque;
    fn rte_shim_packet_bind(port: *mut Opaque, packet: *mut Opaque, subport: c_uint, pipe: c_uint, queue: c_uint);
    fn rte_sched_port_enqueue(port: *mut Opaque, packets: *const *mut Opaque, count: c_uint) -> c_int;
    fn rte_sched_port_dequeue(port: *mut Opaque, packets: *mut *mut Opaque, count: c_uint) -> c_int;
    fn rte_sched_port_free(port: *mut Opaque);
    fn rte_free(memory: *mut c_void);
}

/// A port's scheduler: subports with pipes of eight queues, and packets that wait in them, go in, come out or are spare.
#[derive(Debug)]
pub struct Scheduler {
    port: NonNull<Opaque>,
    subports: u32,
    /// Of each.
    pipes: u32,
    packets: NonNull<Opaque>,
    /// The one used last is used next.
    spare: Vec<*mut Opaque>,
    batch: Vec<*mut Opaque>,
}

impl Scheduler {
    /// Of a pipe.
    pub const QUEUES: u32 = 8;

    /// With so many subports, so many pipes in each, a power of two, and so many packets of so many octets.
    ///
    /// # Errors
    ///
    /// [`Error::NoScheduler`].
    pub fn new(_: Started, subports: u32, pipes: u32, packets: usize, octets: u32) -> Result<Self, Error> {
        // SAFETY: DPDK runs, as `Started` proves.
        let port = NonNull::new(unsafe { rte_shim_sched_new(subports, pipes) }).ok_or(Error::NoScheduler)?;
        // SAFETY: as above.
        let Some(memory) = NonNull::new(unsafe { rte_shim_packets_new(packets, octets) }) else {
            // SAFETY: made above, and nobody else has it.
            unsafe { rte_sched_port_free(port.as_ptr()) }
            return Err(Error::NoScheduler);
        };
        // SAFETY: the memory holds so many packets.
        let spare = (0..packets).map(|at| unsafe { rte_shim_packet(memory.as_ptr(), at) }).collect();
        Ok(Self { port, subports, pipes, packets: memory, spare, batch: Vec::with_capacity(packets) })
    }

    /// Takes a spare packet into the batch, for this queue of this subport's pipe. False when there is none.
    ///
    /// # Panics
    ///
    /// Without such a subport, pipe or queue.
    pub fn put(&mut self, subport: u32, pipe: u32, queue: u32) -> bool {
        assert!(subport < self.subports && pipe < self.pipes && queue < Self::QUEUES);
        let Some(packet) = self.spare.pop() else { return false };
        // SAFETY: both are there until the scheduler is dropped, and a spare packet is nobody else's.
        unsafe { rte_shim_packet_bind(self.port.as_ptr(), packet, subport, pipe, queue) }
        self.batch.push(packet);
        true
    }

    /// The batch goes into its queues; how many were taken. What is not, as its queue is full, does not come back.
    #[inline]
    pub fn enqueue(&mut self) -> usize {
        // SAFETY: the packets of a batch are nobody else's, and each is bound to a queue of this port. What is refused is
        // left alone: its count of references is one higher than DPDK knows of.
        let taken =
            unsafe { rte_sched_port_enqueue(self.port.as_ptr(), self.batch.as_ptr(), self.batch.len() as c_uint) };
        self.batch.clear();
        taken as usize
    }

    /// Up to so many packets come out into the batch; how many.
    #[inline]
    pub fn dequeue(&mut self, count: usize) -> usize {
        self.batch.clear();
        let count = count.min(self.batch.capacity());
        // SAFETY: there is room for so many, and the first of them are written, as many as is said: packets that went in.
        unsafe {
            let come = rte_sched_port_dequeue(self.port.as_ptr(), self.batch.as_mut_ptr(), count as c_uint) as usize;
            self.batch.set_len(come);
            come
        }
    }

    /// The packets of the batch are spare again.
    pub fn recycle(&mut self) {
        self.spare.append(&mut self.batch);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // SAFETY: made by `new` and not freed. What waits is let go of with the port, which finds one reference more than
        // its own and leaves the memory to us.
        unsafe {
            rte_sched_port_free(self.port.as_ptr());
            rte_free(self.packets.as_ptr().cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start;

    #[test]
    fn gives_back_what_went_in_and_refuses_what_a_full_queue_has_no_room_for() {
        let started = start(0, 512).expect("half a gigabyte is there");
        let mut scheduler = Scheduler::new(started, 2, 16, 100, 64).expect("there is room");
        for at in 0..10 {
            assert!(scheduler.put(at % 2, at, at % Scheduler::QUEUES));
        }
        assert_eq!(scheduler.enqueue(), 10);
        let mut come = 0;
        while come < 10 {
            come += scheduler.dequeue(64);
            scheduler.recycle();
        }
        assert_eq!((come, scheduler.dequeue(64)), (10, 0));
        while scheduler.put(1, 3, 7) {}
        let taken = scheduler.enqueue();
        assert!((60..=64).contains(&taken), "a queue has 64 places: {taken}");
    }
}
