//! DPDK itself.

mod meter;
mod sched;

pub use meter::Meters;
pub use sched::Scheduler;

use crate::{Error, Lookup, Started, Width};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is DPDK's, and only ever pointed to.
#[repr(C)]
struct Opaque(c_void);

unsafe extern "C" {
    fn rte_shim_start(cpu: c_uint, heap_mib: c_uint) -> c_int;
    fn rte_shim_fib_new(name: *const c_char, routes: c_int, tbl8: c_uint, width: c_int) -> *mut Opaque;
    fn rte_shim_fib6_new(name: *const c_char, routes: c_int, tbl8: c_uint, width: c_int) -> *mut Opaque;
    fn rte_shim_fib_select(fib: *mut Opaque, vector: c_int) -> c_int;
    fn rte_shim_fib6_select(fib: *mut Opaque, vector: c_int) -> c_int;
    fn rte_fib_add(fib: *mut Opaque, address: u32, len: u8, next_hop: u64) -> c_int;
    fn rte_fib6_add(fib: *mut Opaque, address: *const u8, len: u8, next_hop: u64) -> c_int;
    fn rte_fib_delete(fib: *mut Opaque, address: u32, len: u8) -> c_int;
    fn rte_fib6_delete(fib: *mut Opaque, address: *const u8, len: u8) -> c_int;
    fn rte_fib_lookup_bulk(fib: *mut Opaque, addresses: *const u32, next_hops: *mut u64, count: c_int) -> c_int;
    fn rte_fib6_lookup_bulk(fib: *mut Opaque, addresses: *const [u8; 16], next_hops: *mut u64, count: c_int) -> c_int;
    fn rte_fib_free(fib: *mut Opaque);
    fn rte_fib6_free(fib: *mut Opaque);
}

/// Starts DPDK with a heap of so many MiB, for this process and once. The calling thread is bound to the CPU.
///
/// # Errors
///
/// [`Error::NotStarted`].
pub fn start(cpu: usize, heap_mib: usize) -> Result<Started, Error> {
    /// What the first call gave: DPDK can be started once.
    static STARTED: Mutex<Option<Result<Started, Error>>> = Mutex::new(None);
    let mut started = STARTED.lock().map_err(|_| Error::NotStarted(-1))?;
    *started.get_or_insert_with(|| {
        // SAFETY: called once, as the lock sees to.
        match unsafe { rte_shim_start(cpu as c_uint, heap_mib as c_uint) } {
            0 => Ok(Started(())),
            error => Err(Error::NotStarted(error)),
        }
    })
}

/// DPDK finds a table by its name, so each needs one of its own.
fn name() -> CString {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    CString::new(format!("bench{}", NEXT.fetch_add(1, Relaxed))).expect("no zero is in it")
}

fn done(status: c_int) -> Result<(), Error> {
    if status == 0 { Ok(()) } else { Err(Error::Refused(status)) }
}

