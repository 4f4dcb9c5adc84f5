//! Makes the committed BPF objects from their sources, with the stable toolchain alone.
//!
//! ```text
//! cargo run --manifest-path ebpf/build/Cargo.toml              writes ebpf/*.bpf.o and ebpf/objects.toml
//! cargo run --manifest-path ebpf/build/Cargo.toml -- --check   compares instead
//! ```
//!
//! Each program is compiled for the host as a static library that also leaves its LLVM bitcode; bpf-linker, as a
//! library of this tool and with rustc's own LLVM, turns the bitcode into a BPF object. So neither a nightly
//! toolchain nor the sources of `core` are needed.
//!
//! The octets follow from the sources, the lock files and the compiler, so they are compared only under the rustc
//! that `objects.toml` names. Paths are remapped, and debug information is dropped (types stay, as BTF, lines do
//! not): a comment or another folder changes nothing.

use anyhow::{Context, Result, bail, ensure};
use bpf_linker::{Cpu, Linker, LinkerInput, LinkerOptions, OptLevel, OutputType};
use object::{Object, ObjectSymbol, read::archive::ArchiveFile};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The objects depend on the architecture that the bitcode was first made for: all are made for this one.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The programs: a folder beside this one, and the name of its library.
const PROGRAMS: [&str; 2] = ["steer", "traffic"];

fn main() -> Result<()> {
    let mut check = false;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            other => bail!("{other}: the only option is --check"),
        }
    }
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    find_llvm(&sysroot)?;

    let ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in a folder")?;
    let record = ebpf.join("objects.toml");
    let rustc = output(Command::new("rustc").arg("--version"))?;
    if check {
        let recorded = fs::read_to_string(&record).with_context(|| format!("{}", record.display()))?;
        if recorded != objects_toml(&rustc) {
            println!("not compared: this is {rustc} on {}; {} says:\n{recorded}", env::consts::ARCH, record.display());
            return Ok(());
        }
    }
    for program in PROGRAMS {
        let new = build(ebpf, program, &sysroot)?;
        let committed = ebpf.join(format!("{program}.bpf.o"));
        if check {
            let old = fs::read(&committed).with_context(|| format!("{}", committed.display()))?;
            ensure!(
                old == new,
                "{} is not what its source makes: run `cargo run --manifest-path ebpf/build/Cargo.toml` and commit it",
                committed.display()
            );
            println!("{} is what its source makes ({} octets)", committed.display(), new.len());
        } else {
            fs::write(&committed, &new).with_context(|| format!("{}", committed.display()))?;
            println!("wrote {} ({} octets)", committed.display(), new.len());
        }
    }
    if !check {
        fs::write(&record, objects_toml(&rustc))?;
    }
    Ok(())
}

fn objects_toml(rustc: &str) -> String {
    format!(
        "# Written by ebpf/build: what made the objects beside this file.\nrustc = \"{rustc}\"\nhost = \"{HOST}\"\n"
    )
}

/// Starts this process anew with rustc's folder of libraries first, unless it is: bpf-linker looks for libLLVM there.
fn find_llvm(sysroot: &Path) -> Result<()> {
    let lib = sysroot.join("lib");
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    if env::split_paths(&path).next().is_some_and(|first| first == lib) {
        return Ok(());
    }
    let path = env::join_paths([lib].into_iter().chain(env::split_paths(&path)))?;
    let error = Command::new(env::current_exe()?).args(env::args_os().skip(1)).env("LD_LIBRARY_PATH", path).exec();
    bail!("starting this program again: {error}")
}

