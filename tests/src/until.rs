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
