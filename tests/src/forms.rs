//! Every form of tunnel that can be configured: type, identifier, what is inside, and which IP is outside.

use crate::penstock::Penstock;
use crate::site::{CLIENT, FAR_INSIDE, PATIENCE, SERVER, Site, TUNNEL, Underlay};
use crate::traffic::{exchange, transfer};
use crate::until::until;

/// A form of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// As messages call it.
    pub name: &'static str,
    /// What of `[tunnel]` makes it this form.
    pub keys: &'static str,
    /// What is outside.
    pub underlay: Underlay,
    /// Which families can be inside: 4, 6.
    pub inside: &'static [u8],
    /// Whether Ethernet is.
    pub ethernet: bool,
    /// Octets that it adds to an inner packet.
    pub overhead: u16,
}

const BOTH: &[u8] = &[4, 6];

/// A form in the order of the fields.
const fn form(
    name: &'static str,
    keys: &'static str,
    underlay: Underlay,
    inside: &'static [u8],
    ethernet: bool,
    overhead: u16,
) -> Form {
    Form { name, keys, underlay, inside, ethernet, overhead }
}

use Underlay::{V4, V6};

const VXLAN_KEYS: &str = "type = \"vxlan\"\nvni = 5001";
const GENEVE_KEYS: &str = "type = \"geneve\"\nvni = 5002";
const GENEVE_IP_KEYS: &str = "type = \"geneve\"\nvni = 5003\ninner = \"ip\"";
const GRE_KEYS: &str = "type = \"gre\"";
const GRE_KEY_KEYS: &str = "type = \"gre\"\nkey = 7";
const GRE_ETHERNET_KEYS: &str = "type = \"gre\"\ninner = \"ethernet\"";
const GRE_ETHERNET_KEY_KEYS: &str = "type = \"gre\"\ninner = \"ethernet\"\nkey = 4294967295";

/// VXLAN: 20 or 40, 8, 8, 14.
pub const VXLAN: [Form; 2] =
    [form("vxlan-v4", VXLAN_KEYS, V4, BOTH, true, 50), form("vxlan-v6", VXLAN_KEYS, V6, BOTH, true, 70)];

/// GENEVE, Ethernet inside.
pub const GENEVE: [Form; 2] =
    [form("geneve-v4", GENEVE_KEYS, V4, BOTH, true, 50), form("geneve-v6", GENEVE_KEYS, V6, BOTH, true, 70)];

/// GENEVE, IP inside.
pub const GENEVE_IP: [Form; 2] = [
    form("geneve-ip-v4", GENEVE_IP_KEYS, V4, BOTH, false, 36),
    form("geneve-ip-v6", GENEVE_IP_KEYS, V6, BOTH, false, 56),
];

/// GRE, IP inside, no key.
pub const GRE: [Form; 2] =
    [form("gre-v4", GRE_KEYS, V4, BOTH, false, 24), form("gre-v6", GRE_KEYS, V6, BOTH, false, 44)];

/// GRE, IP inside, with a key.
pub const GRE_KEY: [Form; 2] =
    [form("gre-key-v4", GRE_KEY_KEYS, V4, BOTH, false, 28), form("gre-key-v6", GRE_KEY_KEYS, V6, BOTH, false, 48)];

/// GRE, Ethernet inside, no key.
pub const GRE_ETHERNET: [Form; 2] = [
    form("gre-ethernet-v4", GRE_ETHERNET_KEYS, V4, BOTH, true, 38),
    form("gre-ethernet-v6", GRE_ETHERNET_KEYS, V6, BOTH, true, 58),
];

/// GRE, Ethernet inside, with the last key.
pub const GRE_ETHERNET_KEY: [Form; 2] = [
    form("gre-ethernet-key-v4", GRE_ETHERNET_KEY_KEYS, V4, BOTH, true, 42),
    form("gre-ethernet-key-v6", GRE_ETHERNET_KEY_KEYS, V6, BOTH, true, 62),
];

/// IPv4 in IPv4.
pub const IPIP: Form = form("ipip", "type = \"ipip\"", V4, &[4], false, 20);
/// IPv6 in IPv4.
pub const SIT: Form = form("sit", "type = \"sit\"", V4, &[6], false, 20);
/// IPv6 in IPv6.
pub const IP6IP6: Form = form("ip6ip6", "type = \"ip6ip6\"", V6, &[6], false, 40);
/// IPv4 in IPv6.
pub const IP4IP6: Form = form("ip4ip6", "type = \"ip4ip6\"", V6, &[4], false, 40);

/// Which gateway of a [`Site`] a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The site's gateway.
    Near,
    /// A second one, on `remote`.
    Far,
}

/// The inside addresses of the tunnel's two ends, with their prefix.
pub const INSIDE: [[&str; 2]; 2] =
    [["198.18.255.1/30", "2001:db8:ff::/127"], ["198.18.255.2/30", "2001:db8:ff::1/127"]];

/// How the gateway reaches the far end.
const TO_REMOTE: &str = r#"[[route]]
prefix = "198.51.100.7/32"
via = [{ next_hop = "192.0.2.254" }]
[[route]]
prefix = "2001:db8:b::7/128"
via = [{ next_hop = "2001:db8:f::fe", interface = "wan0" }]
"#;

/// MTU of the underlay, octets.
pub const MTU: u16 = 1500;
/// What TCP transfers each way, octets.
const TRANSFER: usize = 256 * 1024;

