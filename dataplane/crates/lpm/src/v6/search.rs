//! What a lookup does with vectors: how many keys of a line are smaller than an address's, and the
//! first steps of many addresses at once.
#![expect(unsafe_code, reason = "vectors take a batch from 10 ns for an address to 4: see `Search`")]

use super::*;

/// What a batch does with vectors, if there are any.
///
/// For an address of a full table (Zen 5, prefixes drawn uniformly), a batch takes 10.3 ns with
/// [`Portable`], 6.4 with `Sse2`, 5.7 with `Avx2`, and 3.6 with `Avx512`, whose keys are as fast as
/// those of `Avx2`: what it gains is [`Search::arrive`].
pub(super) trait Search: Copy {
    /// How many of the first 8 keys of a line are smaller than an address's.
    fn leaf(line: &Line, key: u32) -> usize;

    /// How many of the 16 are.
    fn node(line: &Line, key: u32) -> usize;

    /// Where the addresses come to by the direct table, and some by arrays. The lines that they
    /// have come to are asked for.
    #[inline(always)]
    fn arrive<const N: usize>(start: Start<'_>, addresses: &[u128; N], entries: &mut [Entry; N]) -> Kinds {
        let mut kinds = Kinds::default();
        for lane in 0..N {
            entries[lane] = start.first(addresses[lane]);
            kinds.add(lane, entries[lane]);
        }
        kinds
    }
}

/// What a VRF's addresses are looked up in first.
#[derive(Clone, Copy)]
pub(super) struct Start<'t> {
    /// The VRF's entries, one for each slot.
    pub direct: &'t [AtomicU32; SLOTS],
    /// The first octets that any of these is under.
    pub octets: &'t Octets,
    /// The memory.
    pub halves: &'t [AtomicU32],
    /// No entry is larger.
    pub last: u32,
}

impl Start<'_> {
    /// The entry of an address's slot.
    #[inline(always)]
    pub fn first(self, address: u128) -> Entry {
        let entry = self.entry(address);
        // Of an array, the part that will be read.
        let octet = (address >> (SLOT_SHIFT - 8)) as usize & 0xff;
        let at = if entry.kind() == Entry::ARRAY { octet } else { 0 };
        self.prefetch(entry, at);
        entry
    }

    /// Acquire pairs with the writer's release: who sees a block sees what is in it, and in those
    /// below it.
    #[inline(always)]
    pub fn entry(self, address: u128) -> Entry {
        Entry(self.direct[(address >> SLOT_SHIFT) as usize].load(Acquire))
    }

    /// An entry as it is, if it is one.
    #[inline(always)]
    pub fn limited(self, entry: u32) -> Entry {
        Entry(entry.min(self.last))
    }

    #[inline(always)]
    pub fn prefetch(self, entry: Entry, half: usize) {
        let at = entry.line() * LINE_HALVES + half;
        debug_assert!(at < self.halves.len());
        // SAFETY: what an entry leads to, or within the margin behind.
        sys::prefetch_read(unsafe { self.halves.get_unchecked(at) });
    }
}

/// The most lanes that there are in a batch.
pub(super) const LANES: usize = u64::BITS as usize;

/// Which lanes have which kinds of entries, other leaves than the empty one apart, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds {
    pub nodes: u64,
    pub arrays: u64,
    pub hosts: u64,
    /// Without any route: many where addresses are made up.
    pub empty: u64,
}

impl Kinds {
    #[inline(always)]
    pub fn add(&mut self, lane: usize, entry: Entry) {
        self.nodes |= u64::from(entry.kind() == Entry::NODE) << lane;
        self.arrays |= u64::from(entry.kind() == Entry::ARRAY) << lane;
        self.hosts |= u64::from(entry.kind() == Entry::HOST) << lane;
        self.empty |= u64::from(entry == Entry::NONE) << lane;
    }
}

/// A line as vectors see it.
pub(super) type Line = [AtomicU32; LINE_HALVES];

/// A compare after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Portable {
    #[inline(always)]
    fn below<const N: usize>(line: &Line, key: u32) -> usize {
        line[..N].iter().map(|kept| usize::from((kept.load(Relaxed) as i32) < biased(key) as i32)).sum()
    }
}

