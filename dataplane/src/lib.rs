//! dataplane
pub mod check;
pub mod config;
pub mod control;
pub mod fib;
pub mod hash;
pub mod io;
pub mod packet;
pub mod pipeline;
pub mod qos;
pub mod slow;
pub mod stats;
pub mod tables;
pub mod tunnel;
pub mod worker;
pub mod replay;
