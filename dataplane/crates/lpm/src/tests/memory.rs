//! Memory that runs out, and how much of it tables take.

use super::*;

#[test]
fn a_route_that_does_not_fit_says_what_is_missing_and_fits_after_a_reclaim() {
    let mut writer = small::<u32, Writer4>(192);
    let reader = writer.reader();
    writer.insert(0, v4("192.0.2.0/24"), value(1)).unwrap();
    writer.insert(0, v4("192.0.2.1/32"), value(2)).unwrap();

    let error = writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap_err();
    assert_eq!(error.to_string(), "table full: the route needs 32 bytes, 80 of 192 are free and 16 wait for readers");
    assert_eq!(reader.lookup(1, 0xc633_6401), None);

    let early = writer.retire_mark();
    writer.remove(0, v4("192.0.2.1/32")).unwrap();
    assert_eq!(reader.lookup(0, 0xc000_0201), Some(value(1)));
    assert_eq!(writer.reclaim(early), 16, "the mark is older than the removal");
    writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap_err();

    let mark = writer.retire_mark();
    assert_eq!(writer.reclaim(mark), 64 + 32);
    writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap();
    assert_eq!(reader.lookup(1, 0xc633_6401), Some(value(3)));
    assert_eq!(reader.lookup(0, 0xc000_0201), Some(value(1)));
}

#[test]
fn changes_that_do_not_all_fit_or_name_no_vrf_leave_all_as_it_was() {
    let mut writer = small::<u32, Writer4>(256);
    let (net, all) = (v4("192.0.2.0/24"), v4("0.0.0.0/0"));
    writer.insert(0, net, value(1)).unwrap();
    writer.insert(0, all, value(2)).unwrap();
    let before = writer.usage();

    let twice = |prefix| [3, 4].map(|number| Change { vrf: 0, prefix, value: Some(value(number)) });
    let gone = Change { vrf: 0, prefix: v4("198.51.100.0/24"), value: None };
    let hosts = (0..8).map(|host| Change { vrf: 1, prefix: Prefix::host(host << 16), value: Some(value(5)) });
    let nowhere = Change { vrf: VRFS, prefix: net, value: Some(value(6)) };
    let fitting: Vec<_> = twice(net).into_iter().chain(twice(all)).chain([gone]).collect();

    let error = writer.apply(fitting.iter().copied().chain(hosts)).unwrap_err();
    assert!(matches!(error, TableError::Full { .. }), "{error}");
    for error in [error, writer.apply(fitting.iter().copied().chain([nowhere])).unwrap_err()] {
        assert_eq!(Usage { resident_bytes: before.resident_bytes, ..writer.usage() }, before, "after {error}");
        assert_eq!((writer.value(0, net), writer.value(0, all)), (Some(value(1)), Some(value(2))));
        assert_eq!((writer.prefixes(0), writer.prefixes(1)), (2, 0));
        assert_eq!(writer.reader().lookup(0, 0xc000_0201), Some(value(1)));
        assert_eq!(writer.reader().lookup(0, 0xc633_6401), Some(value(2)));
        assert_eq!(writer.reader().lookup(1, 1 << 16), None);
    }

    writer.apply(fitting).unwrap();
    assert_eq!(writer.reader().lookup(0, 0xc000_0201), Some(value(4)));
    assert_eq!(writer.reader().lookup(0, 0xc633_6401), Some(value(4)));
}

/// Whatever stage of building arrays, nodes, leaves and shared leaves the memory ends in.
#[test]
fn a_large_ipv6_change_without_room_leaves_all_as_it_was() {
    let mut state = 3;
    let mut next = |number: u16| {
        let mut word = || u128::from(random(&mut state));
        let address = 0x2001_0d00 << 96 | word() << 72 | (word() << 32 | word()) >> (word() % 40);
        let len = [23, 33, 40, 48, 64, 128][word() as usize % 6];
        (Prefix::containing(address, len).expect("at most 128"), value(1 + number % 999))
    };
    let first: BTreeMap<Prefix6, Value> = (0..1000).map(&mut next).collect();
    let second: Vec<_> = (0..2000).map(&mut next).collect();
    let change = |(prefix, value)| Change { vrf: 0, prefix, value: Some(value) };
    for kib in (160..400).step_by(16) {
        let mut writer = small::<u128, Writer6>(kib << 10);
        if writer.apply(first.clone().into_iter().map(change)).is_err() {
            continue;
        }
        let before = writer.usage();
        let mut routes = first.clone();
        if writer.apply(second.iter().copied().map(change)).is_ok() {
            routes.extend(second.iter().copied());
        } else {
            assert_eq!(Usage { resident_bytes: 0, ..writer.usage() }, Usage { resident_bytes: 0, ..before });
        }
        same_as_intervals(&writer, &routes);
        // The longest first: what takes away a short one builds all that is below it.
        let mut order: Vec<_> = routes.keys().collect();
        order.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        for prefix in order {
            while writer.remove(0, *prefix).is_err() {
                let mark = writer.retire_mark();
                assert!(writer.reclaim(mark) > 0);
            }
        }
        let mark = writer.retire_mark();
        writer.reclaim(mark);
        assert_eq!(writer.usage().used_bytes, 0);
    }
}

