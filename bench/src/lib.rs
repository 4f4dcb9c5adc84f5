//! What the benches share: a gateway in memory, real routing tables and traffic for them, and the file that figures go to.
#![forbid(unsafe_code)]

pub mod acl;
pub mod family;
pub mod fib;
pub mod lab;
pub mod policer;
pub mod queues;
pub mod random;
pub mod results;
pub mod rig;
pub mod rivals;
pub mod routes;
mod series;
pub mod shaping;
pub mod traffic;
