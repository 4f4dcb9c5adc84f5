//! In network namespaces of their own, with the `ip` command as the other hand.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sys::caps::{Capability, testable};
use sys::poll::{PollFd, PollFlags};

use super::*;
use crate::control::host::{Host, IfIndex, KernelHop, Neigh, NeighState, RouteKey, RouteKind, TunKind};

mod interfaces;
mod neighbours;
mod objects;
mod orders;
mod routes;
mod scale;

/// Runs `story` in a fresh namespace, if we may.
pub(in crate::control) fn in_namespace(story: impl FnOnce() + Send) {
    if testable(Capability::NetAdmin) && testable(Capability::SysAdmin) {
        sys::netns::in_new(story).expect("we may unshare");
    }
}

#[track_caller]
pub(in crate::control) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Many commands in one process.
#[track_caller]
fn ip_batch(commands: impl IntoIterator<Item = String>) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2 is installed");
    let mut input = child.stdin.take().expect("piped");
    for command in commands {
        writeln!(input, "{command}").expect("ip reads");
    }
    drop(input);
    assert!(child.wait().expect("ip ends").success());
}

/// Polls until `wanted` is true of the host and nothing is being read again; all that changed
/// on the way.
#[track_caller]
fn await_host(mirror: &mut Mirror, wanted: impl Fn(&Host) -> bool) -> Changes {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = Changes::default();
    loop {
        let changes = mirror.poll().expect("the kernel answers");
        all.links.extend(changes.links);
        all.addresses.extend(changes.addresses);
        all.neighbours.extend(changes.neighbours);
        all.routes.extend(changes.routes);
        if wanted(mirror.host()) && !mirror.is_resynchronising() {
            return all;
        }
        let left = deadline
            .checked_duration_since(Instant::now())
            .unwrap_or_else(|| panic!("not within 20 s; the host is {:#?}", mirror.host()));
        let mut fds = [PollFd::new(&*mirror, PollFlags::IN)];
        sys::poll::poll(&mut fds, Some(left)).expect("one open descriptor");
    }
}

/// What the mirror has agrees with what a new one reads, at a moment at which nothing changes: kernel threads are late
/// with IPv6 addresses and their routes.
#[track_caller]
fn assert_current(mirror: &mut Mirror) {
    let fresh = eventually(|| {
        await_host(mirror, |_| true);
        let fresh = Mirror::open().expect("a second one");
        let quiet = mirror.poll().expect("the kernel answers").is_empty() && !mirror.is_resynchronising();
        (quiet && mirror.host().addresses == fresh.host().addresses).then_some(fresh)
    });
    assert_eq!(mirror.host().links, fresh.host().links);
    assert_eq!(learned(mirror.host()), learned(fresh.host()));
    assert_eq!(mirror.host().routes, fresh.host().routes);
    assert_eq!(mirror.undecoded(), 0);
}

/// The neighbours without those that the kernel makes up, of which it has no event.
fn learned(host: &Host) -> Vec<(&(IfIndex, IpAddr), &Neigh)> {
    let made_up = |neighbour: &Neigh| neighbour.state == NeighState::Noarp;
    host.neighbours.iter().filter(|(_, neighbour)| !made_up(neighbour)).collect()
}

/// Waits for what other threads' children delay: between fork and exec they hold copies of
/// our descriptors.
#[track_caller]
pub(in crate::control) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "not within 20 s");
        std::thread::yield_now();
    }
}

fn index(host: &Host, name: &str) -> IfIndex {
    host.link_by_name(name).expect("it is there").0
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(prefix: &str, metric: u32) -> RouteKey {
    RouteKey { table: 254, prefix: net(prefix), tos: 0, metric }
}
