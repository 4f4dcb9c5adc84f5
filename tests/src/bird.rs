//! BIRD, the routing daemon, on a host.

use crate::lab::Host;
use crate::program::Program;
use crate::site::PATIENCE;
use crate::until::until;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A BIRD of a host. Killed when dropped.
#[derive(Debug)]
pub struct Bird {
    host: Host,
    socket: PathBuf,
    _program: Program,
}

impl Bird {
    /// Starts it with a configuration, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn start(host: &Host, name: &str, config: &str) -> Self {
        let path = |kind: &str| host.folder().join(format!("{name}.{kind}"));
        std::fs::write(path("conf"), config).expect("the lab's folder is ours");
        let socket = path("ctl");
        let mut bird = Command::new(installed("bird"));
        bird.arg("-f").arg("-c").arg(path("conf")).arg("-s").arg(&socket).arg("-P").arg(path("pid"));
        let program = host.start_command(bird);
        let bird = Self { host: host.clone(), socket, _program: program };
        until("BIRD answers", PATIENCE, || bird.tell("show status").contains("up and running"));
        bird
    }

    /// What it answers to a command of birdc(8).
    #[track_caller]
    pub fn tell(&self, command: &str) -> String {
        let birdc = installed("birdc");
        self.host.try_run(&format!("{} -s {} {command}", birdc.display(), self.socket.display())).stdout
    }
}

/// Daemons are not on everybody's PATH.
fn installed(tool: &str) -> PathBuf {
    Path::new("/usr/sbin").join(tool)
}
