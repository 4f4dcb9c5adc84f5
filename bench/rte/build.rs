//! With the feature `dpdk`: compiles the shim against DPDK's headers, and links what it calls.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/shim.c");
    if std::env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    let mut shim = cc::Build::new();
    for flag in pkg_config("--cflags") {
        shim.flag(flag);
    }
    shim.file("src/shim.c").compile("rte_shim");
    for directory in pkg_config("--libs-only-L") {
        println!("cargo::rustc-link-search=native={}", directory.trim_start_matches("-L"));
    }
    for library in ["rte_fib", "rte_eal"] {
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
