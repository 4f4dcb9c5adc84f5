//! The topology of most end-to-end tests: a gateway between a LAN and another site, which is Linux's own VXLAN device.
//!
//! ```text
//! client --- lan0 [ gateway ] wan0 === VXLAN 5001 === [ remote ] --- server
//! 198.18.1.10   192.0.2.1 / 2001:db8:f::1      198.51.100.7 / 2001:db8:b::7     198.18.2.10
//! 2001:db8:1::10                                                             2001:db8:2::10
//! ```
//!
//! Beside the tunnel there is a path in clear, by the gateway's kernel route: from the client's second address
//! 198.18.3.10 to 203.0.113.10 on `remote`.

use crate::cable::{Nic, Turn};
use crate::lab::{Host, Lab, LinkOptions};
use crate::pcap::Capture;
use crate::penstock::Penstock;
use crate::until::until;
use std::net::IpAddr;
use std::time::Duration;

/// How long a path may take to work once it can. Long, because a test machine may be busy; whoever waits goes on as
/// soon as it works.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// VXLAN in UDP in IPv4: 50 octets.
    V4,
    /// VXLAN in UDP in IPv6: 70 octets.
    V6,
}

impl Underlay {
    /// Octets that the tunnel adds to an inner packet.
    pub const fn overhead(self) -> u16 {
        match self {
            Self::V4 => 50,
            Self::V6 => 70,
        }
    }

    /// The gateway's address on the underlay.
    pub const fn local(self) -> &'static str {
        match self {
            Self::V4 => "192.0.2.1",
            Self::V6 => "2001:db8:f::1",
        }
    }

    /// The far end of the tunnel.
    pub const fn remote(self) -> &'static str {
        match self {
            Self::V4 => "198.51.100.7",
            Self::V6 => "2001:db8:b::7",
        }
    }
}

/// How a site is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What carries the tunnel.
    pub underlay: Underlay,
    /// MTU of all links, octets.
    pub mtu: u16,
    /// MTU of a link of the underlay behind a router, if there is one between gateway and remote.
    pub narrow: Option<u16>,
    /// Queues of the gateway's interface to the LAN, and of the end that faces it.
    pub lan_queues: u16,
    /// The same of its interface to the underlay.
    pub wan_queues: u16,
    /// What lies between client and gateway; a veth pair where there is none. It has queues of its own.
    pub lan_nic: Option<Nic>,
    /// What lies between gateway and remote.
    pub wan_nic: Option<Nic>,
    /// The VLAN of it that is the underlay; without one it is untagged.
    pub wan_vlan: Option<u16>,
    /// Workers.
    pub workers: u16,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            underlay: Underlay::V4,
            mtu: 1500,
            narrow: None,
            lan_queues: 1,
            wan_queues: 1,
            lan_nic: None,
            wan_nic: None,
            wan_vlan: None,
            workers: 1,
        }
    }
}

/// The hosts, linked and with addresses; no gateway runs yet.
#[derive(Debug)]
pub struct Site {
    /// How it was made.
    pub plan: Plan,
    /// On the gateway's LAN.
    pub client: Host,
    /// Where Penstock runs.
    pub gateway: Host,
    /// The other end of the tunnel, and the gateway's next hop.
    pub remote: Host,
    /// Behind `remote`.
    pub server: Host,
    /// On the cable between gateway and remote, if it is there: its `port0`, on the gateway's side, sees what both send.
    /// An interface whose driver runs XDP shows tcpdump neither what it receives nor what AF_XDP sends.
    pub switch: Option<Host>,
    /// Late, so that it goes after everything that is in it.
    pub lab: Lab,
    /// Last: only then may another test have the interfaces.
    turn: Option<Turn>,
}

/// The server's address of each family.
pub const SERVER: [&str; 2] = ["198.18.2.10", "2001:db8:2::10"];
/// The client's address of each family.
pub const CLIENT: [&str; 2] = ["198.18.1.10", "2001:db8:1::10"];
/// The tunnel's other inside address of each family.
pub const FAR_INSIDE: [&str; 2] = ["198.18.255.2", "2001:db8:ff::1"];
/// The tunnel's device on the gateway.
pub const TUNNEL: &str = "site-b";
/// Reached in clear from [`PLAIN_CLIENT`].
pub const PLAIN_SERVER: &str = "203.0.113.10";
/// The client's address that no tunnel knows.
pub const PLAIN_CLIENT: &str = "198.18.3.10";

impl Site {
    /// Makes the hosts, and Linux's own end of the tunnel.
    #[track_caller]
    pub fn new(name: &str, plan: Plan) -> Self {
        let site = Self::make(name, plan, false);
        site.make_far_end();
        site
    }

    /// Makes the hosts, with a switch in the middle of the underlay. There is no far end of a tunnel yet.
    #[track_caller]
    pub fn bare(name: &str, plan: Plan) -> Self {
        Self::make(name, plan, true)
    }

