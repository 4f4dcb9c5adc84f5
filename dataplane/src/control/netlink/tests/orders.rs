//! Orders to the kernel.

use super::*;

#[test]
fn orders_are_carried_out_and_repeating_them_is_fine() {
    in_namespace(|| {
        ip("tuntap add dev tap0 mode tap");
        let mut commander = Commander::open().expect("in the namespace");
        let (tap, _) = commander.link("tap0").expect("asked").expect("there");
        for _ in 0..2 {
            commander.set_mac(tap, [2, 0, 0, 0, 0, 1]).expect("a TAP has one");
            commander.set_mtu(tap, 1450).expect("legal");
            commander.set_up(tap, true).expect("allowed");
            commander.add_address(tap, net("192.0.2.1/24")).expect("free");
            commander.add_address(tap, net("2001:db8::1/64")).expect("free");
        }
        let (_, link) = commander.link("tap0").expect("asked").expect("there");
        assert_eq!((link.mac, link.mtu, link.up), ([2, 0, 0, 0, 0, 1], 1450, true));
        let mut addresses = commander.addresses(tap).expect("asked");
        addresses.retain(|address| !address.to_string().starts_with("fe80:"));
        addresses.sort();
        assert_eq!(addresses, ["192.0.2.1/24", "2001:db8::1/64"].map(net));
        for _ in 0..2 {
            for address in &addresses {
                commander.delete_address(tap, *address).expect("ours");
            }
            commander.set_up(tap, false).expect("allowed");
        }
        assert_eq!(commander.addresses(tap).expect("asked"), []);
        assert_eq!(commander.link("px-none").expect("asked"), None);
    });
}

#[test]
fn a_refusal_is_a_sentence_that_names_the_device() {
    in_namespace(|| {
        let mut commander = Commander::open().expect("in the namespace");
        let (lo, _) = commander.link("lo").expect("asked").expect("there");
        ip("tuntap add dev tun0 mode tun");
        let (tun, _) = commander.link("tun0").expect("asked").expect("there");
        let cases = [
            (commander.set_mtu(tun, 10), "cannot set the MTU of tun0 to 10: Invalid argument (os error 22)"),
            (
                commander.set_mac(tun, [2, 0, 0, 0, 0, 1]),
                "cannot set the MAC of tun0: Operation not supported (os error 95)",
            ),
            (commander.set_up(lo + 1000, true), "cannot set interface 1001 up: No such device (os error 19)"),
        ];
        for (result, sentence) in cases {
            assert_eq!(result.expect_err("impossible").to_string(), sentence);
        }
    });
}
