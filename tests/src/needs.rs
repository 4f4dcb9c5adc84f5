//! What a test needs of the machine, and what it says where that is not there.

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

/// Says that the test is skipped.
///
/// # Panics
///
/// If PENSTOCK_NO_SKIP is set, as where everything is known to be installed.
pub fn skip(what: &str) {
    assert!(std::env::var_os("PENSTOCK_NO_SKIP").is_none(), "needs {what}, and PENSTOCK_NO_SKIP forbids to skip");
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
