//! The command `penstock`. Everything it does is in the library.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Parser, Subcommand};
use dataplane::config::{Config, ConfigError};
use dataplane::replay::{PortFile, ReplayError};
use dataplane::{check, replay};
use std::path::PathBuf;
use std::process::ExitCode;

/// A virtual router on AF_XDP: routes packets at line rate into cloud tunnels.
#[derive(Parser)]
#[command(name = "penstock", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a configuration without touching the host.
    #[command(after_help = "Example: penstock check /etc/penstock.toml")]
    Check {
        /// The configuration file.
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run captures through the forwarder offline: no privilege, no host state.
    #[command(after_help = "Example: penstock replay gateway.toml --in lan0=in.pcap --out wan0=out.pcap --json")]
    Replay {
        /// The configuration file.
        config: PathBuf,
        /// What an interface receives, or what the host sends into a tunnel's device: a pcap file.
        #[arg(long = "in", value_name = "PORT=FILE")]
        inputs: Vec<PortFile>,
        /// Where to write what an interface sends: a pcap file in nanoseconds.
        #[arg(long = "out", value_name = "PORT=FILE")]
        outputs: Vec<PortFile>,
        /// Print the balance as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Exit status of a failure at run time.
const FAILED: u8 = 1;
/// Exit status of bad usage or configuration.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, causes included; a broken pipe on stderr has nobody to tell.
            eprintln!("penstock: {error:#}");
            ExitCode::from(status(&error))
        }
    }
}

fn status(error: &anyhow::Error) -> u8 {
    let refused = error.chain().any(|cause| {
        cause.is::<ConfigError>() || cause.downcast_ref::<ReplayError>().is_some_and(ReplayError::is_usage)
    });
    if refused { REFUSED } else { FAILED }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check { config, json } => {
            let report = check::check(&config)?;
            if json { print_json(&report) } else { print(&report.to_string()) }
        }
        Command::Replay { config, inputs, outputs, json } => {
            let balance = replay::replay(&Config::load(&config)?, &inputs, &outputs)?;
            if json { print_json(&balance) } else { print(&balance.to_string()) }
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value).context("cannot write JSON")?))
}

/// A closed pipe (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}
