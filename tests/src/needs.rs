//! What a test needs of the machine, and what it says where that is not there.

use crate::cable::Nic;
use crate::lab::Lab;
use std::io::Write;
use std::path::Path;
use sys::caps::{Capability, has};

/// What labs are made with.
const LAB_TOOLS: &[&str] = &["ip", "ping"];

/// What is missing of the capabilities, tools and kernel features that namespaces with interfaces need.
pub fn missing(tools: &[&str]) -> Option<String> {
    for capability in [Capability::NetAdmin, Capability::SysAdmin, Capability::NetRaw] {
        if !has(capability) {
            return Some(capability.name().into());
        }
    }
    LAB_TOOLS.iter().chain(tools).find(|tool| !installed(tool)).map(|tool| (*tool).to_owned())
}

/// Whether `tool` can be called by its name.
pub fn installed(tool: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
        || Path::new("/usr/sbin").join(tool).is_file()
}

/// What only some kernels have.
#[derive(Clone, Copy, Debug)]
pub enum Feature {
    /// A module that makes devices, as Linux calls it; one of `MODULES`.
    Module(&'static str),
    /// A pair of interfaces.
    Nic(Nic),
}

/// The modules that tests may ask for, and a device of each: what follows `ip link add`. Those of `vm/boot` have all.
const MODULES: &[(&str, &str)] = &[
    ("8021q", "link lo name probe type vlan id 5"),
    ("geneve", "name probe type geneve id 1 remote 192.0.2.2"),
    ("ip6_gre", "name probe type ip6gre local 2001:db8::1 remote 2001:db8::2"),
    ("ip6_tunnel", "name probe type ip6tnl mode any local 2001:db8::1 remote 2001:db8::2"),
    ("ip_gre", "name probe type gre local 192.0.2.1 remote 192.0.2.2"),
    ("ipip", "name probe type ipip local 192.0.2.1 remote 192.0.2.2"),
    ("sit", "name probe type sit local 192.0.2.1 remote 192.0.2.2"),
    ("vrf", "name probe type vrf table 5"),
];

/// The first of the features that the kernel lacks. A module that it has is loaded then. Only after [`missing`] has found
/// nothing.
///
/// # Panics
///
/// If a module is not one of `MODULES`.
pub fn lacking(features: &[Feature]) -> Option<String> {
    features.iter().find_map(|feature| match *feature {
        Feature::Module(name) => (!makes_devices(name)).then(|| name.to_owned()),
        Feature::Nic(nic) => (!nic.is_there()).then(|| nic.name().to_owned()),
    })
}

fn makes_devices(module: &str) -> bool {
    let (_, device) =
        MODULES.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} is no module"));
    let made = Lab::new("probe").host("probe").try_run(&format!("ip link add {device}"));
    // Anything else means that it was understood: nothing can be a VLAN of `lo`.
    !made.stderr.contains("Unknown device type")
}

/// The release of the kernel that runs: major and minor number.
///
/// # Panics
///
/// If it has none.
pub fn release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("digits"));
    (numbers.next().expect("a major number"), numbers.next().expect("a minor number"))
}

/// Says that the test is skipped for want of a feature of the kernel: allowed where there is no other kernel to run it
/// under.
///
/// # Panics
///
/// If PENSTOCK_NO_SKIP is `all`, as in the virtual machine that is there for this.
pub fn skip_for_kernel(what: &str) {
    let forbidden = std::env::var_os("PENSTOCK_NO_SKIP").is_some_and(|value| value == "all");
    assert!(!forbidden, "needs {what}, and PENSTOCK_NO_SKIP=all forbids to skip");
    say(what);
}

/// Says that the test is skipped for want of a privilege or a tool.
///
/// # Panics
///
/// If PENSTOCK_NO_SKIP is set, as where everything is known to be installed.
pub fn skip(what: &str) {
    assert!(std::env::var_os("PENSTOCK_NO_SKIP").is_none(), "needs {what}, and PENSTOCK_NO_SKIP forbids to skip");
    say(what);
}

fn say(what: &str) {
    // Not by `println!`: the test harness would keep that to itself, since the test passes.
    let _ = writeln!(std::io::stderr(), "skipped: needs {what}");
}

/// Ends the test unless namespaces can be made and the tools named are there.
#[macro_export]
macro_rules! require {
    ($($tool:literal),*) => {
        if let Some(what) = $crate::needs::missing(&[$($tool),*]) {
            $crate::needs::skip(&what);
            return;
        }
    };
}

/// Ends the test unless the kernel has the [`Feature`]s listed. Namespaces can be made: `require!` comes first.
#[macro_export]
macro_rules! require_kernel {
    ($($feature:expr),+) => {
        if let Some(what) = $crate::needs::lacking(&[$($feature),+]) {
            $crate::needs::skip_for_kernel(&what);
            return;
        }
    };
}
