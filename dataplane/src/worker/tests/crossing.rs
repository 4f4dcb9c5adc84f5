//! What crosses from worker to worker, in thousands of interleavings of their rounds (shuttle).
//!
//! The workers, their rings, bells and the owner's scheduler are those of a running gateway, on ports in memory. A round is
//! one step here: the rings are as short as one place, so that each packet crosses between two rounds of its own. The order in
//! which memory is written within a round is the ring's own affair.

use super::*;
use crate::control::shaping;
use crate::packet::Numbering;
use crate::qos::{Aqm, Codel, Plan, PortSpec, Rate, Spec, TenantSpec};
use crate::tables::filter::{Match, Ways};
use crate::tables::{Classifier, Marks};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;
use std::collections::HashMap;

const WORKERS: usize = 3;
/// Packets that each worker receives, of two flows.
const PACKETS: u8 = 12;

/// Times that tenants are given other numbers.
const CHANGES: usize = 2;
/// Whose packets are even, and whose odd.
const TENANTS: [&str; 2] = ["even", "odd"];

/// The order of tenants after so many changes, and which numbers those are.
fn order(changes: usize) -> (Numbering, [usize; 2]) {
    let numbering = (0..changes).fold(Numbering::default(), |numbering, _| numbering.next());
    (numbering, if changes.is_multiple_of(2) { [0, 1] } else { [1, 0] })
}

/// A scheduler for the port, with a queue for each flow, after so many changes.
fn plan(changes: usize) -> Box<Plan> {
    let (numbering, tenants) = order(changes);
    let mut spec = Spec { numbering, ..Spec::plain(2) };
    spec.tenants.extend(tenants.map(|at| TenantSpec { name: TENANTS[at].into(), ..TenantSpec::default() }));
    spec.ports.push(PortSpec { port: WAN, rate: Rate::new(1_000_000_000), account: crate::qos::Account::L1 });
    spec.classes[0].aqm = Aqm::FqCodel(Codel { target_ns: u32::MAX, ..Codel::WAN });
    Box::new(Plan::new(&Arc::new(spec), 4).expect("a specification that can be kept"))
}

/// What workers are told by control, and where each has got.
struct Orders {
    /// Changes whose plan a worker is to adopt, and those whose tables it may read.
    plans: AtomicUsize,
    tables: AtomicUsize,
    /// How many plans all workers together have adopted.
    adopted: AtomicUsize,
    /// Workers that send across and have ended.
    ended: AtomicUsize,
}

/// How far a worker has got.
#[derive(Default)]
struct Progress {
    plans: usize,
    tables: usize,
}

impl Progress {
    /// Does what it is told, between two rounds.
    fn obey(&mut self, world: &mut World, orders: &Orders) {
        if self.plans < orders.plans.load(Ordering::SeqCst) {
            self.plans += 1;
            let now = world.now;
            world.worker.obey(Command::Shape(plan(self.plans)), now);
            orders.adopted.fetch_add(1, Ordering::SeqCst);
        }
        if self.tables < orders.tables.load(Ordering::SeqCst) {
            self.tables += 1;
            publish(world, self.tables);
        }
    }
}

/// A packet is whose its source port says.
fn publish(world: &mut World, changes: usize) {
    let (numbering, tenants) = order(changes);
    let ports =
        |at: usize| (0..WORKERS as u16).map(move |worker| 4_000 + 2 * worker + at as u16).map(|port| port..=port);
    let tenants = tenants.map(|at| Match {
        protocols: vec![wire::protocol::UDP],
        source_ports: ports(at).collect(),
        ..Match::default()
    });
    let marks = Marks { numbering, tenants: tenants.into(), ..Marks::default() };
    let made = Classifier::new(Vec::new(), Some(marks), Ways::default()).expect("there is memory");
    world.publish(|tables| tables.classifier = made);
}

/// Gives all workers a plan, and then the tables whose numbers it has.
fn control(orders: &Orders) {
    for change in 1..=CHANGES {
        orders.plans.store(change, Ordering::SeqCst);
        while orders.adopted.load(Ordering::SeqCst) < change * WORKERS {
            thread::yield_now();
        }
        orders.tables.store(change, Ordering::SeqCst);
    }
}

/// The next packets that a worker receives, at most: each says of which worker and which packet it is.
fn receive(world: &mut World, worker: usize, next: &mut u8, most: u8) {
    for number in *next..(*next + most).min(PACKETS) {
        let flow = worker as u8 * 2 + number % 2;
        let builder = PacketBuilder::ipv4(CLIENT_V4, FAR_V4, 64).udp(4_000 + u16::from(flow), 9);
        world.put(LAN, ethernet(&written(builder, &[flow, number])));
        *next = number + 1;
    }
}

/// A round some microseconds later; how many packets came or went.
fn round(world: &mut World) -> usize {
    world.now = Time(world.now.0 + 2_000);
    let moved = world.worker.poll(world.now);
    thread::yield_now();
    moved
}

/// Receives, sends across, and ends when nothing waits here.
fn sender(mut world: World, worker: usize, orders: &Orders) -> World {
    let (mut next, mut progress) = (0, Progress::default());
    while next < PACKETS || world.worker.pipeline.shaper.waiting() != 0 || progress.tables < CHANGES {
        progress.obey(&mut world, orders);
        receive(&mut world, worker, &mut next, thread_rng().gen_range(0..4));
        round(&mut world);
    }
    orders.ended.fetch_add(1, Ordering::SeqCst);
    world
}

