//! What the calling thread may do, and giving up what it need not.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use std::io;

/// A capability that something in Penstock needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Configure devices, addresses, routes; attach XDP programs.
    NetAdmin,
    /// Open AF_XDP and packet sockets.
    NetRaw,
    /// Load BPF programs and make maps (Linux 5.8; CAP_SYS_ADMIN also grants it).
    Bpf,
    /// Load BPF programs that compute with pointers (Linux 5.8; CAP_SYS_ADMIN also grants it).
    Perfmon,
    /// Enter namespaces.
    SysAdmin,
    /// Lock memory beyond RLIMIT_MEMLOCK.
    IpcLock,
    /// Shrink one's own bounding set.
    SetPcap,
}

impl Capability {
    /// The name in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SetPcap => "CAP_SETPCAP",
        }
    }

    /// What grants it, each alone, the narrowest first.
    const fn grants(self) -> &'static [CapabilitySet] {
        match self {
            Self::NetAdmin => &[CapabilitySet::NET_ADMIN],
            Self::NetRaw => &[CapabilitySet::NET_RAW],
            // The kernel takes either (bpf_capable, perfmon_capable).
            Self::Bpf => &[CapabilitySet::BPF, CapabilitySet::SYS_ADMIN],
            Self::Perfmon => &[CapabilitySet::PERFMON, CapabilitySet::SYS_ADMIN],
            Self::SysAdmin => &[CapabilitySet::SYS_ADMIN],
            Self::IpcLock => &[CapabilitySet::IPC_LOCK],
            Self::SetPcap => &[CapabilitySet::SETPCAP],
        }
    }

    /// The narrowest part of `sets` that grants it; nothing if nothing does.
    fn within(self, sets: CapabilitySet) -> CapabilitySet {
        self.grants().iter().copied().find(|grant| sets.contains(*grant)).unwrap_or(CapabilitySet::empty())
    }
}

/// Whether the calling thread has that capability in effect. `false` when the kernel
/// will not say.
pub fn has(capability: Capability) -> bool {
    capabilities(None).is_ok_and(|sets| !capability.within(sets.effective).is_empty())
}

/// Gives up, for good, all that the calling thread may do but what `kept` names; what it had not it does not get.
/// Threads that it starts from now on have no more, nor has what they execute, whoever owns the file: no_new_privs
/// is set, and the inheritable, the ambient and the bounding set are empty. Threads that run already keep what they
/// have.
///
/// The bounding set stays as it was without CAP_SETPCAP; it could only widen what no_new_privs has ruled out.
///
/// # Errors
/// None is known: giving up is free.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let had = capabilities(None)?;
    if has(Capability::SetPcap) {
        empty_bounding_set()?;
    }
    let permitted = kept.iter().fold(CapabilitySet::empty(), |sum, kept| sum | kept.within(had.permitted));
    // What is not inheritable is not ambient either: the kernel sees to that.
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: permitted & had.effective, permitted, inheritable })?;
    Ok(set_no_new_privs(true)?)
}

fn empty_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        // Not by name: the kernel may know more of them than we do, and ends the list with EINVAL.
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
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
    use rustix::thread::configure_capability_in_ambient_set;
    use std::process::Command;

    /// One line of a `status` of /proc, in hexadecimal as the sets are, or a single digit.
    fn number(status: &str, name: &str) -> u64 {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let text = lines.next().unwrap_or_else(|| panic!("every status has {name}"));
        u64::from_str_radix(text.trim(), 16).expect("it is a number")
    }

    fn own() -> String {
        std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted")
    }

    /// On a thread of its own, since there is no way back.
    fn on_a_thread(story: impl FnOnce() + Send + 'static) {
        std::thread::spawn(story).join().expect("the thread's own asserts");
    }

    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;

    #[test]
    fn agrees_with_what_proc_says() {
        let effective = number(&own(), "CapEff");
        for (capability, bits) in [
            (Capability::SetPcap, 1 << 8),
            (Capability::NetAdmin, NET_ADMIN),
            (Capability::NetRaw, NET_RAW),
            (Capability::IpcLock, 1 << 14),
            (Capability::SysAdmin, 1 << 21),
            (Capability::Perfmon, 1 << 38 | 1 << 21),
            (Capability::Bpf, 1 << 39 | 1 << 21),
        ] {
            assert_eq!(has(capability), effective & bits != 0, "{capability:?}");
        }
    }

    #[test]
    fn a_thread_that_gave_one_up_does_not_have_it() {
        on_a_thread(|| {
            let mut sets = capabilities(None).expect("one's own can be read");
            sets.effective -= CapabilitySet::NET_ADMIN;
            set_capabilities(None, sets).expect("giving up is free");
            assert!(!has(Capability::NetAdmin));
        });
    }

    #[test]
    fn a_thread_keeps_what_it_names_and_no_set_has_more() {
        if !testable(Capability::NetAdmin) || !testable(Capability::SetPcap) {
            return;
        }
        let before = ["CapEff", "CapBnd", "NoNewPrivs"].map(|set| number(&own(), set));
        on_a_thread(|| {
            let mut sets = capabilities(None).expect("one's own can be read");
            sets.inheritable |= CapabilitySet::NET_ADMIN;
            set_capabilities(None, sets).expect("it is permitted, so it may be inherited");
            configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true).expect("it is inheritable");
            assert_eq!(number(&own(), "CapAmb"), NET_ADMIN, "there is something to clear");

            keep_only(&[Capability::NetRaw]).expect("giving up is free");
            let status = own();
            for (set, bits) in [
                ("CapEff", NET_RAW),
                ("CapPrm", NET_RAW),
                ("CapInh", 0),
                ("CapAmb", 0),
                ("CapBnd", 0),
                ("NoNewPrivs", 1),
            ] {
                assert_eq!(number(&status, set), bits, "{set}");
            }
            // Nor can it be had again, by asking or by keeping.
            keep_only(&[Capability::NetAdmin, Capability::NetRaw]).expect("giving up is free");
            assert_eq!(number(&own(), "CapPrm"), NET_RAW);
            assert!(set_capabilities(None, sets).is_err());
        });
        let after = ["CapEff", "CapBnd", "NoNewPrivs"].map(|set| number(&own(), set));
        assert_eq!(after, before, "this thread is as it was");
    }

    #[test]
    fn what_such_a_thread_executes_or_starts_has_no_more() {
        on_a_thread(|| {
            keep_only(&[]).expect("giving up is free");
            // As root, a program would have everything that the bounding set allows.
            let output = Command::new("cat").arg("/proc/self/status").output().expect("cat is everywhere");
            let status = String::from_utf8_lossy(&output.stdout).into_owned();
            on_a_thread(|| assert_eq!(number(&own(), "CapPrm"), 0));
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(number(&status, set), 0, "{set}");
            }
            assert_eq!(number(&status, "NoNewPrivs"), 1);
        });
    }

    #[test]
    fn what_only_a_wider_one_grants_is_kept_as_that() {
        let both = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        assert_eq!(Capability::Bpf.within(both), CapabilitySet::BPF);
        assert_eq!(Capability::Bpf.within(CapabilitySet::SYS_ADMIN), CapabilitySet::SYS_ADMIN);
        assert_eq!(Capability::Bpf.within(CapabilitySet::NET_RAW), CapabilitySet::empty());
    }
}
