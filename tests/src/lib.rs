//! What the integration tests stand on: a lab of network namespaces ([`lab`], [`site`]), with real drivers where there
//! are some ([`cable`]), the program under test ([`penstock`]), traffic that checks itself ([`traffic`]), captures
//! ([`pcap`], [`frames`]), the golden cases ([`golden`]), one gateway in virtual time ([`scene`]), two with a tunnel
//! between ([`pair`]), and two with hosts and a network between them ([`sim`]).
//!
//! Only [`scene`], [`pair`] and [`sim`] know the inside of Penstock. Elsewhere, what is said about a packet comes from its
//! output, from Linux at the far end, or from another decoder.
#![forbid(unsafe_code)]

pub mod bird;
pub mod cable;
pub mod forms;
pub mod frames;
pub mod golden;
pub mod lab;
pub mod memory;
pub mod metrics;
pub mod needs;
pub mod ovs;
pub mod packets;
pub mod pair;
pub mod pcap;
pub mod penstock;
pub mod program;
pub mod scene;
pub mod sim;
pub mod site;
pub mod traffic;
pub mod tshark;
pub mod until;

pub use cable::Nic;
pub use lab::{Host, Lab, LinkOptions};
pub use penstock::Penstock;
pub use site::{Site, Underlay};
pub use until::until;