/// Receives too, sends for all, changes its queues now and then, and sleeps when there is nothing to do.
fn owner(mut world: World, worker: usize, bell: &Doorbell, orders: &Orders) -> World {
    let (mut next, mut progress) = (0, Progress::default());
    loop {
        progress.obey(&mut world, orders);
        receive(&mut world, worker, &mut next, thread_rng().gen_range(0..3));
        if thread_rng().gen_ratio(1, 8) {
            let now = world.now;
            world.worker.obey(Command::Shape(plan(progress.plans)), now);
        }
        let all_ended = orders.ended.load(Ordering::SeqCst) == WORKERS - 1;
        if round(&mut world) != 0
            || world.worker.pipeline.shaper.waiting() != 0
            || next < PACKETS
            || progress.tables < CHANGES
        {
            continue;
        }
        if all_ended {
            return world;
        }
        bell.falls_asleep();
        thread::yield_now();
        while !world.worker.is_called() {
            let all_ended = orders.ended.load(Ordering::SeqCst) == WORKERS - 1;
            thread::yield_now();
            if bell.wake.drain() {
                break;
            }
            if all_ended {
                assert!(!world.worker.is_called(), "it sleeps, and packets wait for it");
                break;
            }
        }
        bell.wakes();
        bell.wake.drain();
    }
}

/// Two workers send by a port that is the third's: whose it is, its number says.
fn storm() {
    let at = shaping::owner(WAN, WORKERS);
    let bell = Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
    let mut worlds: Vec<_> = (0..WORKERS).map(|_| World::new()).collect();
    for from in (0..WORKERS).filter(|from| *from != at) {
        let (ring, crossed) = rtrb::RingBuffer::new(thread_rng().gen_range(1..6));
        worlds[from].worker.cross_to(Outbound::new(at, ring, Arc::clone(&bell)));
        worlds[at].worker.cross_from(crossed);
    }
    let pages: Vec<_> = worlds.iter().map(|world| world.worker.pipeline.tally.page()).collect();
    for (worker, world) in worlds.iter_mut().enumerate() {
        let others = pages.iter().enumerate().filter(|(other, _)| *other != worker);
        world.peers.extend(others.map(|(_, page)| Arc::clone(page)));
        let now = world.now;
        world.worker.obey(Command::Close(WAN), now);
        world.worker.obey(Command::Shape(plan(0)), now);
        publish(world, 0);
        if worker == at {
            world.worker.obey(Command::Open(Lane::interface(WAN, 0, Port::Memory(Memory::new()))), now);
        } else {
            world.worker.obey(Command::Cross(WAN, at), now);
        }
    }
    let [plans, tables, adopted, ended] = std::array::from_fn(|_| AtomicUsize::new(0));
    let orders = shuttle::sync::Arc::new(Orders { plans, tables, adopted, ended });
    let told = shuttle::sync::Arc::clone(&orders);
    let control = thread::spawn(move || control(&told));
    let threads: Vec<_> = worlds
        .into_iter()
        .enumerate()
        .map(|(worker, world)| {
            let (bell, orders) = (Arc::clone(&bell), shuttle::sync::Arc::clone(&orders));
            thread::spawn(move || {
                if worker == at { owner(world, worker, &bell, &orders) } else { sender(world, worker, &orders) }
            })
        })
        .collect();
    let mut worlds: Vec<_> = threads.into_iter().map(|it| it.join().expect("no worker panicked")).collect();
    control.join().expect("it only tells");
    // Packets of each flow are numbered by two.
    let mut seen: HashMap<u8, Vec<u8>> = HashMap::new();
    for frame in worlds[at].sent(WAN) {
        seen.entry(frame[ETHERNET + 28]).or_default().push(frame[ETHERNET + 29]);
    }
    for flow in 0..2 * WORKERS as u8 {
        let all: Vec<_> = (flow % 2..PACKETS).step_by(2).collect();
        assert_eq!(seen.get(&flow), Some(&all), "flow {flow}");
    }
    let report = worlds[at].worker.pipeline.shaper.report(WAN).expect("it has a scheduler");
    let sent = |leaf: &qos::LeafReport| leaf.classes.iter().map(|class| class.sent_packets).sum::<u64>();
    let each = u64::from(PACKETS) * WORKERS as u64 / 2;
    let by_tenant: Vec<_> = report.leaves.iter().map(|leaf| (leaf.tenant.0, sent(leaf))).collect();
    assert_eq!(by_tenant, [(1, each), (2, each)], "whatever numbers they had, none is another's");
    let totals = worlds[at].totals();
    assert_eq!((totals.forwarded, totals.dropped(), totals.queued), (u64::from(PACKETS) * WORKERS as u64, 0, 0));
    assert!(totals.balances(), "{totals:?}");
}

fn check(scheduler: impl Scheduler + 'static) {
    let mut config = shuttle::Config::new();
    // A round of a worker, not optimised.
    config.stack_size = 1 << 20;
    shuttle::Runner::new(scheduler, config).run(storm);
}

/// Q9 across workers: nothing is lost, nothing waits while the owner sleeps, each flow is in order, and each packet its tenant's, whoever
/// is quicker and whatever numbers tenants get meanwhile.
#[test]
fn what_two_workers_send_by_a_thirds_port_is_all_sent_in_the_order_of_each_flow() {
    check(RandomScheduler::new(2_000));
    check(PctScheduler::new(3, 1_000));
}