    #[track_caller]
    fn make(name: &str, plan: Plan, switched: bool) -> Self {
        let turn = (plan.lan_nic.is_some() || plan.wan_nic.is_some()).then(Turn::take);
        let lab = Lab::new(name);
        let [client, gateway, remote, server] = ["client", "gateway", "remote", "server"].map(|name| lab.host(name));
        let switch = switched.then(|| lab.host("switch"));
        let site = Self { plan, client, gateway, remote, server, switch, lab, turn };
        site.link_lan();
        site.link_wan();
        // A host that forwards sends by the queue that it received by: as many here, or the underlay has but one in use.
        let options = LinkOptions { mtu: plan.mtu, queues: plan.wan_queues };
        site.lab.link((&site.remote, "site0"), (&site.server, "eth0"), options);
        site.address_server();
        // As on any gateway host: when Penstock does not forward, the kernel does.
        for host in [&site.gateway, &site.remote] {
            host.sysctl("ipv4/ip_forward", "1");
            host.sysctl("ipv6/conf/all/forwarding", "1");
        }
        site
    }

    /// The cable between client and gateway, with both ends' addresses and the client's routes.
    #[track_caller]
    pub fn link_lan(&self) {
        let options = LinkOptions { mtu: self.plan.mtu, queues: self.plan.lan_queues };
        self.link(self.plan.lan_nic, [(&self.client, "eth0"), (&self.gateway, "lan0")], options);
        for address in ["198.18.1.1/24", "198.18.3.1/24", "2001:db8:1::1/64"] {
            self.gateway.run(&format!("ip address add {address} dev lan0"));
        }
        for address in ["198.18.1.10/24", "198.18.3.10/24", "2001:db8:1::10/64"] {
            self.client.run(&format!("ip address add {address} dev eth0"));
        }
        self.client.run("ip route add default via 198.18.1.1");
        self.client.run("ip route add default via 2001:db8:1::1");
    }

    /// The name of the underlay's device over this one.
    fn on_vlan(&self, name: &str) -> String {
        self.plan.wan_vlan.map_or_else(|| name.to_owned(), |vlan| format!("{name}.{vlan}"))
    }

    #[track_caller]
    fn link(&self, nic: Option<Nic>, ends: [(&Host, &str); 2], options: LinkOptions) {
        match (nic, &self.turn) {
            (Some(nic), Some(turn)) => nic.connect(ends, options, turn),
            _ => self.lab.link(ends[0], ends[1], options),
        }
    }

    /// Two cables, and a switch that passes on whatever comes.
    #[track_caller]
    fn link_by(&self, switch: &Host, [near, far]: [(&Host, &str); 2], options: LinkOptions) {
        self.lab.link(near, (switch, "port0"), options);
        self.lab.link((switch, "port1"), far, options);
        switch.run("ip link add br0 type bridge mcast_snooping 0");
        for port in ["port0", "port1"] {
            switch.run(&format!("ip link set {port} master br0"));
        }
        switch.run("ip link set br0 up");
    }

    /// The cable between gateway and remote.
    #[track_caller]
    fn link_wan(&self) {
        let options = LinkOptions { mtu: self.plan.mtu, queues: self.plan.wan_queues };
        let router = self.plan.narrow.map(|mtu| self.put_router_between(LinkOptions { mtu, ..options }));
        let next = router.as_ref().unwrap_or(&self.remote);
        let ends = [(&self.gateway, "wan0"), (next, "eth0")];
        match &self.switch {
            None => self.link(self.plan.wan_nic, ends, options),
            Some(switch) => self.link_by(switch, ends, options),
        }
        let [wan, eth] = ["wan0", "eth0"].map(|name| self.on_vlan(name));
        for (host, name, over) in [(&self.gateway, &wan, "wan0"), (next, &eth, "eth0")] {
            if let Some(vlan) = self.plan.wan_vlan {
                host.run(&format!("ip link add link {over} name {name} type vlan id {vlan}"));
                host.run(&format!("ip link set {name} up"));
            }
        }
        for address in ["192.0.2.1/24", "2001:db8:f::1/64"] {
            self.gateway.run(&format!("ip address add {address} dev {wan}"));
        }
        for address in ["192.0.2.254/24", "2001:db8:f::fe/64"] {
            next.run(&format!("ip address add {address} dev {eth}"));
        }
        for address in ["198.51.100.7/32", "2001:db8:b::7/128", "203.0.113.10/32"] {
            self.remote.run(&format!("ip address add {address} dev lo"));
        }
        self.gateway.run("ip route add 203.0.113.0/24 via 192.0.2.254");
        if router.is_none() {
            self.remote.run("ip route add 198.18.3.0/24 via 192.0.2.1");
        }
    }

