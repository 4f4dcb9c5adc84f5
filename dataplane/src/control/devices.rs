//! What Penstock makes in the host: the devices of its tunnels and `penstock0`; [`export`](super::export) makes routes.
//!
//! All of it outlives a process that is killed, on purpose: what belongs to a tunnel must not
//! leave in clear when nobody is there to encapsulate it. So everything here takes over what an earlier run
//! left, and a clean stop removes it. It decides nothing: which devices there should be, control says.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ipnet::IpNet;
use sys::tun::{Kind, Tun};

use super::host::{IfIndex, TunKind};
use super::netlink::{self, Commander};

/// The device that takes what a tunnel without one delivers to the host.
pub const LOCAL_DEVICE: &str = "penstock0";

/// A device could not be made as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else has the name.
    #[error("cannot make the {} `{name}`: there is {} of that name already; delete it or name the tunnel otherwise", label(*.wanted), .found)]
    Taken {
        /// The name.
        name: String,
        /// What it should be.
        wanted: TunKind,
        /// What is there.
        found: Found,
    },
    /// Another process holds the device.
    #[error("the device `{name}` is in use by another program: is Penstock running already?")]
    InUse {
        /// The name.
        name: String,
    },
    /// The `tun` driver refused.
    #[error("cannot make the {} `{name}`: {source}", label(*.wanted))]
    Open {
        /// The name.
        name: String,
        /// What it should be.
        wanted: TunKind,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has no `tun` driver, or nothing leads to it.
    #[error("cannot make the {} `{name}`: there is no /dev/net/tun: `modprobe tun` loads the driver", label(*.wanted))]
    NoDriver {
        /// The name.
        name: String,
        /// What it should be.
        wanted: TunKind,
    },
    /// It vanished while it was being configured.
    #[error("the device `{name}` was deleted while it was being configured")]
    Vanished {
        /// The name.
        name: String,
    },
    /// An order to the kernel failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

/// What has the name that a device should get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A tunnel device of the other kind.
    Tun(TunKind),
    /// A virtual device, by its kind.
    Kind(String),
    /// A device that is not virtual.
    Nic,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tun(kind) => write!(f, "a {}", label(*kind)),
            Self::Kind(kind) => write!(f, "a device of kind {kind}"),
            Self::Nic => f.write_str("a network interface"),
        }
    }
}

fn label(kind: TunKind) -> &'static str {
    match kind {
        TunKind::Tun => "TUN device",
        TunKind::Tap => "TAP device",
    }
}

/// A device as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, 1 to 15 octets.
    pub name: String,
    /// IP or Ethernet inside.
    pub kind: TunKind,
    /// Hardware address; for a TAP.
    pub mac: Option<[u8; 6]>,
    /// Octets of layer 3, 68 to 65,535; below 1,280 IPv6 is off.
    pub mtu: u32,
    /// Whether IPv6 can go through. Where it cannot, the kernel would still announce itself and its groups there, to be dropped.
    pub ipv6: bool,
    /// All its addresses. Link-local ones (`fe80::/10`) are the kernel's and left alone.
    pub addresses: Vec<IpNet>,
}

/// A tunnel's device, held open by this process. Dropping it leaves it to a later run.
#[derive(Debug)]
pub struct Device {
    tun: Arc<Tun>,
    ifindex: IfIndex,
}