impl Search for Portable {
    #[inline(always)]
    fn leaf(line: &Line, key: u32) -> usize {
        Self::below::<LEAF_KEYS>(line, key)
    }

    #[inline(always)]
    fn node(line: &Line, key: u32) -> usize {
        Self::below::<NODE_KEYS>(line, key)
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use x86::{Avx2, Avx512, Sse2};

#[cfg(all(target_arch = "aarch64", target_endian = "little", not(miri)))]
pub(super) use arm::Neon;

#[cfg(all(target_arch = "aarch64", target_endian = "little", not(miri)))]
mod arm {
    use std::arch::aarch64::*;

    use super::*;

    /// Every aarch64 CPU that has an operating system.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Neon;

    impl Neon {
        /// Minus one where a key, of four from `at` on, is smaller.
        #[inline(always)]
        fn quarter(line: &Line, at: usize, key: u32) -> int32x4_t {
            // SAFETY: four of the line's words, and NEON is part of the target. About races, see
            // the loads for x86-64.
            unsafe {
                let keys = vld1q_s32(line[at..at + 4].as_ptr().cast());
                vreinterpretq_s32_u32(vcltq_s32(keys, vdupq_n_s32(biased(key) as i32)))
            }
        }

        #[inline(always)]
        fn half(line: &Line, at: usize, key: u32) -> int32x4_t {
            // SAFETY: NEON is part of the target.
            unsafe { vaddq_s32(Self::quarter(line, at, key), Self::quarter(line, at + 4, key)) }
        }
    }

    impl Search for Neon {
        #[inline(always)]
        fn leaf(line: &Line, key: u32) -> usize {
            // SAFETY: NEON is part of the target.
            unsafe { -vaddvq_s32(Self::half(line, 0, key)) as usize }
        }

        #[inline(always)]
        fn node(line: &Line, key: u32) -> usize {
            // SAFETY: NEON is part of the target.
            unsafe { -vaddvq_s32(vaddq_s32(Self::half(line, 0, key), Self::half(line, 8, key))) as usize }
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    /// Every x86-64 CPU.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Sse2;

    /// For CPUs with AVX2, and only called from functions that have it enabled: see `Level`.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Avx2;

    /// The same for AVX-512, F, BW and VL.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Avx512;

    // The loads below are plain ones of memory that is otherwise seen through atomics. That is no
    // race: a line is written before the entry that leads to it is released, and again only after
    // the owner has said that no reader is in it. Where that is not true, each is still one
    // instruction that loads some bits.

    impl Sse2 {
        /// All ones where a key, of four from `at` on, is smaller.
        #[inline(always)]
        fn quarter(line: &Line, at: usize, key: __m128i) -> __m128i {
            // SAFETY: four of the line's words; SSE2 is part of x86-64. See above for races.
            unsafe { _mm_cmpgt_epi32(key, _mm_loadu_si128(line[at..at + 4].as_ptr().cast())) }
        }
    }

    impl Search for Sse2 {
        #[inline(always)]
        fn leaf(line: &Line, key: u32) -> usize {
            // SAFETY: SSE2 is part of x86-64.
            unsafe {
                let key = _mm_set1_epi32(biased(key) as i32);
                let both = _mm_packs_epi32(Self::quarter(line, 0, key), Self::quarter(line, 4, key));
                // Two bits for each key, and the smaller ones are first.
                (!_mm_movemask_epi8(both)).trailing_zeros() as usize / 2
            }
        }

        #[inline(always)]
        fn node(line: &Line, key: u32) -> usize {
            // SAFETY: SSE2 is part of x86-64.
            unsafe {
                let key = _mm_set1_epi32(biased(key) as i32);
                let low = _mm_packs_epi32(Self::quarter(line, 0, key), Self::quarter(line, 4, key));
                let high = _mm_packs_epi32(Self::quarter(line, 8, key), Self::quarter(line, 12, key));
                (!_mm_movemask_epi8(_mm_packs_epi16(low, high))).trailing_zeros() as usize
            }
        }
    }

    impl Avx2 {
        #[inline(always)]
        fn half(line: &Line, at: usize, key: u32) -> u32 {
            // SAFETY: eight of the line's words; the type says that there is AVX2. See above for races.
            unsafe {
                let keys = _mm256_loadu_si256(line[at..at + 8].as_ptr().cast());
                let less = _mm256_cmpgt_epi32(eight(key), keys);
                _mm256_movemask_ps(_mm256_castsi256_ps(less)) as u32
            }
        }
    }

    /// A key as it is kept, eight times; in this order it comes from memory in one instruction.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn eight(key: u32) -> __m256i {
        _mm256_xor_si256(_mm256_set1_epi32(key as i32), _mm256_set1_epi32(biased(0) as i32))
    }

    impl Search for Avx2 {
        #[inline(always)]
        fn leaf(line: &Line, key: u32) -> usize {
            Self::half(line, 0, key).count_ones() as usize
        }

        #[inline(always)]
        fn node(line: &Line, key: u32) -> usize {
            let mask = Self::half(line, 0, key) | Self::half(line, 8, key) << 8;
            mask.count_ones() as usize
        }
    }

    impl Search for Avx512 {
        #[inline(always)]
        fn leaf(line: &Line, key: u32) -> usize {
            // SAFETY: as for `Avx2::half`.
            unsafe {
                let keys = _mm256_loadu_si256(line[..8].as_ptr().cast());
                let less = _mm256_cmpgt_epi32_mask(eight(key), keys);
                less.count_ones() as usize
            }
        }

        #[inline(always)]
        fn node(line: &Line, key: u32) -> usize {
            // SAFETY: all of the line; the type says that there is AVX-512. See above for races.
            unsafe {
                let keys = _mm512_loadu_si512(line.as_ptr().cast());
                let less = _mm512_cmpgt_epi32_mask(
                    _mm512_xor_si512(_mm512_set1_epi32(key as i32), _mm512_set1_epi32(biased(0) as i32)),
                    keys,
                );
                less.count_ones() as usize
            }
        }

        #[inline(always)]
        fn arrive<const N: usize>(start: Start<'_>, addresses: &[u128; N], entries: &mut [Entry; N]) -> Kinds {
            // SAFETY: the type says that there is AVX-512.
            let kinds = unsafe { arrive(start, addresses, entries) };
            for &entry in entries.iter() {
                start.prefetch(entry, 0);
            }
            kinds
        }
    }

    /// What is under no octet that has entries reads none: of made up addresses that is most, and
    /// theirs are spread over thousands of pages (2000::/3 of a full table, Zen 5: 1.8 ns with all
    /// of them, 1.2 without).
    ///
    /// Sixteen lanes at a time, and as far as the first eight octets go also by arrays: those are
    /// indexed by one octet after the other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn arrive<const N: usize>(start: Start<'_>, addresses: &[u128; N], entries: &mut [Entry; N]) -> Kinds {
        const { assert!(N.is_multiple_of(16) && N <= LANES, "whole vectors") };
        const { assert!(DIRECT == 3, "the fourth octet is the first array's") };
        let kind = |entries, kind| {
            _mm512_cmpeq_epi32_mask(_mm512_and_si512(entries, _mm512_set1_epi32(3)), _mm512_set1_epi32(kind as i32))
        };
        let last = _mm512_set1_epi32(start.last as i32);
        let [a, b, c, d] = start.octets.each_ref().map(|bits| bits.load(Acquire).cast_signed());
        let under = _mm512_castsi256_si512(_mm256_setr_epi64x(a, b, c, d));
        let (addresses, _) = addresses.as_chunks::<16>();
        let (entries, _) = entries.as_chunks_mut::<16>();
        let mut found = [_mm512_setzero_si512(); LANES / 16];
        let mut octets = [[_mm512_setzero_si512(); 2]; LANES / 16];
        let mut arrays = [0; LANES / 16];
        for (group, addresses) in addresses.iter().enumerate() {
            octets[group] = upper(addresses);
            let slots = _mm512_srli_epi32::<8>(octets[group][0]);
            // Of the 256 bits, the 32 with that of the first octet.
            let bits = _mm512_permutexvar_epi32(_mm512_srli_epi32::<29>(octets[group][0]), under);
            let octet = _mm512_and_si512(_mm512_srli_epi32::<24>(octets[group][0]), _mm512_set1_epi32(31));
            let lanes = _mm512_test_epi32_mask(_mm512_srlv_epi32(bits, octet), _mm512_set1_epi32(1));
            // SAFETY: numbers of 24 bits.
            found[group] = unsafe { gather(start.direct, slots, lanes, _mm512_setzero_si512()) };
            arrays[group] = kind(found[group], Entry::ARRAY);
        }
        // The octets from the fourth on: the last of the first word, then the second word's.
        for round in 0..5 {
            if arrays.iter().fold(0, |any, lanes| any | lanes) == 0 {
                break;
            }
            for group in 0..addresses.len() {
                let [first, second] = octets[group];
                let octet = if round == 0 { first } else { second };
                let octet = _mm512_srl_epi32(octet, _mm_cvtsi32_si128((32 - 8 * round) % 32));
                let octet = _mm512_and_si512(octet, _mm512_set1_epi32(0xff));
                let line = _mm512_slli_epi32::<4>(_mm512_srli_epi32::<{ Entry::LINE_SHIFT }>(found[group]));
                // SAFETY: at most 256 behind an entry's line, so within the margin.
                let next = unsafe { gather(start.halves, _mm512_add_epi32(line, octet), arrays[group], found[group]) };
                found[group] = _mm512_min_epu32(next, last);
                arrays[group] = kind(found[group], Entry::ARRAY);
            }
        }
        let mut kinds = Kinds::default();
        for (group, entries) in entries.iter_mut().enumerate() {
            kinds.nodes |= u64::from(kind(found[group], Entry::NODE)) << (16 * group);
            kinds.arrays |= u64::from(arrays[group]) << (16 * group);
            kinds.hosts |= u64::from(kind(found[group], Entry::HOST)) << (16 * group);
            let empty = _mm512_cmpeq_epi32_mask(found[group], _mm512_setzero_si512());
            kinds.empty |= u64::from(empty) << (16 * group);
            // SAFETY: sixteen entries, which are of 32 bits each.
            unsafe { _mm512_storeu_si512(entries.as_mut_ptr().cast(), found[group]) };
        }
        kinds
    }

    /// The first 32 bits of each address, and the second.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn upper(addresses: &[u128; 16]) -> [__m512i; 2] {
        // Of eight addresses, their fourth words and then their third, in memory's order.
        let order = _mm512_setr_epi32(3, 7, 11, 15, 19, 23, 27, 31, 2, 6, 10, 14, 18, 22, 26, 30);
        // SAFETY: four addresses of sixteen.
        let four = |at: usize| unsafe { _mm512_loadu_si512(addresses[4 * at..4 * at + 4].as_ptr().cast()) };
        let low = _mm512_permutex2var_epi32(four(0), order, four(1));
        let high = _mm512_permutex2var_epi32(four(2), order, four(3));
        [_mm512_shuffle_i64x2::<0x44>(low, high), _mm512_shuffle_i64x2::<0xee>(low, high)]
    }

    /// Entries by their numbers, in the lanes of the mask; the others are from `others`. Acquires.
    ///
    /// # Safety
    ///
    /// In these lanes, the number is one of an entry.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn gather(entries: &[AtomicU32], numbers: __m512i, lanes: u16, others: __m512i) -> __m512i {
        let mut found = others;
        // SAFETY: the caller's promise. The instruction loads each lane's 32 bits, aligned, so at
        // once: they are as many relaxed loads of atomics, which no function of the compiler's
        // does, and so may race with the writer's stores.
        unsafe {
            std::arch::asm!(
                "vpgatherdd {found}{{{lanes}}}, [{entries} + {numbers} * 4]",
                found = inout(zmm_reg) found,
                lanes = inout(kreg) lanes => _,
                entries = in(reg) entries.as_ptr(),
                numbers = in(zmm_reg) numbers,
                options(readonly, nostack, preserves_flags),
            );
        }
        std::sync::atomic::fence(Acquire);
        found
    }
}
