//! The default routes of all VRFs, which blocks leave out so that a change of one is one store.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// For each VRF 16 bits that say what an address without a longer route falls to, above them the number of changes so far.
#[derive(Debug)]
pub(crate) struct Defaults(Box<[AtomicU32]>);

impl Defaults {
    /// None, for so many VRFs.
    pub fn new(vrfs: usize) -> Self {
        Self((0..vrfs).map(|_| AtomicU32::new(0)).collect())
    }

    /// The writer's: what is there now.
    pub fn bits(&self, vrf: u16) -> u16 {
        self.0[usize::from(vrf)].load(Relaxed) as u16
    }

    /// A change, in one store, even if the bits are the same.
    pub fn set(&self, vrf: u16, bits: u16) {
        let default = &self.0[usize::from(vrf)];
        let changes = (default.load(Relaxed) >> 16).wrapping_add(1);
        default.store(changes << 16 | u32::from(bits), Release);
    }

    /// What readers take one of by [`read`].
    pub fn all(&self) -> &[AtomicU32] {
        &self.0
    }
}

/// What a reader sees of a default route: equal if it has not changed in between. (But for 65,536 changes within a lookup.)
pub(crate) fn read(default: &AtomicU32) -> u32 {
    default.load(Acquire)
}

/// Looks up with default routes that are the same before and after, again if they are not. Else an address could fall to a
/// default route that never applied to it: no longer route is found, then there comes one, and then another default route
/// in its stead.
///
/// That both reads give the same change says that what was found in between is of its time: the first is an acquire load,
/// so nothing older than the change is found, and what is found is by acquire loads, so had it come after the next change,
/// the second read would see that one.
#[inline(always)]
pub(crate) fn settled<D: PartialEq, R>(read: impl Fn() -> D, mut look_up: impl FnMut(&D) -> R) -> R {
    let mut before = read();
    loop {
        let found = look_up(&before);
        let after = read();
        if after == before {
            return found;
        }
        before = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_in_which_a_default_route_changes_begins_again_though_it_is_the_same_again() {
        let defaults = Defaults::new(2);
        defaults.set(1, 7);
        let mut times = 0;
        let default = &defaults.all()[1];
        let found = settled(
            || read(default),
            |default| {
                times += 1;
                if times < 3 {
                    defaults.set(1, 8);
                    defaults.set(1, 7);
                }
                (times, *default as u16)
            },
        );
        assert_eq!(found, (3, 7));
    }
}
