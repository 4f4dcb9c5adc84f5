//! The programs of the bench, whose object is built and committed along with the one that is under test above.

use super::*;
use aya::maps::{Array, MapData, PerCpuArray};
use std::collections::BTreeSet;

#[path = "../../../../../ebpf/traffic/src/plan.rs"]
#[expect(dead_code, reason = "the bench uses the rest")]
mod plan;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../../ebpf/traffic.bpf.o");

fn load() -> Option<Ebpf> {
    // The privilege is that of the other object.
    super::load(&Bpffs::new())?;
    let mut ebpf = Ebpf::load(OBJECT).expect("the committed object loads");
    for name in ["generate", "sink", "pass"] {
        program(&mut ebpf, name).load().expect("the verifier takes it");
    }
    Some(ebpf)
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> &'e mut aya::programs::Xdp {
    ebpf.program_mut(name).expect("the object has it").try_into().expect("it is for XDP")
}

/// The object, for [`pass`].
pub fn empty_program() -> Ebpf {
    load().expect("the caller has the privilege")
}

/// The program that does nothing.
pub fn pass(ebpf: &Ebpf) -> &aya::programs::Xdp {
    ebpf.program("pass").expect("the object has it").try_into().expect("it is for XDP")
}

fn array<T: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Array<MapData, T> {
    ebpf.take_map(name).expect("the object has it").try_into().expect("it is an array")
}

fn counts(ebpf: &Ebpf) -> [u64; plan::COUNTS as usize] {
    let counts = PerCpuArray::<_, u64>::try_from(ebpf.map("COUNTS").expect("the object has it"));
    let counts = counts.expect("it is a per-CPU array");
    std::array::from_fn(|i| counts.get(&(i as u32), 0).expect("it can be read").iter().sum())
}

/// A frame of one flow: the last octet of the destination address tells which.
fn frame(flow: u8) -> Vec<u8> {
    let datagram = samples::udp(4789, &[flow; 22]);
    let packet = samples::ipv4([198, 18, 0, 1], [198, 18, 1, flow], 17, 0, &[], &datagram);
    samples::ethernet(Mac::new([2, 0, 0, 0, 0, 0x50]), EtherType::IPV4, &packet)
}

fn plan_for(ebpf: &mut Ebpf, device: u32) {
    let mut templates = array::<[u64; plan::TEMPLATE_WORDS]>(ebpf, "TEMPLATES");
    for flow in 0..3u8 {
        let mut octets = [0u8; plan::TEMPLATE];
        octets[..frame(flow).len()].copy_from_slice(&frame(flow));
        let words = octets.as_chunks::<8>().0;
        templates.set(flow.into(), std::array::from_fn(|i| u64::from_ne_bytes(words[i])), 0).expect("it fits");
    }
    let plan = plan::Plan { device, flows: 3, random: false };
    array::<[u32; 4]>(ebpf, "PLAN").set(0, plan.to_words(), 0).expect("it fits");
}

#[test]
fn the_generator_writes_each_flow_in_turn_over_whatever_the_frame_was() {
    let Some(mut ebpf) = load() else { return };
    let run = |ebpf: &mut Ebpf| {
        let mut out = [0u8; 64];
        let options = TestRunOptions { data_in: Some(&[0xee; 64]), data_out: Some(&mut out), ..Default::default() };
        let result = program(ebpf, "generate").test_run(options).expect("test runs work");
        (result.return_value, out)
    };
    assert_eq!(run(&mut ebpf).0, ABORTED, "there is no plan");
    plan_for(&mut ebpf, LOOPBACK);
    // Each CPU has its turn, and the test may move: it is a flow of the plan, whole, and over three runs more
    // than one. The run without a plan counted too.
    let mut flows = BTreeSet::new();
    for _ in 0..12 {
        let (action, out) = run(&mut ebpf);
        assert_eq!(action, REDIRECT);
        assert_eq!(out[..], frame(out[33])[..64]);
        flows.insert(out[33]);
    }
    assert_eq!(flows, BTreeSet::from([0, 1, 2]));
    assert_eq!(counts(&ebpf)[plan::GENERATED as usize], 13);
}

#[test]
fn the_sink_takes_what_matches_and_leaves_the_rest_to_the_kernel() {
    let Some(mut ebpf) = load() else { return };
    let run = |ebpf: &mut Ebpf, frame: &[u8]| {
        let options = TestRunOptions { data_in: Some(frame), ..Default::default() };
        program(ebpf, "sink").test_run(options).expect("test runs work").return_value
    };
    assert_eq!(run(&mut ebpf, &frame(1)), DROP, "everything matches at first");
    let mut wanted = array::<[u32; 4]>(&mut ebpf, "WANTED");
    // UDP destination port 4789 is the lower half of the word at 34; protocol UDP the second octet at 22.
    let port = plan::Match { at: 34, mask: 0xffff, value: 4789 };
    let protocol = plan::Match { at: 22, mask: 0x00ff_0000, value: 17 << 16 };
    wanted.set(0, port.to_words(), 0).expect("it fits");
    wanted.set(1, protocol.to_words(), 0).expect("it fits");
    assert_eq!(run(&mut ebpf, &frame(1)), DROP);
    let mut other = frame(1);
    other[37] ^= 1;
    assert_eq!(run(&mut ebpf, &other), PASS, "another port");
    let mut other = frame(1);
    other[23] = 6;
    assert_eq!(run(&mut ebpf, &other), PASS, "another protocol");
    assert_eq!(run(&mut ebpf, &frame(1)[..37]), PASS, "too short to tell");
    let octets = 2 * frame(1).len() as u64;
    assert_eq!(counts(&ebpf), [0, 2, octets, 3]);
}

#[test]
fn live_frames_cross_a_veth_pair_and_are_counted_at_the_far_end() {
    let Some(mut ebpf) = load() else { return };
    let lab = Lab::new();
    let (a, b) = (lab.index("v0"), lab.index("v1"));
    plan_for(&mut ebpf, a);
    lab.inside(|| {
        program(&mut ebpf, "sink").attach_to_if_index(b, XdpMode::Driver).expect("veth has native XDP");
        let attrs = TestRunAttrs::new().xdp_live_frames(64);
        // One batch: more could overflow the ring while others keep the CPU busy.
        let options = TestRunOptions { data_in: Some(&[0; 64]), repeat: 64, attrs, ..Default::default() };
        program(&mut ebpf, "generate").test_run(options).expect("test runs work");
    });
    let give_up = Instant::now() + Duration::from_secs(10);
    while counts(&ebpf)[plan::TAKEN as usize] < 64 && Instant::now() < give_up {
        thread::yield_now();
    }
    assert_eq!(counts(&ebpf), [64, 64, 64 * 64, 0]);
}
