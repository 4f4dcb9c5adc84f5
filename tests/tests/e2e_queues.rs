//! Interfaces with unlike numbers of queues, and workers that send by each other's.
#![forbid(unsafe_code)]

use integration::program::Signal;
use integration::site::{PATIENCE, Plan, SERVER};
use integration::{Penstock, Site, require, until};

/// Addresses of the client, so many that some of its flows go by each of two queues.
const CLIENTS: [&str; 8] = [
    "198.18.1.21",
    "198.18.1.22",
    "198.18.1.23",
    "198.18.1.24",
    "198.18.1.25",
    "198.18.1.26",
    "198.18.1.27",
    "198.18.1.28",
];

/// The median of some round trips, milliseconds. A worker sleeps for up to 100; even a busy test machine is seldom so
/// slow.
const AT_ONCE: f64 = 25.0;

fn add_clients(site: &Site) {
    for client in CLIENTS {
        site.client.run(&format!("ip address add {client}/24 dev eth0"));
    }
}

fn every_flow_works(site: &Site) -> bool {
    CLIENTS.iter().all(|client| site.client.pings(SERVER[0], 56, &format!("-I {client}")))
}

#[test]
fn a_packet_that_crosses_to_another_worker_does_not_wait_until_that_one_wakes_by_itself() {
    require!();
    let site = Site::new("crossing", Plan { lan_queues: 2, workers: 2, ..Plan::default() });
    add_clients(&site);
    let gateway = site.start();
    until("every flow works", PATIENCE, || every_flow_works(&site));
    for client in CLIENTS {
        // Each finds the workers asleep, and at another time since they lay down.
        let shown = site.client.run(&format!("ping -n -c 9 -i 0.23 -I {client} {}", SERVER[0]));
        let times = shown.split("time=").skip(1).filter_map(|rest| rest.split(' ').next()?.parse().ok());
        let mut times: Vec<f64> = times.collect();
        assert_eq!(times.len(), 9, "{shown}");
        times.sort_by(f64::total_cmp);
        assert!(times[4] < AT_ONCE, "{client}: {times:?} ms");
    }
    gateway.assert_balance();
}

/// Queues of an interface, as the gateway says.
fn queues(gateway: &Penstock, name: &str) -> Option<u64> {
    let shown = gateway.show("interfaces");
    let rows = shown["interfaces"].as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name)?["queues"].as_u64()
}

#[test]
fn an_interface_that_is_made_again_with_other_queues_is_served_by_every_worker() {
    require!("ethtool");
    let mut site = Site::new("requeue", Plan { lan_queues: 2, wan_queues: 2, workers: 2, ..Plan::default() });
    add_clients(&site);
    let mut gateway = site.start();
    until("every flow works", PATIENCE, || every_flow_works(&site));
    for (receive, send) in [(1, 1), (2, 1), (2, 2)] {
        // Once it has sockets, the kernel takes no queue away: it finds the interface as it will be.
        gateway.signal(Signal::STOP);
        site.gateway.run("ip link del lan0");
        site.plan.lan_queues = receive;
        site.link_lan();
        if send != receive {
            site.gateway.run(&format!("ethtool -L lan0 tx {send}"));
        }
        gateway.signal(Signal::CONT);
        add_clients(&site);
        // Until then the kernel forwards.
        until("it is taken", PATIENCE, || queues(&gateway, "lan0") == Some(receive.into()));
        until(&format!("every flow works by {receive} and {send} queues"), PATIENCE, || every_flow_works(&site));
    }
    gateway.assert_balance();
}

#[test]
fn queues_that_are_added_while_the_gateway_runs_are_served() {
    require!("ethtool");
    let site = Site::new("channels", Plan { lan_queues: 2, workers: 2, ..Plan::default() });
    add_clients(&site);
    site.client.run("ethtool -L eth0 rx 1 tx 1");
    site.gateway.run("ethtool -L lan0 rx 1 tx 1");
    let gateway = site.start();
    assert_eq!(queues(&gateway, "lan0"), Some(1));
    site.gateway.run("ethtool -L lan0 rx 2 tx 1");
    site.client.run("ethtool -L eth0 tx 2");
    until("the new queue has a socket", PATIENCE, || queues(&gateway, "lan0") == Some(2));
    until("every flow works", PATIENCE, || every_flow_works(&site));
    let log = gateway.log();
    assert!(log.contains("packet memory was made for 2 queues, and there are 3"), "{log}");
    gateway.assert_balance();
}
