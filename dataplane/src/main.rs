//! The command `penstock`. Everything it does is in the library.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Parser, Subcommand};
use dataplane::config::{Config, ConfigError};
use dataplane::control::gateway::Gateway;
use dataplane::control::server::{self, Question, RouteQuery};
use dataplane::replay::{PortFile, ReplayError};
use dataplane::sentence::Sentence;
use dataplane::{check, print as layout, replay};
use ipnet::IpNet;
use std::net::IpAddr;
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
    /// Forward packets until SIGTERM.
    #[command(after_help = "Example: penstock run /etc/penstock.toml")]
    Run {
        /// The configuration file.
        config: PathBuf,
    },
    /// Ask a running gateway.
    #[command(after_help = "Example: penstock show tunnels --json")]
    Show {
        /// What to show.
        #[command(subcommand)]
        what: What,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        /// The gateway's control socket: `[gateway] control` of its configuration.
        #[arg(long, global = true, value_name = "SOCKET", default_value = "/run/penstock/control.sock")]
        control: PathBuf,
    },
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

/// What `show` knows.
#[derive(Subcommand)]
enum What {
    /// Interfaces: mode, queues, counters.
    #[command(after_help = "Example: penstock show interfaces --json")]
    Interfaces,
    /// Tunnels: state, MTU, counters.
    #[command(after_help = "Example: penstock show tunnels --control /run/penstock/site-b.sock")]
    Tunnels,
    /// Routes and where they lead.
    #[command(after_help = "Examples: penstock show routes 10.0.0.0/8 --vrf research\n          \
                            penstock show routes --lookup 10.20.3.4")]
    Routes {
        /// Only what lies within this prefix.
        prefix: Option<IpNet>,
        /// Only the longest match of this address.
        #[arg(long, value_name = "ADDRESS", conflicts_with = "prefix")]
        lookup: Option<IpAddr>,
        /// Only of this VRF.
        #[arg(long)]
        vrf: Option<String>,
    },
    /// Neighbours as the kernel knows them.
    #[command(after_help = "Example: penstock show neighbours --json")]
    Neighbours,
    /// Rules of the access list, and the packets that met each.
    #[command(after_help = "Example: penstock show acl --json")]
    Acl,
    /// Policers, and the packets that each gave which colour.
    #[command(after_help = "Example: penstock show policers --json | jq '.policers[] | {name, red}'")]
    Policers,
    /// Tenants' queues: rates over the next second, what waits, how long, and what was marked or dropped.
    #[command(after_help = "Examples: penstock show qos\n          penstock show qos --json | jq '.delays[]'")]
    Qos,
    /// Where every packet went, dropped ones by reason.
    #[command(after_help = "Example: penstock show drops --json")]
    Drops,
}

impl From<What> for Question {
    fn from(what: What) -> Self {
        match what {
            What::Interfaces => Self::Interfaces,
            What::Tunnels => Self::Tunnels,
            What::Routes { prefix, lookup, vrf } => {
                // Host bits do no harm in a question.
                let prefix = prefix.map(|prefix| prefix.trunc());
                Self::Routes(RouteQuery { vrf, prefix, lookup, after: None })
            }
            What::Neighbours => Self::Neighbours,
            What::Acl => Self::Acl,
            What::Policers => Self::Policers,
            What::Qos => Self::Qos,
            What::Drops => Self::Drops,
        }
    }
}

/// Exit status of a failure at run time.
const FAILED: u8 = 1;
/// Exit status of bad usage or configuration.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A broken pipe on stderr has nobody to tell.
            eprintln!("penstock: {}", Sentence(error.as_ref()));
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
        Command::Run { config } => {
            let config = Config::load(&config)?;
            // Before any thread starts: what it starts blocks the signals too.
            let mut signals = sys::signals::Signals::take().context("cannot take signals")?;
            Gateway::start(config)?.run(&mut signals)?;
            Ok(())
        }
        Command::Show { what, json, control } => {
            let question = Question::from(what);
            let answer = match &question {
                Question::Routes(query) => server::ask_routes(&control, query.clone())?,
                Question::Qos => server::ask_qos(&control)?,
                question => server::ask(&control, question.clone())?,
            };
            if json { print_json(&answer) } else { print(&layout::table(&question, &answer)) }
        }
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

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::{Command, CommandFactory};

    #[test]
    fn each_command_shows_an_example() {
        fn look(command: &Command) {
            if command.get_subcommands().next().is_none() || command.get_after_help().is_some() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("penstock "), "{}: {help:?}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }
}
