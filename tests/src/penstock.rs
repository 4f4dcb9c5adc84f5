//! The program under test.

use crate::lab::Host;
use crate::program::{Outcome, Program};
use crate::until::until;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How long counters may take to settle once traffic has stopped: held packets are given up after a second.
const SETTLES: Duration = Duration::from_secs(15);

/// The binary: PENSTOCK_BIN, or that of this build.
///
/// # Panics
///
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("PENSTOCK_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Builds the binary beside the running test. Cargo does so unasked only for tests of the binary's own package; here
/// it finds nothing to do when the workspace is built.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    // target/debug/deps/name-hash
    let profile = test.parent().and_then(Path::parent).expect("cargo runs tests from its own folders");
    let target = profile.parent().expect("a profile's folder is in the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--package", "dataplane", "--bin", "penstock", "--target-dir"]);
    cargo.arg(target).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "penstock does not build");
    profile.join("penstock")
}

/// Runs the binary to its end, outside any lab.
///
/// # Panics
///
/// If it cannot be started, or does not end.
#[track_caller]
pub fn penstock(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.args(arguments);
    Program::start(command).outcome()
}

/// A running gateway. Killed when dropped.
#[derive(Debug)]
pub struct Penstock {
    host: Host,
    launcher: Vec<OsString>,
    program: Program,
    config: PathBuf,
    control: PathBuf,
}

impl Penstock {
    /// Starts `penstock run` on a host and waits until it forwards. Its control socket is in the lab's folder.
    ///
    /// # Panics
    ///
    /// If it ends instead.
    #[track_caller]
    pub fn start(host: &Host, config: &str) -> Self {
        Self::start_by(vec![binary().into()], host, config)
    }

    /// The same by a command line that ends in a binary of Penstock, and becomes it.
    ///
    /// # Panics
    ///
    /// If it ends instead.
    #[track_caller]
    pub fn start_by(launcher: Vec<OsString>, host: &Host, config: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gateway-{}", NEXT.fetch_add(1, Relaxed));
        let path = host.folder().join(format!("{name}.toml"));
        let control = host.folder().join(format!("{name}.sock"));
        std::fs::write(&path, with_control(config, &control)).expect("the lab's folder is ours");
        let program = run(&launcher, host, &path);
        let mut gateway = Self { host: host.clone(), launcher, program, config: path, control };
        gateway.program.await_message("ready");
        gateway
    }

    /// Starts it again with the same file, after [`Self::kill9`] or [`Self::stop`].
    ///
    /// # Panics
    ///
    /// If it ends instead.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(!self.program.is_running(), "it was not stopped");
        self.program = run(&self.launcher, &self.host, &self.config);
        self.program.await_message("ready");
    }

    /// Starts it again with its file changed, and waits until it ends: what it said.
    ///
    /// # Panics
    ///
    /// If it goes on.
    #[track_caller]
    pub fn fails_to_restart(&mut self, change: impl FnOnce(String) -> String) -> String {
        assert!(!self.program.is_running(), "it was not stopped");
        let file = std::fs::read_to_string(&self.config).expect("it was written at the start");
        std::fs::write(&self.config, change(file.clone())).expect("the lab's folder is ours");
        self.program = run(&self.launcher, &self.host, &self.config);
        let status = self.program.wait();
        std::fs::write(&self.config, file).expect("the lab's folder is ours");
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log()
    }

    /// Ends it as an operator does.
    ///
    /// # Panics
    ///
    /// If it takes too long or fails.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.program.end(Signal::TERM);
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Ends it without warning.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.program.end(Signal::KILL);
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Its control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program.stderr()
    }

    /// What `penstock show TOPIC --json` prints.
    ///
    /// # Panics
    ///
    /// If it fails, or the gateway has ended.
    #[track_caller]
    pub fn show(&self, topic: &str) -> Value {
        let outcome: Outcome = Command::new(binary())
            .arg("show")
            .args(topic.split_whitespace())
            .args(["--json", "--control"])
            .arg(&self.control)
            .output()
            .expect("the binary is built")
            .into();
        assert!(outcome.success, "show {topic}: {}\nthe gateway: {}", outcome.stderr, self.log());
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
    }

    /// Waits for the moment at which no packet is under way, and checks that every packet has had its fate. Returns
    /// the counters.
    ///
    /// # Panics
    ///
    /// If the counters do not add up.
    #[track_caller]
    pub fn assert_balance(&self) -> Balance {
        let mut last = Value::Null;
        let what = "received + originated = forwarded + punted + dropped + absorbed + queued";
        let mut balance = None;
        until(what, SETTLES, || {
            let drops = self.show("drops");
            let now = Balance::of(&drops);
            // The same twice: nothing moved while it was summed.
            let quiet = now.balances() && last == drops;
            last = drops;
            balance = Some(now);
            quiet
        });
        balance.expect("until has looked at least twice")
    }
}

fn run(launcher: &[OsString], host: &Host, config: &Path) -> Program {
    let (program, arguments) = launcher.split_first().expect("a launcher has a first word");
    let mut command = Command::new(program);
    command.args(arguments).arg("run").arg(config);
    host.start_command(command)
}

/// The same configuration with the control socket elsewhere.
fn with_control(config: &str, control: &Path) -> String {
    let control = format!("[gateway]\ncontrol = {:?}\n", control.display().to_string());
    if config.contains("[gateway]\n") { config.replacen("[gateway]\n", &control, 1) } else { control + config }
}

/// The fates of all packets, as `replay --json` and `show drops --json` print them.
#[derive(Clone, Debug)]
pub struct Balance(Value);

impl Balance {
    /// Reads what was printed.
    pub fn of(printed: &Value) -> Self {
        Self(printed.clone())
    }

    /// One of the totals.
    ///
    /// # Panics
    ///
    /// If it is missing.
    #[track_caller]
    pub fn total(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.0["dropped"][reason].as_u64().unwrap_or(0)
    }

    /// Packets dropped for any.
    ///
    /// # Panics
    ///
    /// If the reasons are missing.
    #[track_caller]
    pub fn all_dropped(&self) -> u64 {
        let reasons = self.0["dropped"].as_object().unwrap_or_else(|| panic!("no dropped in {}", self.0));
        reasons.values().map(|count| count.as_u64().unwrap_or_else(|| panic!("no count in {}", self.0))).sum()
    }

    /// Whether every packet has exactly one fate.
    pub fn balances(&self) -> bool {
        let fates: u64 = ["forwarded", "punted", "absorbed", "queued"].iter().map(|fate| self.total(fate)).sum();
        self.total("received") + self.total("originated") == fates + self.all_dropped()
    }
}
