//! The commands of other packages: what they were asked, and what they said when they failed.

use std::io;
use std::process::Command;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("`{line}` cannot be started, it is part of Debian's {package}: {source}")]
    Start {
        /// The whole command line.
        line: String,
        /// Where it comes from.
        package: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{line}` failed: {message}")]
    Failed {
        /// The whole command line.
        line: String,
        /// What it wrote.
        message: String,
    },
}

/// Runs a command line, split at blanks, to its end, and returns what it printed.
///
/// # Errors
///
/// It cannot be started, or fails.
pub fn run(line: &str) -> Result<String, CommandError> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output().map_err(|source| CommandError::Start {
        line: line.into(),
        package: package(program),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().into();
    Err(CommandError::Failed { line: line.into(), message })
}

fn package(program: &str) -> &'static str {
    match program {
        "ip" | "bridge" => "iproute2",
        "ethtool" => "ethtool",
        "cargo" => "cargo",
        _ => "util-linux",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_printed_or_why_nothing_was() {
        assert_eq!(run("echo two  words").expect("echo is everywhere"), "two words\n");
        let error = run("ls /nowhere/at/all").expect_err("there is no such file");
        assert!(error.to_string().starts_with("`ls /nowhere/at/all` failed: ls:"), "{error}");
        assert!(matches!(run("no-such-program -x"), Err(CommandError::Start { .. })));
    }
}
