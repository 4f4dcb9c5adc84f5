//! What would have been legal, in the words of the messages.

use ipnet::IpNet;
use thiserror::Error;
use wire::Vni;

use super::Config;

/// The tunnel types that there are.
const TYPES: &[&str] = &["vxlan", "geneve", "gre", "ipip", "sit", "ip6ip6", "ip4ip6"];

/// As in IANA's list of protocol numbers.
pub const IP_PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("vrrp", 112),
    ("sctp", 132),
];

/// What would have been legal where something else was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each message is the documentation of its variant")]
pub enum ValueError {
    #[error("legal: {}", words(.0))]
    Word(&'static [&'static str]),
    #[error("legal: true, false")]
    Boolean,
    #[error("a name of a table of this file")]
    Name,
    #[error("a name is 1..=64 octets without whitespace and control characters")]
    NewName,
    #[error("a Linux interface name is 1..=15 octets without '/', ':' and whitespace, and neither \".\" nor \"..\"")]
    DeviceName,
    #[error("the name of a device that the host or Penstock itself has")]
    ReservedName,
    #[error("legal: \"auto\", a count in 1..={max}, or a list of CPU numbers in 0..=1023, none twice", max = Config::MAX_WORKERS)]
    Workers,
    #[error("a path is absolute and at most 107 octets, the longest of a Unix socket")]
    SocketPath,
    #[error(
        "an address of this host and a TCP port 1..=65535, such as \"127.0.0.1:9473\" or \"[::1]:9473\"; 0.0.0.0 and [::] \
         are all its addresses"
    )]
    Listen,
    #[error(
        "a packet rate is a number with \"pps\", \"kpps\", \"Mpps\" or \"Gpps\", such as \"1kpps\", and at most 4294967295 pps"
    )]
    PacketRate,
    #[error(
        "a packet rate is a number with \"pps\", \"kpps\", \"Mpps\" or \"Gpps\", such as \"140kpps\", above 0 and at most \"1Gpps\""
    )]
    Packets,
    #[error(
        "a rate is a number of bits per second with \"k\", \"M\", \"G\" or \"T\", such as \"1.25G\", in \"8k\"..=\"1.6T\""
    )]
    Rate,
    #[error(
        "a burst is a number of octets with \"B\", \"kB\", \"MB\" or \"GB\", such as \"2MB\", above 0 and at most \"1GB\""
    )]
    Burst,
    #[error("legal: \"pass\", \"drop\", \"ce\", {{ dscp = 0..=63 }}")]
    Reaction,
    #[error("a seed is 0..={}", u64::MAX)]
    HashSeed,
    #[error("a list of at least one tunnel, such as [{{ tunnel = \"..\", weight = 2 }}, ..]")]
    Members,
    #[error("a weight is 1..={}", Config::MAX_WEIGHT)]
    Weight,
    #[error("a path of a file with one prefix a line")]
    ListFile,
    #[error("a kernel table is 1..=4294967295, but not 255, the kernel's own \"local\"")]
    Table,
    #[error("the VRF \"default\" has table 254")]
    DefaultTable,
    #[error("a VLAN is 1..=4094")]
    Vlan,
    #[error("a MAC is six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"")]
    Mac,
    #[error("a MAC is \"auto\", or six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"")]
    MacOrAuto,
    #[error("an MTU is 576..=65535")]
    Mtu,
    #[error("an MTU is 576..=65535, or \"auto\"")]
    MtuOrAuto,
    #[error("an interface's address is unicast and has its prefix length, such as \"192.0.2.1/24\"")]
    Address,
    #[error("is the subnet's own or broadcast address, not one of a host")]
    SubnetAddress,
    #[error("a prefix is an address with its length, such as \"192.0.2.0/24\"")]
    Prefix,
    #[error("has bits set beyond its length; legal: \"{0}\"")]
    HostBits(IpNet),
    #[error("a unicast IPv4 or IPv6 address")]
    Unicast,
    #[error("a unicast IPv4 or IPv6 address that is not link-local")]
    Endpoint,
    #[error("\"any\" is only for GENEVE with gwlb and WireGuard; legal: a unicast IPv4 or IPv6 address")]
    AnyEndpoint,
    #[error("legal: {}", words(TYPES))]
    Type,
    #[error("not supported by this version; legal: {}", words(TYPES))]
    TypeLater,
    #[error("a GRE key is 0..=4294967295")]
    Key,
    #[error("a VNI is 0..={}", Vni::MAX)]
    Vni,
    #[error("a UDP port is 1..=65535")]
    Port,
    #[error("a DSCP is 0..=63, or \"copy\"")]
    Dscp,
    #[error("a TTL is 1..=255, or \"copy\"")]
    Ttl,
    #[error(
        "an IP protocol is 0..=255, or one of {}, or a list of these", words(&IP_PROTOCOLS.map(|known| known.0))
    )]
    IpProtocol,
    #[error("a port is 0..=65535 or a range such as \"6000-6063\", or a list of these")]
    Ports,
    #[error("a DSCP is 0..=63, or a list of these")]
    Dscps,
    #[error("a list of at least one")]
    EmptyList,
    #[error("legal: {} or {{ rate = \"1.25G\", packets = \"140kpps\", burst = \"2MB\" }}", words(.0))]
    Preset(&'static [&'static str]),
    #[error("rate, packets, or both")]
    Cap,
    #[error("limit, packets, or both")]
    Via,
    #[error("a table such as {{ vrf = \"research\" }}, of vrf, interface, tunnel, source, destination")]
    TenantMatch,
    #[error("a weight is 1..=1000")]
    TenantWeight,
    #[error("a share is 1..=1000")]
    Share,
    #[error("a percentage is 1..=100")]
    Percent,
    #[error("a time is a number with \"us\", \"ms\" or \"s\", such as \"300us\", above 0 and at most \"4s\"")]
    Time,
    #[error(
        "a list of route protocols: 0..=255 without 80, which is Penstock's own, or names such as \"kernel\", \
         \"boot\", \"static\", \"ra\", \"dhcp\", \"bird\", \"zebra\", \"bgp\", \"ospf\", \"isis\""
    )]
    Protocol,
}

/// `"a", "b"`.
fn words(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}
