//! The bench: measures end to end, and gathers the figures of criterion.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use bench::{fib, lab, results, rivals, shaping};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

#[derive(Parser)]
#[command(about = "Measures Penstock, or gathers what was measured")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Cargo's target directory.
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = "target", global = true)]
    target: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Puts the medians of criterion into results.json, beside what other benches left there, and prints them. The scheduler
    /// and the policers run once more, in turns with DPDK's where this is built with it.
    Report,
    /// Looks up, changes and loads real routing tables, in turns with DPDK's where this is built with it.
    Lpm {
        /// Only figures with one of these in their names, such as `v4/` or `zipf`.
        only: Vec<String>,
        /// Slices of each figure.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
    },
    /// Forwards the same frames by Penstock and by the kernel, in turns, and puts both rates into results.json.
    Lab {
        /// How often each forwarder runs.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Seconds of each run.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
        /// Who takes the frames at the far end. `stack`, a plain veth peer, costs the same whoever sends; `xdp` copies
        /// what comes from AF_XDP or out of the kernel's tunnels once more, at the sender's expense.
        #[arg(long, value_enum, default_value_t = Sink::Stack)]
        sink: Sink,
    },
    /// Tenants, an interactive flow and a port that is too slow for all of them, by Penstock and by Linux's HTB and
    /// fq_codel: shares, delays, fairness, and a plot of it beside results.json.
    Qos {
        /// Seconds of each of the six parts.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(shaping::LEAST_SECONDS..=600))]
        seconds: u64,
        /// The port's rate, Mbit/s: no more than this machine's CPUs forward with ease, or they are what is measured.
        #[arg(long, default_value_t = 200, overrides_with = "port", value_parser = clap::value_parser!(u64).range(5..=10_000))]
        port: u64,
        /// This machine is an emulated one: says so, and gives figures and plot names of their own (`qos-vm/...`).
        #[arg(long)]
        emulated: bool,
    },
}

/// As the command line says it.
#[derive(Clone, Copy, ValueEnum)]
enum Sink {
    Stack,
    Xdp,
}

fn main() -> ExitCode {
    let Arguments { command, target } = Arguments::parse();
    let result = match command {
        Command::Report => report(&target),
        Command::Lpm { only, rounds } => lpm(&target, &fib::Options { only, rounds: rounds as usize }),
        Command::Lab { rounds, seconds, sink } => {
            let sink = match sink {
                Sink::Stack => lab::Sink::Stack,
                Sink::Xdp => lab::Sink::Xdp,
            };
            lab(&target, rounds as usize, seconds, sink)
        }
        Command::Qos { seconds, port, emulated } => {
            let plot = target.join(if emulated { "bench/qos-vm.svg" } else { "bench/qos.svg" });
            let rates = shaping::Rates { port: port * 1_000_000 };
            penstock().and_then(|penstock| qos(&target, &shaping::Options { seconds, rates, emulated, penstock, plot }))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(target: &Path) -> Result<()> {
    let figures = results::of_criterion(&target.join("criterion"))?;
    let path = target.join("bench/results.json");
    results::merge(&path, &figures)?;
    println!("{:<24} {:>9}  unit", "name", "median");
    for figure in &figures {
        println!("{:<24} {:>9.2}  {}", figure.name, figure.value, figure.unit);
    }
    let mut of_both = Vec::new();
    if let Err(error) = rivals::beside(&figures, &mut of_both) {
        println!("no opponent: {error}");
    }
    results::merge(&path, &of_both)?;
    for figure in &of_both {
        let detail = |name: &str| figure.details.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let against = figure.against.as_deref().unwrap_or_default();
        // What they are compared with by default comes first.
        let others =
            figure.details.keys().filter_map(|name| name.strip_suffix("_ratio")).filter(|code| *code != against);
        print!("{:<24} {:>9.2}  in turns with", figure.name, detail("beside"));
        for (at, code) in std::iter::once(against).chain(others).enumerate() {
            let comma = if at == 0 { "" } else { ";" };
            print!("{comma} {code}: {:.2}, ratio {:.2}", detail(code), detail(&format!("{code}_ratio")));
        }
        println!();
    }
    println!("written to {}", path.display());
    Ok(())
}

fn lpm(target: &Path, options: &fib::Options) -> Result<()> {
    let mut figures = Vec::new();
    let measured = fib::run(options, &mut figures);
    let path = target.join("bench/results.json");
    results::merge(&path, &figures)?;
    println!("written to {}", path.display());
    Ok(measured?)
}

/// The program under test. Under `cargo run` it is brought up to date too; alone, the one beside this is taken.
fn penstock() -> Result<PathBuf> {
    let penstock = std::env::current_exe().context("this program has no file")?.with_file_name("penstock");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let built = Process::new(cargo)
            .args(["build", "--release", "--locked", "--quiet", "--package", "dataplane", "--bin", "penstock"])
            .status()
            .context("cargo cannot be started")?;
        anyhow::ensure!(built.success(), "penstock does not build");
    }
    Ok(penstock)
}

fn qos(target: &Path, options: &shaping::Options) -> Result<()> {
    let figures = shaping::run(options)?;
    let path = target.join("bench/results.json");
    results::merge(&path, &figures)?;
    println!("written to {}", path.display());
    Ok(())
}

fn lab(target: &Path, rounds: usize, seconds: u64, sink: lab::Sink) -> Result<()> {
    let figures = lab::run(&lab::Options { rounds, seconds, sink, penstock: penstock()? })?;
    let path = target.join("bench/results.json");
    results::merge(&path, &figures)?;
    println!("written to {}", path.display());
    Ok(())
}