impl Device {
    /// Makes the device, or takes over the one that an earlier run left, and makes it what
    /// `spec` says. Nothing is touched that is so already.
    ///
    /// # Errors
    /// [`Error`]; the device then may be half configured, and trying again is safe.
    pub fn establish(spec: &Spec, commander: &mut Commander) -> Result<Self, Error> {
        let name = &spec.name;
        if let Some((_, link)) = commander.link(name)? {
            let found = match (link.tun, link.kind) {
                (Some(kind), _) if kind == spec.kind => None,
                (Some(kind), _) => Some(Found::Tun(kind)),
                (None, Some(kind)) => Some(Found::Kind(kind)),
                (None, None) => Some(Found::Nic),
            };
            if let Some(found) = found {
                return Err(Error::Taken { name: name.clone(), wanted: spec.kind, found });
            }
        }
        let kind = match spec.kind {
            TunKind::Tun => Kind::Tun,
            TunKind::Tap => Kind::Tap,
        };
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY) => Error::InUse { name: name.clone() },
            Some(libc::ENOENT | libc::ENODEV) => Error::NoDriver { name: name.clone(), wanted: spec.kind },
            _ => Error::Open { name: name.clone(), wanted: spec.kind, source },
        };
        let tun = Tun::open(name, kind).map_err(failed)?;
        tun.set_persistent(true).map_err(failed)?;
        let (ifindex, _) = commander.link(name)?.ok_or_else(|| Error::Vanished { name: name.clone() })?;
        let mut device = Self { tun: Arc::new(tun), ifindex };
        device.configure(spec, commander)?;
        if spec.name == LOCAL_DEVICE {
            // What comes out of it came by another interface, where the route back leads; and a device without addresses
            // passes not even the loose check that many systems have as a default. Where /proc/sys is read-only, it stays.
            let _refused = std::fs::write(format!("/proc/sys/net/ipv4/conf/{LOCAL_DEVICE}/rp_filter"), "0");
        }
        Ok(device)
    }

    /// Makes the device what a new `spec` says; of the same name and kind.
    ///
    /// # Errors
    /// [`Error::Vanished`] and [`Error::Netlink`].
    ///
    /// # Panics
    /// When `spec` is of another name or kind: that is another device.
    pub fn configure(&mut self, spec: &Spec, commander: &mut Commander) -> Result<(), Error> {
        assert_eq!(spec.name, self.tun.name());
        let (ifindex, link) = commander.link(&spec.name)?.ok_or_else(|| Error::Vanished { name: spec.name.clone() })?;
        assert_eq!(Some(spec.kind), link.tun);
        self.ifindex = ifindex;
        if let Some(mac) = spec.mac
            && mac != link.mac
        {
            commander.set_mac(ifindex, mac)?;
        }
        // Before the addresses: IPv6 refuses them below an MTU of 1,280.
        if spec.mtu != link.mtu {
            commander.set_mtu(ifindex, spec.mtu)?;
        }
        allow_ipv6(&spec.name, spec.ipv6);
        let present = commander.addresses(ifindex)?;
        for address in &present {
            if !is_link_local(address) && !spec.addresses.contains(address) {
                commander.delete_address(ifindex, *address)?;
            }
        }
        for address in &spec.addresses {
            if !present.contains(address) {
                commander.add_address(ifindex, *address)?;
            }
        }
        if !link.up {
            commander.set_up(ifindex, true)?;
        }
        Ok(())
    }

    /// Its index.
    pub fn ifindex(&self) -> IfIndex {
        self.ifindex
    }

    /// The packets of it, to be read by one worker and written by all.
    pub fn tun(&self) -> &Arc<Tun> {
        &self.tun
    }

    /// Deletes the device: a clean stop.
    ///
    /// # Errors
    /// The kernel's, none of which is known.
    pub fn remove(self) -> io::Result<()> {
        // The kernel deletes it when the last descriptor goes.
        self.tun.set_persistent(false)
    }
}

impl AsFd for Device {
    /// Readable when the host has sent a packet into the device.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

/// Netlink has no word for this. A kernel without IPv6 has no such file, and where `/proc/sys` is read-only the kernel's
/// chatter is dropped under its name: no reason to fail.
fn allow_ipv6(name: &str, allow: bool) {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let value = if allow { "0" } else { "1" };
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) {
        let _ = std::fs::write(&path, value);
    }
}

