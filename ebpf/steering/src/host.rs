//! The tables as the host holds them: the source that the BPF maps are filled from, and a [`Host`] to ask.

use crate::Host;
use crate::tables::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

/// All that steering knows: one value, from which the maps follow.
///
/// Control builds it anew from what it knows and hands it to the loader, which changes in the maps what differs.
/// `replay`, `explain` and tests ask it directly, through [`HostTables::at`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTables {
    interfaces: BTreeMap<Ingress, Interface>,
    locals_v4: BTreeMap<LocalV4, Local>,
    locals_v6: BTreeMap<LocalV6, Local>,
    tunnels_v4: BTreeMap<TunnelV4, ()>,
    tunnels_v6: BTreeMap<TunnelV6, ()>,
    /// By VRF, address in the upper bits of 128, prefix length: so that a prefix comes right before what it covers.
    routes_v4: BTreeMap<(u32, u128, u8), Keeper>,
    routes_v6: BTreeMap<(u32, u128, u8), Keeper>,
}

impl HostTables {
    /// Without any interface: everything passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an interface. [`InterfaceFlags::ROUTES_V4`] and `ROUTES_V6` need not be set: they follow from
    /// [`Self::route`].
    pub fn interface(&mut self, ingress: Ingress, interface: Interface) -> &mut Self {
        self.interfaces.insert(ingress, interface);
        self
    }

    /// Adds an address of the host.
    pub fn own(&mut self, vrf: u32, address: IpAddr) -> &mut Self {
        self.mark(vrf, address, Local::OWN);
        self
    }

    /// Adds the broadcast address of a connected subnet.
    pub fn broadcast(&mut self, vrf: u32, address: IpAddr) -> &mut Self {
        self.mark(vrf, address, Local::BROADCAST);
        self
    }

    /// Adds a tunnel: `vrf` is that of the outside, `remote` is `None` for a type that takes any, `port` the UDP
    /// destination port of what arrives, 0 for protocols without one.
    ///
    /// The near end need not be an address of the host as well.
    ///
    /// # Panics
    ///
    /// When the ends are of different families, or `protocol` is 0: the configuration has checked.
    pub fn tunnel(&mut self, vrf: u32, local: IpAddr, remote: Option<IpAddr>, protocol: u8, port: u16) -> &mut Self {
        assert_ne!(protocol, 0, "0 stands for fragments");
        let any = if remote.is_none() { Local::ANY_REMOTE } else { Local::NONE };
        self.mark(vrf, local, Local::TUNNEL | any);
        for (protocol, port) in [(protocol, port), (0, 0)] {
            match local {
                IpAddr::V4(local) => {
                    let remote = remote.map_or(0, |remote| match remote {
                        IpAddr::V4(remote) => remote.to_bits(),
                        IpAddr::V6(_) => panic!("tunnel from {local} to {remote}: two families"),
                    });
                    let key = TunnelV4 { vrf, remote, local: local.to_bits(), port, protocol, reserved: 0 };
                    self.tunnels_v4.insert(key, ());
                }
                IpAddr::V6(local) => {
                    let remote = remote.map_or([0; 4], |remote| match remote {
                        IpAddr::V6(remote) => words(remote.to_bits()),
                        IpAddr::V4(_) => panic!("tunnel from {local} to {remote}: two families"),
                    });
                    let key = TunnelV6 { vrf, remote, local: words(local.to_bits()), port, protocol, reserved: 0 };
                    self.tunnels_v6.insert(key, ());
                }
            }
        }
        self
    }

    /// Adds a route, as far as steering cares: whether the kernel has it to itself, because it leaves by a device
    /// that is not ours. A later call for the same prefix replaces an earlier one.
    ///
    /// All routes may be given: those that change nothing do not reach the maps. Bits behind the prefix are ignored.
    pub fn route(&mut self, vrf: u32, address: IpAddr, prefix_len: u8, keeper: Keeper) -> &mut Self {
        let (routes, bits, prefix_len) = match address {
            IpAddr::V4(address) => (&mut self.routes_v4, u128::from(address.to_bits()) << 96, prefix_len.min(32)),
            IpAddr::V6(address) => (&mut self.routes_v6, address.to_bits(), prefix_len.min(128)),
        };
        routes.insert((vrf, bits & mask(prefix_len), prefix_len), keeper);
        self
    }

    fn mark(&mut self, vrf: u32, address: IpAddr, flags: Local) {
        let local = match address {
            IpAddr::V4(a) => self.locals_v4.entry(LocalV4 { vrf, address: a.to_bits() }).or_default(),
            IpAddr::V6(a) => self.locals_v6.entry(LocalV6 { vrf, address: words(a.to_bits()) }).or_default(),
        };
        *local = *local | flags;
    }

