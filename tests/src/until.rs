//! Waiting for what happens elsewhere: the only place of the tests that sleeps.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `happened`. Returns how long it took.
///
/// # Panics
///
/// If it has not happened when `patience` is over.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut happened: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(PAUSE);
    }
    start.elapsed()
}

/// A limit for what the program itself takes, ten times as long where the processor is emulated.
pub fn at_this_pace(limit: Duration) -> Duration {
    if std::env::var_os("PENSTOCK_VM_CABLES").is_some() { limit * 10 } else { limit }
}
