//! Out of tunnels of type `vxlan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::endure(&["vxlan"], data));
