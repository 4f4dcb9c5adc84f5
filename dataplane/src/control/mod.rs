//! The control plane: what it takes from the host and gives to the workers.

pub mod devices;
pub mod ethtool;
pub mod host;
pub mod netlink;
pub mod offline;
pub mod plan;
pub mod resolve;
pub mod xdp;