/// The object of one program.
fn build(ebpf: &Path, program: &str, sysroot: &Path) -> Result<Vec<u8>> {
    let source = ebpf.join(program);
    let target = ebpf.join("build/target/programs");
    run(Command::new("cargo").args(["fetch", "--locked", "--target", HOST]).current_dir(&source))?;
    run(Command::new("cargo")
        .args(["build", "--release", "--locked", "--target", HOST, "--target-dir"])
        .arg(&target)
        .current_dir(&source)
        .env("CARGO_ENCODED_RUSTFLAGS", rustc_flags(ebpf, sysroot)?.join("\x1f"))
        .env_remove("RUSTFLAGS"))?;

    let release = target.join(HOST).join("release");
    let bitcode = bitcode(&release.join("deps"), program)?;
    let exports = exports(&release.join(format!("lib{program}.a")), program)?;
    let linker = Linker::new(LinkerOptions {
        target: Some(c"bpfel-unknown-none".into()),
        // 32-bit arithmetic and jumps: any kernel since 5.1.
        cpu: Cpu::V3,
        cpu_features: c"".into(),
        optimize: OptLevel::Aggressive,
        unroll_loops: false,
        ignore_inline_never: false,
        llvm_args: vec![],
        // Without this, clearing a key becomes a call to a loop over octets.
        disable_expand_memcpy_in_order: true,
        disable_memory_builtins: false,
        allow_bpf_trap: false,
        btf: true,
    });
    let whole = target.join(format!("{program}.whole.o"));
    let stripped = target.join(format!("{program}.o"));
    let input = LinkerInput::new_from_file(&bitcode);
    linker.link_to_file([input], &whole, OutputType::Object, exports.iter().map(String::as_str))?;
    // .BTF.ext holds line numbers: with them every comment would change the object.
    run(Command::new(sysroot.join("lib/rustlib").join(HOST).join("bin/rust-objcopy"))
        .args(["--strip-debug", "--remove-section=.BTF.ext", "--remove-section=.rel.BTF.ext"])
        .args([&whole, &stripped]))?;
    fs::read(&stripped).with_context(|| format!("{}", stripped.display()))
}

fn rustc_flags(ebpf: &Path, sysroot: &Path) -> Result<Vec<String>> {
    let mut flags: Vec<String> = [
        "--emit=llvm-bc",
        "-Ctarget-cpu=x86-64",
        "-Crelocation-model=static",
        "-Cno-vectorize-loops",
        "-Cno-vectorize-slp",
        // A table of values for a `match` has a bounds check that the verifier cannot follow.
        "-Cjump-tables=no",
        "-Cforce-unwind-tables=no",
    ]
    .map(Into::into)
    .into();
    let mut remap = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(ebpf.parent().context("ebpf lies in the repository")?, "/penstock");
    remap(&sysroot.join("lib/rustlib/src/rust"), "/rust");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).context("no HOME")?;
    // Named after the registry that the crates came from.
    for folder in fs::read_dir(home.join("registry/src")).context("crates fetched by cargo")? {
        remap(&folder?.path(), "/crates");
    }
    Ok(flags)
}

/// The newest bitcode of a crate: cargo names it by a hash, and leaves older ones.
fn bitcode(folder: &Path, program: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with(&format!("{program}-")) && name.ends_with(".bc") {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    let (_, newest) = found.into_iter().max().with_context(|| format!("no bitcode in {}", folder.display()))?;
    Ok(newest)
}

/// The global symbols of a crate: its programs, maps and variables. What is not named to the linker vanishes.
fn exports(archive: &Path, program: &str) -> Result<BTreeSet<String>> {
    let octets = fs::read(archive).with_context(|| format!("{}", archive.display()))?;
    let mut exports = BTreeSet::new();
    for member in ArchiveFile::parse(&*octets)?.members() {
        let member = member?;
        if !member.name().starts_with(format!("{program}-").as_bytes()) {
            continue;
        }
        for symbol in object::File::parse(member.data(&*octets)?)?.symbols() {
            let name = symbol.name()?;
            // Not the memory intrinsics, nor what belongs to the compiler.
            if symbol.is_global() && symbol.is_definition() && !name.starts_with("mem") && !name.starts_with('_') {
                exports.insert(name.to_owned());
            }
        }
    }
    ensure!(!exports.is_empty(), "{} exports nothing", archive.display());
    Ok(exports)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
