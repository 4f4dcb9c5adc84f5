//! Programs in namespaces: run to their end, or in the background until they are dropped.

use crate::until::until;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a program may take to answer, and to end once it is told to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether its status was 0.
    pub success: bool,
    /// Its status; `None` after a signal.
    pub code: Option<i32>,
    /// Its output.
    pub stdout: String,
    /// Its messages.
    pub stderr: String,
}

impl From<std::process::Output> for Outcome {
    fn from(output: std::process::Output) -> Self {
        Self {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A program in the background. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts a command; what it prints is kept.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            keep(child.stdout.take().expect("piped"), Arc::clone(&stdout)),
            keep(child.stderr.take().expect("piped"), Arc::clone(&stderr)),
        ];
        Self { name, child, stdout, stderr, readers }
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its messages so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until its messages contain `text`.
    ///
    /// # Panics
    ///
    /// If it ends first, or takes too long.
    #[track_caller]
    pub fn await_message(&mut self, text: &str) {
        let what = format!("{} says {text:?}", self.name);
        let ended = std::cell::Cell::new(None);
        until(&what, PATIENCE, || {
            ended.set(self.child.try_wait().expect("our own child"));
            self.stderr().contains(text) || ended.get().is_some()
        });
        if !self.stderr().contains(text) {
            self.join_readers();
            assert!(self.stderr().contains(text), "{} ended before {text:?}: {}", self.name, self.stderr());
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        // Its number cannot be somebody else's yet: nobody but us waits for it.
        if self.is_running() {
            kill_process(Pid::from_child(&self.child), signal).expect("our own child");
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends; it said: {}", self.name, self.stderr());
        let mut status = None;
        until(&what, PATIENCE, || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        self.join_readers();
        status.expect("until has seen it")
    }

    /// Waits for the end; what it said and how it ended.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn outcome(mut self) -> Outcome {
        let status = self.wait();
        Outcome { success: status.success(), code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join(); // it cannot panic, and nothing is lost if it did
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads in the background, so that no pipe fills up.
fn keep(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}
