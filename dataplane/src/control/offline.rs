//! A host made of the file, for what runs without one: `replay`, simulation, benches.

use super::host::{Host, Link};
use crate::config::Config;

/// The host that a configuration describes: its interfaces exist, with the MACs, MTUs and addresses of the file. It has
/// no neighbours and no routes of its own.
pub fn host(config: &Config) -> Host {
    let mut host = Host::default();
    for (at, interface) in config.interfaces.iter().enumerate() {
        let index = at as u32 + 1;
        let parent = interface.parent.map(|(parent, _)| &config.interfaces[parent]);
        let mac = interface.mac.or(parent.and_then(|parent| parent.mac));
        let mtu = interface.mtu.or(parent.and_then(|parent| parent.mtu));
        host.links.insert(
            index,
            Link {
                name: interface.name.clone(),
                mac: mac.unwrap_or(made_up(index)),
                mtu: mtu.unwrap_or(1500).into(),
                up: true,
                running: true,
                vlan: interface.parent.map(|(_, id)| id),
                parent: interface.parent.map(|(parent, _)| parent as u32 + 1),
                rx_queues: 1,
                tx_queues: 1,
                ..Link::default()
            },
        );
        host.addresses.extend(interface.addresses.iter().map(|address| (index, *address)));
    }
    host
}

/// A locally administered MAC for an interface of which the file says none.
const fn made_up(index: u32) -> [u8; 6] {
    let [a, b, c, d] = index.to_be_bytes();
    [0x02, 0, a, b, c, d]
}