#[test]
fn a_vrf_beyond_the_table_is_refused_by_number() {
    let error = small::<u32, Writer4>(0).insert(VRFS, v4("192.0.2.0/24"), value(1)).unwrap_err();
    assert_eq!(error.to_string(), "vrf 3: the table holds 3 VRFs, numbered from 0");
}

#[test]
fn memory_that_cannot_be_numbered_is_refused() {
    let bytes = usize::MAX;
    let error = Writer4::new(Limits { vrfs: 1, bytes }).unwrap_err();
    assert_eq!(error.to_string(), "cannot reserve 18446744073709551615 bytes and 1 VRFs for routes");
}

#[test]
fn a_vrf_with_a_default_route_and_a_few_others_takes_less_than_32_kib() {
    let mut writer = small::<u32, Writer4>(100 << 10);
    let before = writer.usage().resident_bytes;
    writer.insert(1, v4("0.0.0.0/0"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes, before);
    for (number, prefix) in (1..).zip(["192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"]) {
        writer.insert(1, v4(prefix), value(number)).unwrap();
    }
    assert!(writer.usage().resident_bytes - before <= 32 << 10);
}

#[test]
fn blocks_of_all_ipv4_vrfs_share_a_page_of_2_mib() {
    let mut writer = Writer4::new(Limits { vrfs: 2, bytes: 8 << 20 }).unwrap();
    let empty = writer.usage().resident_bytes;
    writer.insert(0, v4("192.0.2.0/24"), value(1)).unwrap();
    let one = writer.usage().resident_bytes;
    assert_eq!(one - empty, (2 << 20) + (4 << 10), "a large page of blocks, and a small one of entries");
    writer.insert(1, v4("192.0.2.0/24"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes - one, 4 << 10);
}

#[test]
fn a_host_route_of_ipv6_takes_a_line_wherever_it_is() {
    let mut writer = small::<u128, Writer6>(100 << 10);
    let used = |writer: &Writer6| writer.usage().used_bytes;
    writer.insert(1, v6("2001:db8::7/128"), value(1)).unwrap();
    assert_eq!(used(&writer), 64);
    writer.insert(1, v6("3fff::/20"), value(2)).unwrap();
    let before = used(&writer);
    for (number, prefix) in (0..).zip(["3fff:0:1::1/128", "3fff:100:0:1::1/128", "3fff:200::1/128"]) {
        writer.insert(1, v6(prefix), value(3)).unwrap();
        assert_eq!(used(&writer), before + 64 * (number + 1));
    }
    // Beside others: the line that they are in, and one for the host.
    for (number, prefix) in (4..).zip(["3fff:300::/32", "3fff:301::/32", "3fff:302::/32", "3fff:303::/48"]) {
        writer.insert(1, v6(prefix), value(number)).unwrap();
    }
    let before = used(&writer);
    writer.insert(1, v6("3fff:302:5:6:7::8/128"), value(5)).unwrap();
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    assert_eq!(used(&writer), before + 64);
}

#[test]
fn a_vrf_with_a_few_ipv6_routes_takes_less_than_32_kib() {
    let mut writer = small::<u128, Writer6>(100 << 10);
    let before = writer.usage().resident_bytes;
    writer.insert(1, v6("::/0"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes, before);
    for (number, prefix) in (1..).zip(["2001:db8::/32", "2001:db8::7/128", "3fff::/48", "fd00::/64"]) {
        writer.insert(1, v6(prefix), value(number)).unwrap();
    }
    assert!(writer.usage().resident_bytes - before <= 32 << 10);
}
