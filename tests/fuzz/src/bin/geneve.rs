//! Out of tunnels of type `geneve`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::endure(&["geneve"], data));