impl Form {
    /// Whether everything goes through a site's tunnel of this form, and in each family that fits in: ping, a packet that
    /// just fits, one that is one octet too long (of which both senders are told), UDP, and TCP each way. Of a far end whose own headers
    /// are `more` octets longer, answers fit only where they are that much shorter.
    ///
    /// # Panics
    ///
    /// If anything does not, with `context`.
    #[track_caller]
    pub fn carry_both_ways(&self, site: &Site, more: u16, context: &str) {
        for host in [&site.client, &site.server] {
            // They know the last tunnel's path MTU.
            host.run("ip route flush cache");
            host.run("ip -6 route flush cache");
        }
        for server in self.servers() {
            until(&format!("{context}: the client reaches {server}"), PATIENCE, || site.client.pings(server, 56, ""));
        }
        for (client, server) in self.clients().zip(self.servers()) {
            let headers = if client.contains(':') { 48 } else { 28 };
            let full = usize::from(MTU - self.overhead) - headers;
            let [near, far] = [full, full - usize::from(more)];
            assert!(site.server.pings(client, 56, ""), "{context}: the server reaches {client}");
            for (host, to, longest) in [(&site.client, server, near), (&site.server, client, far)] {
                assert!(host.pings(to, far, "-M do"), "{context}: what just fits reaches {to}");
                assert!(!host.pings(to, longest + 1, "-M do"), "{context}: more than fits reaches {to}");
            }
            let [client, server] = [client, server].map(|text| text.parse().expect("an address"));
            // The last is cut by its sender, who knows by now that it must be.
            exchange(&site.client, &site.server, server, &[0, 1, 512, far, near + 1]);
            transfer(&site.client, &site.server, server, TRANSFER);
            transfer(&site.server, &site.client, client, TRANSFER);
        }
    }

    /// The least number of packets that each direction of this has taken.
    pub const fn least_packets(&self) -> u64 {
        (TRANSFER * self.inside.len() / MTU as usize) as u64
    }

    /// Checks what the gateway has counted of that: packets of the tunnel, and of drops nothing but one too long in each family.
    ///
    /// # Panics
    ///
    /// If it was otherwise.
    #[track_caller]
    pub fn assert_counted(&self, gateway: &Penstock, context: &str) {
        let counters = &gateway.show("tunnels")["tunnels"][0]["counters"];
        for counter in ["encapsulated_packets", "decapsulated_packets"] {
            assert!(counters[counter].as_u64() > Some(self.least_packets()), "{context}: {counters}");
        }
        let balance = gateway.assert_balance();
        let too_long = self.fitting(["fragmentation_needed", "packet_too_big"]);
        let too_long: u64 = too_long.map(|reason| balance.dropped(reason)).sum();
        let too_many = self.inside.len() as u64;
        // Each kernel also asks for the other's link-local address, which the other may not have any more or not have yet.
        let dropped = balance.all_dropped() - balance.dropped("martian_destination");
        assert_eq!((dropped, too_long), (too_many, too_many), "{context}: {balance:?}");
    }

    /// The inner addresses, of a pair of IPv4 and IPv6, that fit into it.
    pub fn fitting<T: Copy>(&self, pair: [T; 2]) -> impl Iterator<Item = T> {
        [(4, pair[0]), (6, pair[1])].into_iter().filter(|(family, _)| self.inside.contains(family)).map(|(_, one)| one)
    }

    /// The configuration of a gateway that sends what it can through one tunnel of this form. The tunnel is
    /// [`TUNNEL`], at both ends.
    pub fn config(&self, end: End) -> String {
        let beyond = match end {
            End::Near => ["198.18.2.0/24", "2001:db8:2::/64"],
            End::Far => ["198.18.1.0/24", "2001:db8:1::/64"],
        };
        let route = |prefix| format!("[[route]]\nprefix = {prefix:?}\nvia = [{{ tunnel = {TUNNEL:?} }}]\n");
        self.config_without_routes(end) + &self.fitting(beyond).map(route).collect::<String>()
    }

    /// The same, but nothing is sent through the tunnel unless the kernel has routes that lead into it.
    pub fn config_without_routes(&self, end: End) -> String {
        let (here, there) = (self.underlay.local(), self.underlay.remote());
        let (lan, wan, local, remote, addresses, underlay) = match end {
            End::Near => ("lan0", "wan0", here, there, INSIDE[0], TO_REMOTE),
            End::Far => ("site0", "eth0", there, here, INSIDE[1], ""),
        };
        let addresses: Vec<_> = self.fitting(addresses).collect();
        format!(
            "[gateway]\nworkers = 1\n[interface.{lan}]\n[interface.{wan}]\n[tunnel.{TUNNEL}]\n{}\nlocal = {local:?}\n\
             remote = {remote:?}\naddress = {addresses:?}\n{underlay}",
            self.keys
        )
    }

    /// The servers that are reached through it.
    pub fn servers(&self) -> impl Iterator<Item = &'static str> {
        self.fitting(SERVER)
    }

    /// The clients that are reached through it.
    pub fn clients(&self) -> impl Iterator<Item = &'static str> {
        self.fitting(CLIENT)
    }

    /// The far end's inside addresses.
    pub fn far_inside(&self) -> impl Iterator<Item = &'static str> {
        self.fitting(FAR_INSIDE)
    }
}