macro_rules! fib {
    (
        $fib:ident, $writer:ident, $reader:ident, $address:ty, $of_address:expr,
        $new:ident, $select:ident, $add:ident, $delete:ident, $lookup:ident, $free:ident
    ) => {
        /// A table.
        #[derive(Debug)]
        pub struct $fib(NonNull<Opaque>);

        impl $fib {
            /// With room for so many routes, and for what is below so many /24s (and the further levels of IPv6).
            ///
            /// # Errors
            ///
            /// [`Error::NoTable`].
            pub fn new(_: Started, routes: usize, groups: usize, width: Width) -> Result<Self, Error> {
                let name = name();
                // SAFETY: DPDK runs, as `Started` proves, and the name is read within the call only.
                let fib = unsafe { $new(name.as_ptr(), routes as c_int, groups as c_uint, width.bytes() as c_int) };
                NonNull::new(fib).map(Self).ok_or(Error::NoTable)
            }

            /// Chooses the code of lookups.
            ///
            /// # Errors
            ///
            /// [`Error::NoSuchLookup`].
            pub fn select(&mut self, lookup: Lookup) -> Result<(), Error> {
                // SAFETY: the table is there until it is dropped, and `&mut` proves that nobody is looking up.
                match unsafe { $select(self.0.as_ptr(), (lookup == Lookup::Vector).into()) } {
                    0 => Ok(()),
                    _ => Err(Error::NoSuchLookup),
                }
            }

            /// Both sides, for two threads.
            pub fn split(&mut self) -> ($writer<'_>, $reader<'_>) {
                ($writer(self.0, PhantomData), $reader(self.0, PhantomData))
            }
        }

        impl Drop for $fib {
            fn drop(&mut self) {
                // SAFETY: made by `new` and not freed; what `split` gave out has ended with its borrow.
                unsafe { $free(self.0.as_ptr()) }
            }
        }

        // SAFETY: DPDK's tables belong to no thread.
        unsafe impl Send for $fib {}

        /// The one that changes a table.
        #[derive(Debug)]
        pub struct $writer<'fib>(NonNull<Opaque>, PhantomData<&'fib mut $fib>);

        impl $writer<'_> {
            /// Adds a route, or gives it another next hop.
            ///
            /// # Errors
            ///
            /// [`Error::Refused`].
            pub fn add(&mut self, address: $address, len: u8, next_hop: u16) -> Result<(), Error> {
                // SAFETY: the table outlives the borrow. This is the only writer, and beside it DPDK allows lookups:
                // what they follow stays within the table's memory, whatever they read meanwhile.
                done(unsafe { $add(self.0.as_ptr(), $of_address(&address), len, next_hop.into()) })
            }

            /// Takes a route out.
            ///
            /// # Errors
            ///
            /// [`Error::Refused`].
            pub fn delete(&mut self, address: $address, len: u8) -> Result<(), Error> {
                // SAFETY: as for `add`.
                done(unsafe { $delete(self.0.as_ptr(), $of_address(&address), len) })
            }
        }

        // SAFETY: as for the table.
        unsafe impl Send for $writer<'_> {}

        /// One that looks up.
        #[derive(Clone, Copy, Debug)]
        pub struct $reader<'fib>(NonNull<Opaque>, PhantomData<&'fib $fib>);

        impl $reader<'_> {
            /// Looks all addresses up; zero is none.
            ///
            /// # Panics
            ///
            /// When there are not as many places for answers.
            #[inline]
            pub fn lookup(&self, addresses: &[$address], next_hops: &mut [u64]) {
                assert_eq!(addresses.len(), next_hops.len());
                // SAFETY: both slices have as many elements as is said. Only their addresses are read, and only next
                // hops are written. The table outlives the borrow.
                unsafe {
                    $lookup(self.0.as_ptr(), addresses.as_ptr(), next_hops.as_mut_ptr(), addresses.len() as c_int);
                }
            }
        }

        // SAFETY: as for the table.
        unsafe impl Send for $reader<'_> {}
    };
}

fib!(
    Fib4,
    Writer4,
    Reader4,
    u32,
    |address: &u32| *address,
    rte_shim_fib_new,
    rte_shim_fib_select,
    rte_fib_add,
    rte_fib_delete,
    rte_fib_lookup_bulk,
    rte_fib_free
);
fib!(
    Fib6,
    Writer6,
    Reader6,
    [u8; 16],
    |address: &[u8; 16]| address.as_ptr(),
    rte_shim_fib6_new,
    rte_shim_fib6_select,
    rte_fib6_add,
    rte_fib6_delete,
    rte_fib6_lookup_bulk,
    rte_fib6_free
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_longest_prefix_in_both_families() {
        let started = start(0, 512).expect("half a gigabyte is there");
        let mut fib = Fib4::new(started, 16, 16, Width::Two).expect("there is room");
        let (mut writer, reader) = fib.split();
        writer.add(0x0a00_0000, 8, 1).expect("there is room");
        writer.add(0x0a01_0203, 32, 2).expect("there is room");
        let mut next_hops = [9; 3];
        reader.lookup(&[0x0a01_0203, 0x0a01_0204, 0x0b00_0000], &mut next_hops);
        assert_eq!(next_hops, [2, 1, 0]);
        writer.delete(0x0a01_0203, 32).expect("it is there");
        reader.lookup(&[0x0a01_0203, 0x0a01_0204, 0x0b00_0000], &mut next_hops);
        assert_eq!(next_hops, [1, 1, 0]);

        let mut fib = Fib6::new(started, 16, 64, Width::Two).expect("there is room");
        let (mut writer, reader) = fib.split();
        let address = |last| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        writer.add(address(0), 32, 3).expect("there is room");
        writer.add(address(1), 128, 4).expect("there is room");
        let mut next_hops = [9; 2];
        reader.lookup(&[address(1), address(2)], &mut next_hops);
        assert_eq!(next_hops, [4, 3]);
    }
}
