//! What the bench tells the programs: plain data, in words, the same on both sides.
//!
//! The bench includes this file; a crate of its own would be a fourth workspace for three structs.

/// Octets of a frame that a template covers, from the first one on: VXLAN over IPv6 with IPv6 and UDP inside takes
/// 132.
pub const TEMPLATE: usize = 160;
/// The same in words of 64 bits: the value of the map `TEMPLATES`, in memory order.
pub const TEMPLATE_WORDS: usize = TEMPLATE / 8;
/// Templates at most, unless the loader asks for more.
pub const FLOWS: u32 = 4096;

/// What `generate` does: the only value of the map `PLAN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Interface index of the device that frames leave by.
    pub device: u32,
    /// How many templates to go through, 1 or more.
    pub flows: u32,
    /// In random order instead of in turn.
    pub random: bool,
}

impl Plan {
    /// As the map holds it.
    pub const fn to_words(self) -> [u32; 4] {
        [self.device, self.flows, self.random as u32, 0]
    }

    /// From what the map holds.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { device: words[0], flows: words[1], random: words[2] != 0 }
    }
}

/// Which frames `sink` takes: the map `WANTED` has two, and a frame must match both. All zeros match everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Where in the frame the four octets stand that are compared, 0..=255.
    pub at: u32,
    /// Which bits are compared, as a number in network order.
    pub mask: u32,
    /// What they must be, as a number in network order; bits outside the mask are zero.
    pub value: u32,
}

impl Match {
    /// As the map holds it.
    pub const fn to_words(self) -> [u32; 4] {
        [self.at, self.mask, self.value, 0]
    }

    /// From what the map holds.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { at: words[0], mask: words[1], value: words[2] }
    }
}

/// Index in `COUNTS`, a per-CPU array of 64-bit numbers: frames that `generate` made.
pub const GENERATED: u32 = 0;
/// Frames that `sink` took, and dropped.
pub const TAKEN: u32 = 1;
/// Their octets.
pub const TAKEN_OCTETS: u32 = 2;
/// Frames that `sink` did not want, and passed to the kernel.
pub const PASSED: u32 = 3;
/// How many counts there are.
pub const COUNTS: u32 = 4;
