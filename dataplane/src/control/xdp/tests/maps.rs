//! What the maps hold, and when a quick place may be written.

use super::super::maps::{Encode, Places, QuickPlaces, REST, Table};
use super::*;
use aya::maps::{HashMap, MapData, MapError};
use steering::tables::{Ingress, Quick};
use zerocopy::FromBytes;

#[test]
fn the_maps_follow_the_tables_through_any_change() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let mut random = Random(2);
    for _ in 0..60 {
        let mut tables = HostTables::new();
        let v4 = |random: &mut Random| IpAddr::V4(Ipv4Addr::new(198, 18, 0, random.next(6) as u8));
        for _ in 0..random.next(8) {
            let vrf = random.next(2) as u32;
            let flags = InterfaceFlags(random.next(2) as u16);
            let mac = Mac::new([2, 0, 0, 0, 0, random.next(3) as u8]);
            let device = random.next(3) as u32;
            tables.interface(Ingress { device, vlan: 0 }, Interface { mac, port: 0, counters: 0, flags, vrf });
            tables.own(vrf, v4(&mut random));
            tables.tunnel(vrf, v4(&mut random), Some(v4(&mut random)), 17, 4789 + random.next(2) as u16);
            let keeper = if random.next(2) == 0 { Keeper::WORKER } else { Keeper::KERNEL };
            tables.route(vrf, v4(&mut random), 28 + random.next(5) as u8, keeper);
        }
        xdp.apply(&tables).expect("there is room");

        let wanted = Wanted::of(&tables);
        fn same<K, V, const A: usize, const B: usize>(
            table: &Table<K, V, HashMap<MapData, [u8; A], [u8; B]>>,
            wanted: &BTreeMap<K, V>,
        ) where
            K: Encode,
            V: Encode,
        {
            let held: BTreeMap<Vec<u8>, Vec<u8>> =
                table.map.iter().map(|pair| pair.expect("it can be read")).map(|(k, v)| (k.into(), v.into())).collect();
            assert_eq!(held, wanted.iter().map(|(k, v)| (k.encode(), v.encode())).collect(), "{}", table.what);
        }
        same(&xdp.maps.interfaces, &wanted.interfaces);
        for place in 0..Quick::PLACES {
            let held = xdp.maps.quick.map.get(&place, 0).expect("it can be read");
            let quick = Quick::read_from_bytes(&held).expect("the sizes agree");
            let ingress = Ingress { device: quick.device, vlan: 0 };
            assert!(quick.device == 0 || wanted.interfaces.get(&ingress) == Some(&quick.interface), "{quick:?}");
        }
        same(&xdp.maps.locals_v4, &wanted.locals_v4);
        same(&xdp.maps.tunnels_v4, &wanted.tunnels_v4);
        let held: BTreeMap<Vec<u8>, Vec<u8>> = (xdp.maps.routes_v4.map.iter())
            .map(|pair| pair.expect("it can be read"))
            .map(|(k, v)| ([&k.prefix_len().to_ne_bytes()[..], &k.data()].concat(), v.into()))
            .collect();
        assert_eq!(held, wanted.routes_v4.iter().map(|(k, v)| (k.encode(), v.encode())).collect());
    }
}

/// Places as the XDP program sees them, and a check on each write.
#[derive(Default)]
struct Observed {
    places: BTreeMap<u32, Quick>,
    emptied: BTreeMap<u32, Instant>,
    now: Option<Instant>,
}

impl Places for Observed {
    fn write(&mut self, place: u32, quick: Quick) -> Result<(), MapError> {
        let now = self.now.expect("the test sets it");
        if let Some(before) = self.places.get(&place)
            && (before.interface != quick.interface || before.device != 0 && quick.device != 0)
        {
            assert_eq!(before.device, 0, "a place in use is rewritten");
            let rested = now.duration_since(self.emptied[&place]);
            assert!(rested >= REST, "a place is rewritten that some packet may still read: {rested:?}");
        }
        if quick.device == 0 && self.places.get(&place).is_some_and(|before| before.device != 0) {
            self.emptied.insert(place, now);
        }
        self.places.insert(place, quick);
        Ok(())
    }
}

#[test]
fn a_quick_place_is_written_only_when_no_packet_can_be_reading_it() {
    let start = Instant::now();
    let mut random = Random(3);
    let mut quick = QuickPlaces { map: Observed::default(), written: BTreeMap::new(), emptied: BTreeMap::new() };
    let mut found = 0;
    for step in 0..2000 {
        let now = start + Duration::from_millis(300 * step);
        // Three devices that share their two places, and one alone.
        let mut interfaces = BTreeMap::new();
        for device in [3, 3 + Quick::PLACES / 2, 3 + Quick::PLACES, 9] {
            if random.next(4) > 0 {
                let vrf = u32::from(random.next(8) == 0);
                let flags = InterfaceFlags::default();
                let interface = Interface { mac: samples::MAC, port: 0, counters: 0, flags, vrf };
                interfaces.insert(Ingress { device, vlan: 0 }, interface);
            }
        }
        quick.map.now = Some(now);
        quick.follow(&interfaces, now).expect("the map takes everything");
        for (place, held) in quick.map.places.iter().filter(|(_, held)| held.device != 0) {
            let ingress = Ingress { device: held.device, vlan: 0 };
            assert_eq!(interfaces.get(&ingress), Some(&held.interface), "place {place} at step {step}");
            assert!((0..2).contains(&(place - Quick::place(held.device))), "where the program looks");
            found += 1;
        }
    }
    assert!(found > 2000, "places are used at all: {found}");
}
