//! The text of the file, and how an offset in it becomes a line and a column.

use std::path::PathBuf;

use super::error::{ConfigError, Fault, Faults};
use super::{FaultKind, Warning};

/// Where each line of a file begins.
pub struct Source<'a> {
    pub path: PathBuf,
    pub text: &'a str,
    /// Offset of each line's first octet; the first is 0.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub fn new(path: PathBuf, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { path, text, lines }
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// Line and column of an offset, both from 1; columns count characters.
    pub fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.lines[line - 1];
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // Octets 10xxxxxx continue a character of UTF-8: all others begin one.
        let column = 1 + before.iter().filter(|octet| **octet & 0xc0 != 0x80).count();
        (line, column)
    }

    /// What is wrong in this file, and after that in the files that it names.
    pub fn error(&self, faults: Vec<(usize, FaultKind)>, listed: Vec<Fault>) -> ConfigError {
        let placed = faults.into_iter().map(|(offset, kind)| {
            let (line, column) = self.place(offset);
            Fault { file: self.path.clone(), line, column, kind }
        });
        let mut all: Vec<Fault> = placed.chain(listed).collect();
        let other = |fault: &Fault| fault.file != self.path;
        all.sort_by(|a, b| {
            let files = other(a).cmp(&other(b)).then_with(|| a.file.cmp(&b.file));
            files.then((a.line, a.column).cmp(&(b.line, b.column)))
        });
        ConfigError::Invalid(Faults::new(all))
    }

    pub fn warning(&self, offset: usize, message: String) -> Warning {
        let (line, column) = self.place(offset);
        Warning { line, column, message }
    }
}
