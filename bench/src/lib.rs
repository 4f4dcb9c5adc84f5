//! What the benches share: a gateway in memory, and the file that figures go to.
#![forbid(unsafe_code)]

pub mod lab;
pub mod results;
pub mod rig;
