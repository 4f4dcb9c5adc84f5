//! What the calling thread may do.

use rustix::thread::{CapabilitySet, capabilities};

/// A capability that something in Penstock needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Configure devices, addresses, routes; attach XDP programs.
    NetAdmin,
    /// Open AF_XDP and packet sockets.
    NetRaw,
    /// Load BPF programs and make maps (Linux 5.8; CAP_SYS_ADMIN also grants it).
    Bpf,
    /// Enter namespaces.
    SysAdmin,
    /// Lock memory beyond RLIMIT_MEMLOCK.
    IpcLock,
}

impl Capability {
    /// The name in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Bpf => "CAP_BPF",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::IpcLock => "CAP_IPC_LOCK",
        }
    }
}

/// Whether the calling thread has that capability in effect. `false` when the kernel
/// will not say.
pub fn has(capability: Capability) -> bool {
    let bits = match capability {
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        // The kernel takes either (bpf_capable).
        Capability::Bpf => CapabilitySet::BPF | CapabilitySet::SYS_ADMIN,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
        Capability::IpcLock => CapabilitySet::IPC_LOCK,
    };
    capabilities(None).is_ok_and(|sets| sets.effective.intersects(bits))
}

/// Whether a test that needs that capability can run; if not, says so.
///
/// # Panics
/// When it cannot and PENSTOCK_NO_SKIP is set, as CI does.
pub fn testable(capability: Capability) -> bool {
    let able = has(capability);
    if !able {
        assert!(
            std::env::var_os("PENSTOCK_NO_SKIP").is_none(),
            "needs {}, and PENSTOCK_NO_SKIP forbids to skip",
            capability.name()
        );
        eprintln!("skipped: needs {}", capability.name());
    }
    able
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_what_proc_says() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .expect("every status has CapEff");
        for (capability, bits) in [
            (Capability::NetAdmin, 1 << 12),
            (Capability::NetRaw, 1 << 13),
            (Capability::IpcLock, 1 << 14),
            (Capability::SysAdmin, 1 << 21),
            (Capability::Bpf, 1 << 39 | 1 << 21),
        ] {
            assert_eq!(has(capability), effective & bits != 0, "{capability:?}");
        }
    }

    #[test]
    fn a_thread_that_gave_one_up_does_not_have_it() {
        std::thread::spawn(|| {
            let mut sets = capabilities(None).expect("one's own can be read");
            sets.effective -= CapabilitySet::NET_ADMIN;
            rustix::thread::set_capabilities(None, sets).expect("giving up is free");
            assert!(!has(Capability::NetAdmin));
        })
        .join()
        .expect("the thread's own asserts");
    }
}
