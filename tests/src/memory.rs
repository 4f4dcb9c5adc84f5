//! Packet memory for gateways in virtual time.

use std::cell::RefCell;
use std::collections::HashMap;
use xsk::{ChunkSize, Umem};

/// So many chunks for gateway `at` of those that a thread has at once. It is never unmapped, so a thread's gateways use
/// the same in turn; what a failed one has lost is not there.
///
/// # Panics
///
/// If the machine has not that much.
pub fn memory(at: usize, chunks: usize) -> Umem {
    thread_local! {
        static AREAS: RefCell<HashMap<(usize, usize), Umem>> = RefCell::default();
    }
    AREAS.with_borrow_mut(|areas| {
        let fresh = || Umem::new(chunks, ChunkSize::Octets2048).expect("a few megabytes are there");
        let area = areas.entry((at, chunks)).or_insert_with(fresh);
        if area.free() != chunks {
            *area = fresh();
        }
        *area
    })
}