    /// A router of the underlay, with a link to the remote.
    #[track_caller]
    fn put_router_between(&self, narrow: LinkOptions) -> Host {
        let router = self.lab.host("router");
        router.sysctl("ipv4/ip_forward", "1");
        router.sysctl("ipv6/conf/all/forwarding", "1");
        self.lab.link((&router, "eth1"), (&self.remote, "wan0"), narrow);
        for (host, device, addresses) in [
            (&router, "eth1", ["192.0.2.129/30", "2001:db8:e::1/64"]),
            (&self.remote, "wan0", ["192.0.2.130/30", "2001:db8:e::2/64"]),
        ] {
            for address in addresses {
                host.run(&format!("ip address add {address} dev {device}"));
            }
        }
        router.run("ip route add 198.51.100.7 via 192.0.2.130");
        router.run("ip route add 2001:db8:b::7 via 2001:db8:e::2");
        self.remote.run("ip route add default via 192.0.2.129");
        self.remote.run("ip route add default via 2001:db8:e::1");
        router
    }

    #[track_caller]
    fn address_server(&self) {
        for address in ["198.18.2.1/24", "2001:db8:2::1/64"] {
            self.remote.run(&format!("ip address add {address} dev site0"));
        }
        for address in ["198.18.2.10/24", "2001:db8:2::10/64"] {
            self.server.run(&format!("ip address add {address} dev eth0"));
        }
        self.server.run("ip route add default via 198.18.2.1");
        self.server.run("ip route add default via 2001:db8:2::1");
    }

    /// Linux's own end of the tunnel.
    #[track_caller]
    fn make_far_end(&self) {
        let Plan { underlay, mtu, narrow, .. } = self.plan;
        // It knows the link that it is on.
        let mtu = narrow.unwrap_or(mtu);
        self.remote.run(&format!(
            "ip link add vx0 mtu {} type vxlan id 5001 dstport 4789 local {} remote {}",
            mtu - underlay.overhead(),
            underlay.remote(),
            underlay.local(),
        ));
        for address in ["198.18.255.2/30", "2001:db8:ff::1/127"] {
            self.remote.run(&format!("ip address add {address} dev vx0"));
        }
        self.remote.run("ip link set vx0 up");
        self.remote.run("ip route add 198.18.1.0/24 via 198.18.255.1");
        self.remote.run("ip route add 2001:db8:1::/64 via 2001:db8:ff::");
    }

    /// Captures what goes over the underlay, both ways, from now on; of a [`Self::bare`] site.
    ///
    /// # Panics
    ///
    /// If there is no switch.
    #[track_caller]
    pub fn capture_underlay(&self) -> Capture {
        self.switch.as_ref().expect("the site is a bare one").capture("port0")
    }

    /// The configuration that fits: everything for the server's networks goes through the tunnel.
    pub fn config(&self) -> String {
        let Plan { underlay, workers, wan_vlan, .. } = self.plan;
        let wan = self.on_vlan("wan0");
        let vlan = wan_vlan.map(|vlan| format!("[interface.{wan:?}]\nparent = \"wan0\"\nvlan = {vlan}\n"));
        format!(
            r#"
[gateway]
workers = {workers}

[interface.lan0]
[interface.wan0]
{vlan}
[tunnel.{TUNNEL}]
type = "vxlan"
vni = 5001
local = "{local}"
remote = "{remote}"
address = ["198.18.255.1/30", "2001:db8:ff::/127"]

[[route]]
prefix = "198.18.2.0/24"
via = [{{ tunnel = "{TUNNEL}", next_hop = "198.18.255.2" }}]

[[route]]
prefix = "2001:db8:2::/64"
via = [{{ tunnel = "{TUNNEL}" }}]

[[route]]
prefix = "198.51.100.7/32"
via = [{{ next_hop = "192.0.2.254" }}]

[[route]]
prefix = "2001:db8:b::7/128"
via = [{{ next_hop = "2001:db8:f::fe", interface = "{wan}" }}]
"#,
            vlan = vlan.unwrap_or_default(),
            local = underlay.local(),
            remote = underlay.remote(),
        )
    }

    /// Starts Penstock on the gateway and waits until both families go through the tunnel.
    #[track_caller]
    pub fn start(&self) -> Penstock {
        let gateway = Penstock::start(&self.gateway, &self.config());
        for server in SERVER {
            until(&format!("the client reaches {server}"), PATIENCE, || self.client.pings(server, 56, ""));
        }
        gateway
    }

    /// Whether the path beside the tunnel works.
    #[track_caller]
    pub fn plain_path_works(&self) -> bool {
        self.client.pings(PLAIN_SERVER, 56, &format!("-I {PLAIN_CLIENT}"))
    }

    /// The server's addresses.
    pub fn servers(&self) -> [IpAddr; 2] {
        SERVER.map(|address| address.parse().expect("an address"))
    }

    /// The client's addresses inside the tunnel.
    pub fn clients(&self) -> [IpAddr; 2] {
        CLIENT.map(|address| address.parse().expect("an address"))
    }

    /// Addresses whose packets belong into the tunnel.
    pub fn tenant(&self) -> Vec<IpAddr> {
        self.clients().into_iter().chain(self.servers()).collect()
    }
}
