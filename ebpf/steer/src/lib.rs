//! The XDP program: `steering` around the packet of an XDP context and BPF maps.
//!
//! Everything that is decided is decided in `steering`; here are the maps, the access to the packet, the counters
//! and the redirect. Unsafe code lives here and nowhere else on this side.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use steering::tables::*;
use steering::verdict::{CODES, UNSERVED_DROPPED, UNSERVED_TO_KERNEL};
use steering::{Host, Verdict};
use wire::Octets;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Memory is taken by what is in a map, not by what could be; and an element that was read is not reused for
/// another key while the program that read it runs.
const NO_PREALLOC: u32 = 1;

#[map]
static INTERFACES: HashMap<Ingress, Interface> = HashMap::with_max_entries(INTERFACES_MAX, NO_PREALLOC);
/// A hash costs some 20 ns, most of it for the call; this costs one or two.
#[map]
static QUICK: Array<Quick> = Array::with_max_entries(Quick::PLACES, 0);
#[map]
static LOCALS_V4: HashMap<LocalV4, Local> = HashMap::with_max_entries(LOCALS, NO_PREALLOC);
#[map]
static LOCALS_V6: HashMap<LocalV6, Local> = HashMap::with_max_entries(LOCALS, NO_PREALLOC);
#[map]
static TUNNELS_V4: HashMap<TunnelV4, u32> = HashMap::with_max_entries(TUNNELS, NO_PREALLOC);
#[map]
static TUNNELS_V6: HashMap<TunnelV6, u32> = HashMap::with_max_entries(TUNNELS, NO_PREALLOC);
#[map]
static ROUTES_V4: LpmTrie<RouteV4, Keeper> = LpmTrie::with_max_entries(ROUTES, 0);
#[map]
static ROUTES_V6: LpmTrie<RouteV6, Keeper> = LpmTrie::with_max_entries(ROUTES, 0);
/// By port and receive queue: the port times [`QUEUES`], plus the queue.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(PORTS * QUEUES, 0);
/// By row of counters; a row has one for each code of `steering::verdict`.
#[map]
static COUNTERS: PerCpuArray<[u64; CODES]> = PerCpuArray::with_max_entries(ROWS, 0);

const INTERFACES_MAX: u32 = steering::tables::INTERFACES;

/// Steers one frame.
#[xdp(frags)]
pub fn steer(context: XdpContext) -> u32 {
    let maps = Maps { device: context.ingress_ifindex() as u32 };
    let steering::Decision { verdict, interface } = steering::steer(&View(&context), &maps);
    let Some(interface) = interface else { return XDP_PASS };
    // Found or not, the frame is steered: a row out of range only loses the count.
    let counters = COUNTERS.get_ptr_mut(u32::from(interface.counters));
    let count = |code: u8| {
        if let Some(row) = counters {
            // SAFETY: the row is this CPU's own and lives as long as the map, which lives as long as the program; the
            // program is not preempted by another run of itself on the same CPU. The mask keeps the index inside.
            unsafe { (*row)[usize::from(code) & (CODES - 1)] += 1 }
        }
    };
    count(verdict.code());
    if let Verdict::Pass(_) = verdict {
        return XDP_PASS;
    }
    let queue = context.rx_queue_index();
    let drop = interface.flags.has(InterfaceFlags::FALLBACK_DROP);
    let (fallback, unserved) = if drop { (XDP_DROP, UNSERVED_DROPPED) } else { (XDP_PASS, UNSERVED_TO_KERNEL) };
    // A queue that has no place would otherwise meet another port's socket.
    if queue < QUEUES
        && let Ok(action) = SOCKETS.redirect(u32::from(interface.port) * QUEUES + queue, u64::from(fallback))
    {
        return action;
    }
    count(unserved);
    fallback
}

const _: () = assert!(XDP_REDIRECT == 4 && XDP_DROP == 1 && XDP_PASS == 2);

/// The packet of an XDP context: its linear part, which holds all headers.
struct View<'a>(&'a XdpContext);

impl Octets for View<'_> {
    #[inline(always)]
    fn header<T: FromBytes + Immutable + KnownLayout>(&self, at: usize) -> Option<&T> {
        let start = self.0.data() + at;
        if start + size_of::<T>() > self.0.data_end() {
            return None;
        }
        // SAFETY: inside the packet, as the verifier proves from the lines above; any octets are a `T` (`FromBytes`),
        // and nobody writes to the packet while the program runs (`Immutable`). Headers have alignment 2, and so has
        // the packet: drivers start it on an even address, and every offset that is asked for is even.
        Some(unsafe { &*(start as *const T) })
    }
}

/// The maps, asked for what one device receives.
struct Maps {
    device: u32,
}

impl Host for Maps {
    #[inline(always)]
    fn interface(&self, vlan: u16) -> Option<&Interface> {
        if vlan == 0 {
            let place = Quick::place(self.device);
            for place in [place, place + 1] {
                if let Some(quick) = QUICK.get(place)
                    && quick.device == self.device
                {
                    return Some(&quick.interface);
                }
            }
        }
        // SAFETY: the map does not preallocate, so an element lives on while the program runs; an update replaces
        // it by another and does not write to it.
        unsafe { INTERFACES.get(Ingress { device: self.device, vlan: u32::from(vlan) }) }
    }

    #[inline(always)]
    fn local_v4(&self, key: LocalV4) -> Local {
        // SAFETY: as above.
        unsafe { LOCALS_V4.get(key) }.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn local_v6(&self, key: LocalV6) -> Local {
        // SAFETY: as above.
        unsafe { LOCALS_V6.get(key) }.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn tunnel_v4(&self, key: TunnelV4) -> bool {
        TUNNELS_V4.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn tunnel_v6(&self, key: TunnelV6) -> bool {
        TUNNELS_V6.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn kernel_route_v4(&self, key: RouteV4) -> bool {
        ROUTES_V4.get(Key::new(RouteV4::VRF_BITS + 32, key)) == Some(&Keeper::KERNEL)
    }

    #[inline(always)]
    fn kernel_route_v6(&self, key: RouteV6) -> bool {
        ROUTES_V6.get(Key::new(RouteV6::VRF_BITS + 128, key)) == Some(&Keeper::KERNEL)
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"Apache-2.0 OR MIT\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached, and never linked: nothing here can panic.
    loop {}
}
