//! Capture files (libpcap's format): read for `replay`, written in nanoseconds.
//!
//! The format is 24 octets of header, then 16 octets before each frame; the magic number tells byte order and unit.

use crate::packet::Time;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Magic numbers by unit of time.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Link types (IANA's LINKTYPE registry).
const ETHERNET: u32 = 1;
const RAW: u32 = 101;
/// Longest frame that is taken for one.
const LONGEST: u32 = 256 * 1024;

/// Why a capture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Opening, reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a capture of this format.
    #[error("{path}: not a pcap file (pcapng can be converted: editcap -F nsecpcap IN OUT)")]
    NotPcap {
        /// The file.
        path: PathBuf,
    },
    /// A capture of something else.
    #[error("{path}: link type {found}: {wanted} is wanted")]
    LinkType {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What the port takes.
        wanted: &'static str,
    },
    /// A record ends too early or is impossibly long.
    #[error("{path}: frame {number} is cut or damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        number: usize,
    },
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Ethernet frames.
    Ethernet,
    /// Bare IP packets.
    Raw,
}

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, since 1970.
    pub at: Time,
    /// The frame as captured.
    pub octets: Vec<u8>,
}

/// A capture file that is read, frame by frame.
#[derive(Debug)]
pub struct PcapIn {
    path: PathBuf,
    file: BufReader<File>,
    swapped: bool,
    nanoseconds: bool,
    number: usize,
}

impl PcapIn {
    /// Opens a capture of the kind `wanted`.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no pcap, or holds another kind.
    pub fn open(path: &Path, wanted: Capture) -> Result<Self, CaptureError> {
        let io = |source| CaptureError::Io { path: path.into(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut header = [0; 24];
        file.read_exact(&mut header).map_err(|_| CaptureError::NotPcap { path: path.into() })?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (swapped, nanoseconds) = match (word(0), word(0).swap_bytes()) {
            (MICROSECONDS, _) => (false, false),
            (NANOSECONDS, _) => (false, true),
            (_, MICROSECONDS) => (true, false),
            (_, NANOSECONDS) => (true, true),
            _ => return Err(CaptureError::NotPcap { path: path.into() }),
        };
        // The upper bits may carry the length of a frame check sequence.
        let link = if swapped { word(20).swap_bytes() } else { word(20) } & 0x0fff_ffff;
        let (number, name) = match wanted {
            Capture::Ethernet => (ETHERNET, "Ethernet (1)"),
            Capture::Raw => (RAW, "raw IP (101)"),
        };
        if link != number {
            return Err(CaptureError::LinkType { path: path.into(), found: link, wanted: name });
        }
        Ok(Self { path: path.into(), file, swapped, nanoseconds, number: 0 })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file ends within a frame or cannot be read.
    pub fn read(&mut self) -> Result<Option<Record>, CaptureError> {
        let mut header = [0; 16];
        self.number += 1;
        match self.file.read_exact(&mut header[..1]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => return Err(CaptureError::Io { path: self.path.clone(), source }),
            Ok(()) => {}
        }
        let damaged = |path: &Path, number| CaptureError::Damaged { path: path.into(), number };
        self.file.read_exact(&mut header[1..]).map_err(|_| damaged(&self.path, self.number))?;
        let word = |at: usize| {
            let word = u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            if self.swapped { word.swap_bytes() } else { word }
        };
        let length = word(8);
        if length > LONGEST {
            return Err(damaged(&self.path, self.number));
        }
        let fraction = u64::from(word(4)) * if self.nanoseconds { 1 } else { 1_000 };
        let mut octets = vec![0; length as usize];
        self.file.read_exact(&mut octets).map_err(|_| damaged(&self.path, self.number))?;
        Ok(Some(Record { at: Time(u64::from(word(0)) * Time::SECOND + fraction), octets }))
    }
}

/// A capture file that is written.
#[derive(Debug)]
pub struct PcapOut {
    path: PathBuf,
    file: BufWriter<File>,
}

impl PcapOut {
    /// Makes or empties a file, for Ethernet frames with times in nanoseconds.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let io = |source| CaptureError::Io { path: path.into(), source };
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        let version = 2u32 | 4 << 16;
        for word in [NANOSECONDS, version, 0, 0, LONGEST, ETHERNET] {
            file.write_all(&word.to_le_bytes()).map_err(io)?;
        }
        Ok(Self { path: path.into(), file })
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&mut self, at: Time, octets: &[u8]) -> Result<(), CaptureError> {
        let length = octets.len() as u32;
        let header = [(at.0 / Time::SECOND) as u32, (at.0 % Time::SECOND) as u32, length, length];
        let written = header.iter().try_for_each(|word| self.file.write_all(&word.to_le_bytes()));
        written
            .and_then(|()| self.file.write_all(octets))
            .map_err(|source| CaptureError::Io { path: self.path.clone(), source })
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), CaptureError> {
        self.file.flush().map_err(|source| CaptureError::Io { path: self.path, source })
    }
}
