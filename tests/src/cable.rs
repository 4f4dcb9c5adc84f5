//! Interfaces with real drivers, which the virtual machine of `vm/boot` has in pairs, back to back.

use crate::lab::{Host, LinkOptions};
use crate::site::PATIENCE;
use crate::until;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A kind of interface, by what its driver does with AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net without a device that could read memory by itself. Where the driver knows zero-copy it refuses it with
    /// EINVAL. One queue.
    Virtio,
    /// virtio-net behind an IOMMU, as far as the driver can tell: zero-copy. Two queues.
    VirtioIommu,
    /// A NIC of Intel's whose driver has zero-copy. Two queues. Its link is down for two seconds whenever a program or a
    /// socket comes or goes.
    Igb,
    /// A NIC of Intel's whose driver knows nothing of XDP. One queue.
    E1000e,
}

impl Nic {
    /// As `vm/boot` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::VirtioIommu => "virtio-iommu",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
        }
    }

    /// Whether this machine has a pair.
    pub fn is_there(self) -> bool {
        self.address().is_some()
    }

    /// What the addresses of a pair begin with, if this machine has one. The virtual machine says so, lest a test took
    /// an interface that somebody needs.
    fn address(self) -> Option<String> {
        let cables = std::env::var("PENSTOCK_VM_CABLES").ok()?;
        let mut named = cables.split_whitespace().filter_map(|cable| cable.split_once('='));
        named.find(|(name, _)| *name == self.name()).map(|(_, address)| address.to_owned())
    }

    /// Moves its two ends into hosts, where they have these names and are up.
    ///
    /// # Panics
    ///
    /// If there is no pair, or the last test that had it does not give it back.
    #[track_caller]
    pub fn connect(self, ends: [(&Host, &str); 2], options: LinkOptions, _turn: &Turn) {
        let address = self.address().unwrap_or_else(|| panic!("this machine has no pair of {}", self.name()));
        for (at, (host, name)) in ends.into_iter().enumerate() {
            let address = format!("{address}:{at:02x}");
            let mut found = None;
            // What the last namespace had comes back when the kernel gets to it.
            until(&format!("{} {address} is there", self.name()), PATIENCE, || {
                found = interface(&address);
                found.is_some()
            });
            let now = found.expect("until has seen it");
            let moved = Command::new("ip").args(["link", "set", &now, "down", "netns", host.namespace()]).output();
            let moved = moved.expect("iproute2 is installed");
            assert!(moved.status.success(), "{now}: {}", String::from_utf8_lossy(&moved.stderr));
            host.run(&format!("ip link set {now} name {name} mtu {} up", options.mtu));
            // QEMU's igb and e1000e take a checksum inside a tunnel for one outside.
            host.run(&format!("ethtool -K {name} tx off"));
        }
        for (host, name) in ends {
            until(&format!("{name} has a carrier"), PATIENCE, || {
                host.run(&format!("ip link show {name}")).contains("LOWER_UP")
            });
        }
    }
}

/// The name of the interface of this network namespace that has an address.
fn interface(address: &str) -> Option<String> {
    let all = std::fs::read_dir("/sys/class/net").expect("every kernel with a network has it");
    let paths = all.filter_map(|entry| Some(entry.ok()?.path()));
    let has = |path: &PathBuf| std::fs::read_to_string(path.join("address")).is_ok_and(|read| read.trim() == address);
    paths.filter(has).find_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// The right to use the pairs: one test at a time.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Turn {
    /// Waits for it.
    pub fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has given back what it had.
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
