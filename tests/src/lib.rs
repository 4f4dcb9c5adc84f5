//! What the integration tests stand on: a lab of network namespaces ([`lab`], [`site`]), the program under test
//! ([`penstock`]), traffic that checks itself ([`traffic`]), captures ([`pcap`], [`frames`]) and the golden cases
//! ([`golden`]).
//!
//! Nothing here knows the inside of Penstock: what it says about a packet comes from the program's output, from
//! Linux at the far end, or from another decoder.
#![forbid(unsafe_code)]

pub mod frames;
pub mod golden;
pub mod lab;
pub mod needs;
pub mod pcap;
pub mod penstock;
pub mod program;
pub mod site;
pub mod traffic;
pub mod until;

pub use lab::{Host, Lab, LinkOptions};
pub use penstock::Penstock;
pub use site::{Site, Underlay};
pub use until::until;
