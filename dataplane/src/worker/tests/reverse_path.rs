//! Sources without a way back.

use super::*;

/// The gateway of the picture, whose ports check sources; ids 14 and 15 are a link and a group of both ways out.
fn filtering(lan: ReversePath, vlan: ReversePath, wan: ReversePath) -> World {
    World::with(Limiter::new(1_000_000), |tables| {
        let mut ports: Vec<_> = tables.ports.iter().map(|(_, port)| port.clone()).collect();
        for (port, rpf) in [(LAN, lan), (VLAN, vlan), (WAN, wan)] {
            ports[port.index()].rpf = rpf;
        }
        tables.ports = crate::tables::Ports::new(ports);
        let link = Adjacency { egress: LAN, ..Adjacency::of(Resolution::OnLink) };
        tables.adjacencies.set(AdjacencyId(to::LAN_LINK), link, wire::Rewrite::empty());
        let failed = Adjacency { egress: LAN, ..Adjacency::of(Resolution::Failed) };
        tables.adjacencies.set(AdjacencyId(to::FAILED), failed, wire::Rewrite::empty());
        let member = |id, up| Member { id: AdjacencyId(id), identity: id.into(), weight: 1, up };
        let members = [member(to::ROUTER, true), member(to::CLIENT, false)];
        tables.adjacencies.set_group(AdjacencyId(to::NARROW), Arc::new(Group::new(&members)));
    })
}

/// RFC 3704 §2.2 and §2.4, by what the source's route is.
#[test]
fn a_source_must_have_a_route_back_or_that_of_its_port() {
    use DropReason::{MartianSource, ReversePath as Refused};
    use ReversePath::{Loose, Off, Strict};
    // What happens at lan0, strictly and loosely, and strictly at its VLAN.
    let table = [
        (CLIENT_V4, None, None, Some(Refused)),
        (FAR_V4, Some(Refused), None, Some(Refused)),
        (SITE_A_V4, Some(Refused), None, Some(Refused)),
        ([10, 36, 0, 9], Some(Refused), None, None),
        ([10, 33, 0, 9], None, None, Some(Refused)),
        ([10, 34, 0, 9], Some(Refused), None, Some(Refused)),
        ([10, 35, 0, 9], Some(Refused), None, Some(Refused)),
        ([10, 37, 0, 9], None, None, Some(Refused)),
        ([10, 30, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([10, 31, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([10, 32, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([9, 9, 9, 9], Some(Refused), Some(Refused), Some(Refused)),
        (LAN_V4, Some(MartianSource), Some(MartianSource), Some(MartianSource)),
        ([127, 0, 0, 1], Some(MartianSource), Some(MartianSource), Some(MartianSource)),
        // No route is for a link-local source, and none is asked.
        ([169, 254, 1, 1], Some(DropReason::MartianDestination), Some(DropReason::MartianDestination), None),
    ];
    let after = |lan, vlan, frame: Vec<u8>| {
        let mut world = filtering(lan, vlan, Off);
        world.receive(frame);
        world.assert_balance();
        world.only_drop()
    };
    for (source, strict, loose, of_vlan) in &table {
        let frame = ethernet(&raw_v4(FAR_V4, b"x", |header| header.source = *source));
        assert_eq!(after(Strict, Off, frame.clone()), *strict, "{source:?}");
        assert_eq!(after(Loose, Off, frame.clone()), *loose, "{source:?}");
        let of_vlan = if source[0] == 169 { Some(DropReason::MartianDestination) } else { *of_vlan };
        assert_eq!(after(Off, Strict, tagged(7, &frame)), of_vlan, "{source:?}");
        // Another's setting is none of a port's business.
        let martian = |reason: &Option<DropReason>| reason.filter(|reason| *reason != Refused);
        assert_eq!(after(Off, Strict, frame.clone()), martian(strict), "{source:?}");
        assert_eq!(after(Strict, Off, tagged(7, &frame)), martian(strict), "{source:?}");
    }
    for (source, expected) in [(CLIENT_V6, None), (FAR_V6, Some(Refused)), ("2001:db8:ffff::1", Some(Refused))] {
        let ip = written(PacketBuilder::ipv6(v6(source), v6(FAR_V6), 9).udp(1, 2), b"x");
        assert_eq!(after(Strict, Off, ethernet(&ip)), expected, "{source}");
    }
}

/// The tunnel's other end may come this way; whom it speaks for is the tunnel's affair.
#[test]
fn the_outer_source_is_checked_and_not_the_inner_one() {
    let inner = |source| framed(TUNNEL_MAC, FAR_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = source));
    let mut world = filtering(ReversePath::Off, ReversePath::Off, ReversePath::Strict);
    for source in [SITE_A_V4, FAR_V4, [9, 9, 9, 9]] {
        world.put(WAN, vxlan(AWS_A, &inner(source)));
    }
    // In clear, the same is refused: its way back is the tunnel.
    world.put(WAN, framed(WAN_MAC, ROUTER_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = SITE_A_V4)));
    world.put(WAN, framed(WAN_MAC, ROUTER_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = FAR_V4)));
    world.poll();
    assert_eq!((world.sent(LAN).len(), world.only_drop()), (4, Some(DropReason::ReversePath)));
    world.assert_balance();
}
