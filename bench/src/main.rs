//! The bench: gathers the figures of criterion into `results.json` and prints them.
#![forbid(unsafe_code)]

use anyhow::Result;
use bench::results;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Gathers what the benches measured")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts the medians of criterion into results.json, beside what other benches left there, and prints them.
    Report {
        /// Cargo's target directory.
        #[arg(long, env = "CARGO_TARGET_DIR", default_value = "target")]
        target: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Report { target } => report(&target),
    }
}

fn report(target: &std::path::Path) -> Result<()> {
    let figures = results::of_criterion(&target.join("criterion"))?;
    let path = target.join("bench/results.json");
    results::merge(&path, &figures)?;
    println!("{:<24} {:>9}  unit", "name", "median");
    for figure in &figures {
        println!("{:<24} {:>9.2}  {}", figure.name, figure.value, figure.unit);
    }
    println!("written to {}", path.display());
    Ok(())
}
