#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod control;
pub mod fib;
pub mod hash;
pub mod io;
pub mod packet;
pub mod pipeline;
pub mod print;
pub mod qos;
pub mod replay;
pub mod sentence;
pub mod simulate;
pub mod slow;
pub mod stats;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod tunnel;
pub mod worker;
