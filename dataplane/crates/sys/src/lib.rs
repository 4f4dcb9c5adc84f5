//! The system calls and instructions that need `unsafe`, or that the standard library lacks,
//! behind a safe interface: TUN/TAP, CPU affinity, clock, wake-ups, signals, capabilities,
//! namespaces, ethtool, prefetch, reserved memory.
//!
//! Nothing here knows what Penstock is. Errors are [`std::io::Error`] with the kernel's
//! errno: what was being done and to which device is for the caller to say. AF_XDP is the
//! crate `xsk`; netlink needs no `unsafe` and is in `dataplane`.

pub mod affinity;
pub mod caps;
pub mod clock;
pub mod ethtool;
pub mod netdev;
pub mod netns;
mod pages;
pub mod poll;
mod prefetch;
pub mod signals;
pub mod tun;
mod wake;

pub use pages::{Pages, advise_huge};
pub use prefetch::{prefetch_element, prefetch_read};
pub use wake::Wake;
