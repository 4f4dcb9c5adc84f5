//! Traffic for the bench, as XDP programs: `generate`, `sink`, and `pass`.
//!
//! `generate` is not attached anywhere: BPF_PROG_TEST_RUN with live frames runs it on frames of its own, and each
//! run sends one by redirecting it. `sink` takes what arrives. `pass` does nothing, but its presence lets a veth
//! peer take redirected frames.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod plan;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use plan::{FLOWS, Match, Plan, TEMPLATE_WORDS};

#[map]
static PLAN: Array<[u32; 4]> = Array::with_max_entries(1, 0);
/// What each flow's frames begin with. A frame is as long as the test run's input; of its template it takes what
/// fits, in whole words.
#[map]
static TEMPLATES: Array<[u64; TEMPLATE_WORDS]> = Array::with_max_entries(FLOWS, 0);
#[map]
static WANTED: Array<[u32; 4]> = Array::with_max_entries(2, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(plan::COUNTS, 0);

#[inline(always)]
fn count(index: u32, by: u64) -> u64 {
    let Some(count) = COUNTS.get_ptr_mut(index) else { return 0 };
    // SAFETY: this CPU's own, and no other run of a program here happens on this CPU meanwhile: both kinds run with
    // soft interrupts off.
    unsafe {
        let before = *count;
        *count = before.wrapping_add(by);
        before
    }
}

/// Writes the next template over the head of the frame and sends it.
///
/// The frame is an old one: whoever had it may have changed any of its headers, so all are written each time.
#[xdp(frags)]
pub fn generate(context: XdpContext) -> u32 {
    let Some(words) = PLAN.get(0) else { return XDP_ABORTED };
    let plan = Plan::from_words(*words);
    let turn = count(plan::GENERATED, 1) as u32;
    // SAFETY: a helper without arguments.
    let number = if plan.random { unsafe { bpf_get_prandom_u32() } } else { turn };
    if plan.flows == 0 {
        return XDP_ABORTED;
    }
    let Some(template) = TEMPLATES.get(number % plan.flows) else { return XDP_ABORTED };
    let (start, end) = (context.data(), context.data_end());
    for (i, word) in template.iter().enumerate() {
        let at = start + i * 8;
        if at + 8 > end {
            break;
        }
        // SAFETY: inside the frame, as the verifier proves from the line above; BPF stores need no alignment on the
        // machines that the bench runs on, and the frame of a test run is aligned.
        unsafe { *(at as *mut u64) = *word }
    }
    // SAFETY: a helper; a device that is gone makes it an error and the frame is dropped.
    unsafe { bpf_redirect(plan.device, 0) as u32 }
}

/// Drops and counts what matches; the kernel gets the rest, so that ARP and the like go on working.
#[xdp(frags)]
pub fn sink(context: XdpContext) -> u32 {
    if !matches(&context, 0) || !matches(&context, 1) {
        count(plan::PASSED, 1);
        return XDP_PASS;
    }
    count(plan::TAKEN, 1);
    // SAFETY: a helper that reads the context.
    count(plan::TAKEN_OCTETS, unsafe { bpf_xdp_get_buff_len(context.ctx) });
    XDP_DROP
}

#[inline(always)]
fn matches(context: &XdpContext, index: u32) -> bool {
    let Some(words) = WANTED.get(index) else { return false };
    let wanted = Match::from_words(*words);
    if wanted.mask == 0 {
        return true;
    }
    let at = context.data() + (wanted.at & 0xff) as usize;
    if at + 4 > context.data_end() {
        return false;
    }
    // SAFETY: inside the frame, as the verifier proves from the lines above.
    let found = unsafe { (at as *const u32).read_unaligned() };
    u32::from_be(found) & wanted.mask == wanted.value
}

/// Leaves everything to the kernel.
#[xdp(frags)]
pub fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"Apache-2.0 OR MIT\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached, and never linked: nothing here can panic.
    loop {}
}
