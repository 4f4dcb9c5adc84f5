//! `rte_meter`.

use super::Opaque;
use crate::{Error, Meter, Profile, Started};
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::NonNull;

unsafe extern "C" {
    fn rte_shim_meters_new(kind: c_int, count: usize, cir: u64, pir: u64, cbs: u64, pbs: u64) -> *mut Opaque;
    fn rte_shim_meters_colour(
        meters: *mut Opaque,
        order: *const usize,
        count: usize,
        octets: u32,
        now: u64,
        colours: *mut u8,
    );
    fn rte_shim_meters_free(meters: *mut Opaque);
    fn rte_shim_cycles() -> u64;
    fn rte_get_tsc_hz() -> u64;
}

/// Meters with one profile, in the order in which packets come to them.
#[derive(Debug)]
pub struct Meters {
    all: NonNull<Opaque>,
    order: Vec<usize>,
    /// In the CPU's cycles: the same as DPDK counts in, but it goes on only when it is told.
    now: u64,
    hz: u64,
    colours: Vec<u8>,
}

impl Meters {
    /// As many as the order has entries.
    ///
    /// # Panics
    ///
    /// When an entry of the order is not below their number.
    ///
    /// # Errors
    ///
    /// [`Error::NoMeters`].
    pub fn new(_: Started, kind: Meter, profile: Profile, order: Vec<usize>) -> Result<Self, Error> {
        assert!(order.iter().all(|at| *at < order.len()));
        let kind = match kind {
            Meter::Rfc2697 => 0,
            Meter::Rfc2698 => 1,
            Meter::Rfc4115 => 2,
        };
        let Profile { cir, pir, cbs, pbs } = profile;
        // SAFETY: DPDK runs, as `Started` proves.
        let all = unsafe { rte_shim_meters_new(kind, order.len(), cir / 8, pir / 8, cbs, pbs) };
        let all = NonNull::new(all).ok_or(Error::NoMeters)?;
        // SAFETY: as above. No meter has seen a later time.
        let (now, hz) = unsafe { (rte_shim_cycles(), rte_get_tsc_hz()) };
        let colours = vec![0; order.len()];
        Ok(Self { all, order, now, hz, colours })
    }

    /// Time goes by.
    pub fn pass(&mut self, ns: u64) {
        self.now += (u128::from(ns) * u128::from(self.hz) / 1_000_000_000) as u64;
    }

    /// The colours of packets of so many octets, one for each meter of this part of the order: 0 is green, 2 is red.
    ///
    /// # Panics
    ///
    /// When the order does not have this part.
    #[inline]
    pub fn colour(&mut self, part: Range<usize>, octets: u32) -> &[u8] {
        let order = &self.order[part];
        let colours = &mut self.colours[..order.len()];
        // SAFETY: each entry of the order is a meter's, as `new` has seen, and there are as many places for colours.
        unsafe {
            let (order, count) = (order.as_ptr(), order.len());
            rte_shim_meters_colour(self.all.as_ptr(), order, count, octets, self.now, colours.as_mut_ptr());
        }
        colours
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        // SAFETY: made by `new` and not freed.
        unsafe { rte_shim_meters_free(self.all.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start;

    #[test]
    fn fills_buckets_by_each_of_the_three_standards() {
        let started = start(0, 512).expect("half a gigabyte is there");
        // Both buckets hold two packets. RFC 2698 takes a green one from the peak too, so there is no yellow one left.
        for (kind, expected) in
            [(Meter::Rfc2697, [0, 0, 1, 1, 2]), (Meter::Rfc2698, [0, 0, 2, 2, 2]), (Meter::Rfc4115, [0, 0, 1, 1, 2])]
        {
            let profile = Profile { cir: 8_000, pir: 8_000, cbs: 100, pbs: 100 };
            let mut meters = Meters::new(started, kind, profile, vec![1, 0]).expect("there is room");
            let colours = expected.map(|_| meters.colour(0..1, 50)[0]);
            assert_eq!(colours, expected, "{kind:?}");
            assert_eq!(meters.colour(0..2, 50), [2, 0], "{kind:?}: each has its own");
            // A packet's worth at 1,000 octets per second.
            meters.pass(51_000_000);
            assert_eq!(meters.colour(0..1, 50), [0], "{kind:?}");
        }
    }
}