fn is_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::super::host::Host;
    use super::super::netlink::Mirror;
    use super::super::netlink::tests::{eventually, in_namespace, ip};
    use super::*;

    fn spec(name: &str, kind: TunKind) -> Spec {
        Spec {
            name: name.to_owned(),
            kind,
            mac: Some([2, 0, 0, 0, 0, 7]).filter(|_| kind == TunKind::Tap),
            mtu: 1450,
            ipv6: true,
            addresses: ["192.0.2.1/30", "2001:db8::1/126"].map(|text| text.parse().expect("a prefix")).to_vec(),
        }
    }

    #[test]
    fn the_kernel_speaks_no_ipv6_where_none_can_go() {
        in_namespace(|| {
            let mut spec = spec("v4-only", TunKind::Tun);
            (spec.ipv6, spec.addresses) = (false, vec!["192.0.2.1/30".parse().expect("a prefix")]);
            let mut commander = Commander::open().expect("in the namespace");
            let mut device = Device::establish(&spec, &mut commander).expect("free");
            let own = |device: &Device| {
                let addresses = commander_addresses(device.ifindex());
                addresses.iter().any(is_link_local)
            };
            assert!(!own(&device));
            spec.ipv6 = true;
            device.configure(&spec, &mut commander).expect("legal");
            eventually(|| own(&device).then_some(()));
        });
    }

    fn commander_addresses(ifindex: IfIndex) -> Vec<IpNet> {
        Mirror::open().expect("in the namespace").host().addresses_of(ifindex).collect()
    }

    /// Addresses of a device without the kernel's own.
    fn addresses(host: &Host, ifindex: IfIndex) -> Vec<IpNet> {
        host.addresses_of(ifindex).filter(|address| !is_link_local(address)).collect()
    }

    #[test]
    fn a_device_is_made_as_specified_survives_its_program_and_is_taken_over() {
        in_namespace(|| {
            for kind in [TunKind::Tun, TunKind::Tap] {
                let spec = spec("aws-a", kind);
                let mut commander = Commander::open().expect("in the namespace");
                let device = Device::establish(&spec, &mut commander).expect("free");
                let ifindex = device.ifindex();
                let host = |what: &str| {
                    let mirror = Mirror::open().expect(what);
                    let host = mirror.host().clone();
                    assert_eq!(addresses(&host, ifindex), spec.addresses, "{what}");
                    let link = &host.links[&ifindex];
                    assert_eq!((link.tun, link.mtu, link.up), (Some(kind), 1450, true));
                    if let Some(mac) = spec.mac {
                        assert_eq!(link.mac, mac);
                    }
                };
                host("new");
                let error = Device::establish(&spec, &mut commander).expect_err("in use");
                assert!(matches!(error, Error::InUse { .. }), "{error}");

                drop(device);
                host("left alone");
                let mut mirror = Mirror::open().expect("in the namespace");
                let device = eventually(|| match Device::establish(&spec, &mut commander) {
                    Err(Error::InUse { .. }) => None,
                    other => Some(other.expect("left by us")),
                });
                assert_eq!(device.ifindex(), ifindex);
                host("taken over");
                // Carrier comes back with the program; nothing else was touched.
                let mut changes = mirror.poll().expect("the kernel answers");
                // The kernel's own is in use once nobody objects, a second or two after.
                changes.addresses.retain(|(_, address)| !is_link_local(address));
                assert!(changes.addresses.is_empty(), "{changes:?}");

                device.remove().expect("ours");
                eventually(|| {
                    let link = commander.link("aws-a").expect("asked");
                    link.is_none().then_some(())
                });
            }
        });
    }

    #[test]
    fn what_an_earlier_run_or_a_hand_left_otherwise_is_put_right() {
        in_namespace(|| {
            let spec = spec("aws-a", TunKind::Tap);
            ip("tuntap add dev aws-a mode tap");
            ip("link set aws-a mtu 9000 up");
            ip("address add 203.0.113.1/24 dev aws-a");
            ip("address add 192.0.2.1/24 dev aws-a");
            let mut commander = Commander::open().expect("in the namespace");
            let mut device = Device::establish(&spec, &mut commander).expect("a TAP, unused");
            let mirror = Mirror::open().expect("in the namespace");
            assert_eq!(addresses(mirror.host(), device.ifindex()), spec.addresses);
            assert_eq!(mirror.host().links[&device.ifindex()].mtu, 1450);

            let mut changed = spec.clone();
            changed.mtu = 1400;
            changed.addresses.pop();
            device.configure(&changed, &mut commander).expect("legal");
            let mirror = Mirror::open().expect("in the namespace");
            assert_eq!(addresses(mirror.host(), device.ifindex()), changed.addresses);
            assert_eq!(mirror.host().links[&device.ifindex()].mtu, 1400);
        });
    }

    #[test]
    fn a_device_of_another_kind_is_left_alone_and_named() {
        in_namespace(|| {
            ip("link add taken type veth peer name other");
            ip("tuntap add dev wrong mode tun");
            let mut commander = Commander::open().expect("in the namespace");
            let cases = [("taken", "a device of kind veth"), ("wrong", "a TUN device"), ("lo", "a network interface")];
            for (name, found) in cases {
                let error = Device::establish(&spec(name, TunKind::Tap), &mut commander).expect_err("something else");
                assert_eq!(
                    error.to_string(),
                    format!(
                        "cannot make the TAP device `{name}`: there is {found} of that name already; \
                         delete it or name the tunnel otherwise"
                    )
                );
                assert!(commander.link(name).expect("asked").is_some());
            }
        });
    }
}
