//! Out of tunnels without a header of their own.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::endure(&["ipip", "sit", "ip6ip6", "ip4ip6"], data));
