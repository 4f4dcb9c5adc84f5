//! Neighbours, known and asked for.

use super::*;

#[test]
fn neighbours_come_change_and_go() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev left nud permanent");
        let mut mirror = Mirror::open().expect("in the namespace");
        let left = index(mirror.host(), "left");
        let second = (left, address("192.0.2.2"));
        let known = mirror.host().neighbours[&second];
        assert_eq!(known.mac, Some([2, 0, 0, 0, 0, 2]));
        assert_eq!(known.state, NeighState::Permanent);

        ip("neighbour add 2001:db8::2 lladdr 02:00:00:00:00:06 dev left nud stale");
        ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:22 dev left nud reachable");
        let sixth = (left, address("2001:db8::2"));
        let changes = await_host(&mut mirror, |host| host.neighbours[&second].mac == Some([2, 0, 0, 0, 0, 0x22]));
        assert!(changes.neighbours.contains(&second) && changes.neighbours.contains(&sixth));
        assert_eq!(mirror.host().neighbours[&second].state, NeighState::Reachable);
        assert_eq!(mirror.host().neighbours[&sixth].state, NeighState::Stale);

        ip("neighbour delete 192.0.2.2 dev left");
        await_host(&mut mirror, |host| {
            // Deleted by hand it fails first, and is then collected.
            host.neighbours.get(&second).is_none_or(|neighbour| neighbour.state == NeighState::Failed)
        });
        ip("link set left down");
        await_host(&mut mirror, |host| !host.neighbours.contains_key(&second) && !host.neighbours.contains_key(&sixth));
        assert_current(&mut mirror);
    });
}

#[test]
fn the_kernel_resolves_manages_and_forgets_neighbours_when_asked() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev left nud permanent");
        let mut mirror = Mirror::open().expect("in the namespace");
        let mut commander = Commander::open().expect("in the namespace");
        let left = index(mirror.host(), "left");
        // Nobody answers, so it fails: after three probes, one a second.
        let second = (left, address("192.0.2.2"));
        assert!(commander.resolve(left, second.1, None).expect("allowed"));
        await_host(&mut mirror, |host| {
            host.neighbours
                .get(&second)
                .is_some_and(|neighbour| matches!(neighbour.state, NeighState::Failed | NeighState::Incomplete))
        });
        let third = (left, address("192.0.2.3"));
        assert!(commander.manage(left, third.1, None).expect("allowed"));
        let shown = Command::new("ip")
            .args(["neighbour", "show", "192.0.2.3", "dev", "left"])
            .output()
            .expect("iproute2 is installed");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("managed"), "{shown}");

        // What was set by hand stays as it was.
        let ninth = (left, address("192.0.2.9"));
        let known = mirror.host().neighbours[&ninth];
        assert!(!commander.manage(left, ninth.1, Some(&known)).expect("left alone"));
        assert!(!commander.resolve(left, ninth.1, Some(&known)).expect("left alone"));
        await_host(&mut mirror, |_| true);
        assert_eq!(mirror.host().neighbours[&ninth], known);

        commander.delete_neighbour(left, ninth.1).expect("allowed");
        commander.delete_neighbour(left, address("192.0.2.77")).expect("there is none, which is as it should be");
        await_host(&mut mirror, |host| {
            host.neighbours.get(&ninth).is_none_or(|neighbour| neighbour.state == NeighState::Failed)
        });
    });
}

#[test]
fn a_neighbour_that_answers_becomes_reachable() {
    in_namespace(|| {
        // The far end is this namespace too: it answers for its own address over the pair.
        ip("link add left type veth peer name right");
        let (reader, mut writer) = std::io::pipe().expect("descriptors are free");
        let (mut done, finish) = std::io::pipe().expect("descriptors are free");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Read;
                sys::netns::enter_new().expect("we may unshare");
                let id = std::fs::read_link("/proc/thread-self").expect("/proc is mounted");
                let id = id.file_name().expect("a thread").to_string_lossy().into_owned();
                writer.write_all(id.as_bytes()).expect("read by the test");
                drop(writer);
                // The namespace lives while this thread does.
                let _ = done.read(&mut [0]);
            });
            let id = std::io::read_to_string(reader).expect("written by the thread");
            ip(&format!("link set right netns {id}"));
            ip("link set left up");
            ip("address add 192.0.2.1/24 dev left");
            let mut mirror = Mirror::open().expect("in the namespace");
            let mut commander = Commander::open().expect("in the namespace");
            let left = index(mirror.host(), "left");
            assert_eq!(mirror.host().links[&left].parent, None, "its peer is elsewhere");
            in_namespace_of(
                &id,
                &["link set right address 02:00:00:00:00:02 up", "address add 192.0.2.2/24 dev right"],
            );
            await_host(&mut mirror, |host| host.links[&left].running);
            let second = (left, address("192.0.2.2"));
            commander.resolve(left, second.1, None).expect("allowed");
            await_host(&mut mirror, |host| {
                host.neighbours.get(&second).is_some_and(|neighbour| {
                    neighbour.mac == Some([2, 0, 0, 0, 0, 2]) && neighbour.state == NeighState::Reachable
                })
            });
            drop(finish);
        });
    });
}

#[track_caller]
fn in_namespace_of(thread: &str, commands: &[&str]) {
    for command in commands {
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{thread}/ns/net"))
            .arg("ip")
            .args(command.split_whitespace())
            .status()
            .expect("util-linux is installed");
        assert!(status.success(), "{command}");
    }
}
