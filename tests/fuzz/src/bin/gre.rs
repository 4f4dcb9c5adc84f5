//! Out of tunnels of type `gre`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::endure(&["gre"], data));
