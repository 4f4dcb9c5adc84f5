//! The control plane: what it takes from the host and gives to the workers.

pub mod devices;
pub mod ethtool;
pub mod export;
pub mod gateway;
pub mod host;
pub mod http;
pub mod metrics;
pub mod neighbours;
pub mod netlink;
pub mod offline;
pub mod paths;
pub mod plan;
pub mod ports;
pub mod resolve;
pub mod rib;
pub mod server;
pub mod shaping;
pub mod show;
pub mod tunnels;
pub mod workers;
pub mod xdp;
