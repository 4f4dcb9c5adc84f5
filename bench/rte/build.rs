//! With the feature `dpdk`: compiles the shims against DPDK's headers, and links what it calls.

use std::process::Command;

const SHIMS: [&str; 3] = ["src/shim.c", "src/sched.c", "src/meter.c"];

fn main() {
    for file in ["build.rs", "src/shim.h"].iter().chain(&SHIMS) {
        println!("cargo::rerun-if-changed={file}");
    }
    if std::env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    let mut shim = cc::Build::new();
    for flag in pkg_config("--cflags") {
        shim.flag(flag);
    }
    // What the headers themselves call is not all stable, and nothing of it is called here.
    shim.flag("-Wno-deprecated-declarations");
    shim.files(SHIMS).compile("rte_shim");
    for directory in pkg_config("--libs-only-L") {
        println!("cargo::rustc-link-search=native={}", directory.trim_start_matches("-L"));
    }
    for library in ["rte_fib", "rte_sched", "rte_meter", "rte_eal"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
}

fn pkg_config(question: &str) -> Vec<String> {
    let output = Command::new("pkg-config").args([question, "libdpdk"]).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(String::from).collect()
        }
        _ => panic!("the feature `dpdk` needs DPDK and pkg-config: apt-get install libdpdk-dev pkg-config"),
    }
}