    /// What the map of interfaces holds.
    pub fn interfaces(&self) -> impl Iterator<Item = (Ingress, Interface)> + '_ {
        let any = |routes: &BTreeMap<(u32, u128, u8), Keeper>, vrf| {
            routes.range((vrf, 0, 0)..=(vrf, u128::MAX, u8::MAX)).any(|(_, keeper)| *keeper == Keeper::KERNEL)
        };
        self.interfaces.iter().map(move |(ingress, interface)| {
            let mut flags = InterfaceFlags(interface.flags.0 & InterfaceFlags::FALLBACK_DROP.0);
            if any(&self.routes_v4, interface.vrf) {
                flags = flags | InterfaceFlags::ROUTES_V4;
            }
            if any(&self.routes_v6, interface.vrf) {
                flags = flags | InterfaceFlags::ROUTES_V6;
            }
            (*ingress, Interface { flags, ..*interface })
        })
    }

    /// What the map of IPv4 addresses holds.
    pub fn locals_v4(&self) -> impl Iterator<Item = (LocalV4, Local)> + '_ {
        self.locals_v4.iter().map(|(key, local)| (*key, *local))
    }

    /// What the map of IPv6 addresses holds.
    pub fn locals_v6(&self) -> impl Iterator<Item = (LocalV6, Local)> + '_ {
        self.locals_v6.iter().map(|(key, local)| (*key, *local))
    }

    /// What the set of tunnels over IPv4 holds.
    pub fn tunnels_v4(&self) -> impl Iterator<Item = TunnelV4> + '_ {
        self.tunnels_v4.keys().copied()
    }

    /// What the set of tunnels over IPv6 holds.
    pub fn tunnels_v6(&self) -> impl Iterator<Item = TunnelV6> + '_ {
        self.tunnels_v6.keys().copied()
    }

    /// What the IPv4 trie holds, with the bits to compare (those of the VRF included).
    pub fn routes_v4(&self) -> Vec<(u32, RouteV4, Keeper)> {
        let key = |(vrf, bits, len): (u32, u128, u8), keeper| {
            (RouteV4::VRF_BITS + u32::from(len), RouteV4::new(vrf, (bits >> 96) as u32), keeper)
        };
        needed(&self.routes_v4).map(|(prefix, keeper)| key(prefix, keeper)).collect()
    }

    /// What the IPv6 trie holds, with the bits to compare (those of the VRF included).
    pub fn routes_v6(&self) -> Vec<(u32, RouteV6, Keeper)> {
        let key = |(vrf, bits, len): (u32, u128, u8), keeper| {
            (RouteV6::VRF_BITS + u32::from(len), RouteV6::new(vrf, words(bits)), keeper)
        };
        needed(&self.routes_v6).map(|(prefix, keeper)| key(prefix, keeper)).collect()
    }

    /// These tables, asked for what the device of this interface index receives.
    pub fn at(&self, device: u32) -> At<'_> {
        // Flags that follow from the routes are needed only to spare the XDP program a lookup; here every interface
        // has them.
        let interfaces = self.interfaces.range(Ingress { device, vlan: 0 }..=Ingress { device, vlan: u32::MAX });
        let both = InterfaceFlags::ROUTES_V4 | InterfaceFlags::ROUTES_V6;
        let interfaces = interfaces.map(|(key, i)| (key.vlan, Interface { flags: i.flags | both, ..*i })).collect();
        At { tables: self, interfaces }
    }
}

/// The prefixes that change something: whose keeper is not that of the next shorter prefix which covers them.
/// What nothing covers is the workers'.
fn needed(routes: &BTreeMap<(u32, u128, u8), Keeper>) -> impl Iterator<Item = ((u32, u128, u8), Keeper)> + '_ {
    let mut covering: Vec<((u32, u128, u8), Keeper)> = Vec::new();
    routes.iter().filter_map(move |(&prefix, &keeper)| {
        let (vrf, bits, _) = prefix;
        while covering.last().is_some_and(|&((v, b, len), _)| v != vrf || bits & mask(len) != b) {
            covering.pop();
        }
        let before = covering.last().map_or(Keeper::WORKER, |(_, keeper)| *keeper);
        covering.push((prefix, keeper));
        (before != keeper).then_some((prefix, keeper))
    })
}

/// The first `len` bits of 128.
fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

fn words(bits: u128) -> [u32; 4] {
    [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
}

fn bits(words: [u32; 4]) -> u128 {
    words.iter().fold(0, |bits, word| bits << 32 | u128::from(*word))
}

/// [`HostTables`] as one device sees them.
#[derive(Clone, Debug)]
pub struct At<'t> {
    tables: &'t HostTables,
    interfaces: Vec<(u32, Interface)>,
}

impl Host for At<'_> {
    fn interface(&self, vlan: u16) -> Option<&Interface> {
        self.interfaces.iter().find(|(id, _)| *id == u32::from(vlan)).map(|(_, interface)| interface)
    }

    fn local_v4(&self, key: LocalV4) -> Local {
        self.tables.locals_v4.get(&key).copied().unwrap_or_default()
    }

    fn local_v6(&self, key: LocalV6) -> Local {
        self.tables.locals_v6.get(&key).copied().unwrap_or_default()
    }

    fn tunnel_v4(&self, key: TunnelV4) -> bool {
        self.tables.tunnels_v4.contains_key(&key)
    }

    fn tunnel_v6(&self, key: TunnelV6) -> bool {
        self.tables.tunnels_v6.contains_key(&key)
    }

    fn kernel_route_v4(&self, key: RouteV4) -> bool {
        let (vrf, address) = key.parts();
        longest(&self.tables.routes_v4, vrf, u128::from(address) << 96, 32)
    }

    fn kernel_route_v6(&self, key: RouteV6) -> bool {
        let (vrf, address) = key.parts();
        longest(&self.tables.routes_v6, vrf, bits(address), 128)
    }
}

/// Whether the longest prefix that covers an address is the kernel's.
fn longest(routes: &BTreeMap<(u32, u128, u8), Keeper>, vrf: u32, address: u128, width: u8) -> bool {
    (0..=width)
        .rev()
        .find_map(|len| routes.get(&(vrf, address & mask(len), len)))
        .is_some_and(|keeper| *keeper == Keeper::KERNEL)
}
