//! Capture files, read and written without the code under test.

use crate::program::{PATIENCE, Program};
use crate::until::until;
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// Little-endian magic numbers by unit of time.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;

/// A frame and when it was captured, nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// From the destination MAC on.
    pub octets: Vec<u8>,
}

/// The frames of a capture of Ethernet in this machine's byte order.
///
/// # Panics
///
/// If it is something else. A last frame that is cut is left out: the capture may still be running.
#[track_caller]
pub fn read(path: &Path) -> Vec<Frame> {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |at: usize| {
        let octets = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(octets.try_into().expect("four octets")))
    };
    let unit_ns = match word(0) {
        Some(MICROSECONDS) => 1_000,
        Some(NANOSECONDS) => 1,
        other => panic!("{}: no capture, it starts with {other:x?}", path.display()),
    };
    assert_eq!(word(20), Some(ETHERNET), "{}: link type", path.display());
    let (mut frames, mut at) = (Vec::new(), 24);
    while let (Some(seconds), Some(fraction), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(octets) = file.get(at + 16..at + 16 + length as usize) else { break };
        let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns;
        frames.push(Frame { at_ns, octets: octets.to_vec() });
        at += 16 + length as usize;
    }
    frames
}

/// Frames as a capture of Ethernet with times in microseconds, which every tool reads.
pub fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut put = |words: &[u32]| file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    put(&[MICROSECONDS, 2 | 4 << 16, 0, 0, 262_144, ETHERNET]);
    for Frame { at_ns, octets } in frames {
        let length = octets.len() as u32;
        let header = [(at_ns / 1_000_000_000) as u32, (at_ns % 1_000_000_000 / 1_000) as u32, length, length];
        file.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        file.extend_from_slice(octets);
    }
    file
}

/// A running capture of an interface.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Program,
    path: PathBuf,
}

impl Capture {
    pub(crate) const fn new(tcpdump: Program, path: PathBuf) -> Self {
        Self { tcpdump, path }
    }

    /// What it has seen so far.
    pub fn so_far(&self) -> Vec<Frame> {
        read(&self.path)
    }

    /// Ends it; all that has passed until now.
    ///
    /// # Panics
    ///
    /// If the kernel had to leave frames out.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Frame> {
        // What is still in the kernel's ring when tcpdump is told to end stays there.
        let (_, passed) = self.count();
        until("tcpdump has written all that has passed", PATIENCE, || self.count().0 >= passed);
        self.tcpdump.end(Signal::INT);
        let said = self.tcpdump.stderr();
        assert!(said.contains("0 packets dropped by kernel"), "an incomplete capture: {said}");
        read(&self.path)
    }

    /// How many frames tcpdump has written, and how many have passed: on Linux it says so when it gets a USR1.
    fn count(&mut self) -> (u64, u64) {
        let before = self.tcpdump.stderr().len();
        self.tcpdump.signal(Signal::USR1);
        let mut count = None;
        until("tcpdump says how many frames it has seen", PATIENCE, || {
            count = counted(&self.tcpdump.stderr()[before..]);
            count.is_some()
        });
        count.expect("until has seen it")
    }
}

/// The frames written and passed, of the first whole line of tcpdump's such as
/// `tcpdump: 1 packet captured, 2 packets received by filter, 0 packets dropped by kernel`.
fn counted(said: &str) -> Option<(u64, u64)> {
    let (lines, _) = said.rsplit_once('\n')?;
    lines.lines().find_map(|line| {
        let before = |words| line.split_once(words)?.0.rsplit(' ').nth(1)?.parse().ok();
        Some((before(" captured")?, before(" received by filter")?))
    })
}
