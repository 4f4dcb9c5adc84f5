//! Marks of congestion: as many as the curve says, on what may carry them (Q12).

use super::lab::{Lab, Offer, spec};
use crate::packet::{DropReason, Exit};
use crate::qos::{Aqm, Codel, Limit, NotCapable, Red};

/// A lab whose class 2 keeps its queue short like this.
fn lab(aqm: Aqm, not_capable: NotCapable) -> Lab {
    let mut spec = spec(None, &[(None, Limit::NONE, 1)]);
    (spec.classes[2].aqm, spec.classes[2].not_capable) = (aqm, not_capable);
    Lab::new(spec)
}

/// Offers so many packets at once.
fn offer(lab: &mut Lab, count: u32, tos: impl Fn(u32) -> u8) {
    (0..count).for_each(|at| lab.offer(Offer { tos: tos(at), flow: at % 4, ..Offer::of(0, 2, 1_000) }));
}

/// Q12: of 100,000 packets at each of a dozen delays, to 2 %, and never fewer at a longer delay.
#[test]
fn marks_are_as_many_as_the_curve_says_and_more_with_delay() {
    for red in [Red::SWITCH, Red::DCQCN_PAPER, Red::BLUEPRINT] {
        let mut lab = lab(Aqm::Red(red), NotCapable::Pass);
        let mut before = 0.0;
        for tenth in 0..=11_u32 {
            let delay = red.start_ns + (red.end_ns - red.start_ns) / 10 * tenth;
            for _ in 0..50 {
                offer(&mut lab, 2_000, |at| 1 + (at % 2) as u8);
                lab.now += u64::from(delay);
                while lab.shaper.waiting() != 0 {
                    lab.poll(usize::MAX);
                }
            }
            assert_eq!((lab.sent.len(), lab.exits.len()), (100_000, 0), "what can be marked is not dropped");
            let share = lab.sent.iter().filter(|sent| sent.tos == 3).count() as f64 / 1e5;
            let slope = f64::from(red.most_permille) / 1e3 * f64::from(tenth) / 10.0;
            let expected = if delay >= red.end_ns { 1.0 } else { slope };
            assert!((share - expected).abs() < 0.02, "{red:?} at {delay}: {share}, not {expected}");
            // Two draws of the same chance are apart by less than this but once in a thousand times.
            assert!(share >= before - 0.007, "{red:?} at {delay}: {share} after {before}");
            before = share;
            lab.sent.clear();
        }
    }
}

/// Q12: with each discipline, what cannot be marked never is, and a mark that came stays; and what can be marked is never
/// dropped instead.
#[test]
fn what_cannot_be_marked_never_is_and_a_mark_is_never_taken_off() {
    let codel = Codel { target_ns: 10_000, interval_ns: 20_000, ce_threshold_ns: None };
    let threshold = Codel { ce_threshold_ns: Some(30_000), ..codel };
    for aqm in [Aqm::Tail, Aqm::Red(Red::SWITCH), Aqm::Codel(codel), Aqm::Codel(threshold), Aqm::FqCodel(codel)] {
        for not_capable in [NotCapable::Pass, NotCapable::Drop] {
            let mut lab = lab(aqm, not_capable);
            // ECN's four values, one a flow; they leave more and more late.
            offer(&mut lab, 2_000, |at| (at % 4) as u8 | 0x68);
            while lab.shaper.waiting() != 0 {
                lab.now += 10_000;
                lab.poll(usize::MAX);
            }
            let mut marked = 0;
            for packet in &lab.sent {
                let came = packet.flow as u8;
                match packet.tos ^ 0x68 {
                    3 if came == 1 || came == 2 => marked += 1,
                    now => assert_eq!(now, came, "after {} ns by {aqm:?}", packet.at - packet.since),
                }
            }
            let dropped: Vec<_> = lab.exits.drain().map(|(packet, exit)| (packet.tos, exit)).collect();
            let other = dropped.iter().find(|it| **it != (0x68, Exit::Drop(DropReason::EarlyDrop)));
            assert_eq!(other, None, "{aqm:?}");
            let lost = dropped.len();
            assert_eq!(lab.sent.len() + lost, 2_000);
            assert_eq!(marked > 0, aqm != Aqm::Tail, "{aqm:?}: {marked} marks");
            assert_eq!(lost > 0, aqm != Aqm::Tail && not_capable == NotCapable::Drop, "{aqm:?}: {lost} drops");
        }
    }
}

/// A packet without delay ends CoDel's wait for an interval above the target (RFC 8289 §5.3), also when the wait began under
/// another plan.
#[test]
fn a_packet_without_delay_begins_the_interval_anew() {
    for reloads in [false, true] {
        let spec = || {
            let mut spec = spec(None, &[(None, Limit::NONE, 1)]);
            spec.classes[2].aqm =
                Aqm::Codel(Codel { target_ns: 1_000_000, interval_ns: 10_000_000, ce_threshold_ns: None });
            spec
        };
        let mut lab = Lab::new(spec());
        let start = lab.now;
        let offer = |lab: &mut Lab, count: usize| {
            lab.offer_together((0..count).map(|_| Offer { tos: 2, ..Offer::of(0, 2, 1_500) }));
        };
        offer(&mut lab, 1);
        let sends = |lab: &mut Lab, ms: u64| {
            lab.now = start + ms * 1_000_000;
            lab.poll(1).iter().map(|sent| sent.tos).collect::<Vec<_>>()
        };
        lab.now = start + 5_000_000;
        offer(&mut lab, 3);
        assert_eq!(sends(&mut lab, 5), [2], "above since now");
        if reloads {
            lab.adopt(spec());
        }
        assert_eq!(sends(&mut lab, 5), [2], "without delay");
        lab.now = start + 14_000_000;
        offer(&mut lab, 3);
        assert_eq!(sends(&mut lab, 14), [2], "above since now");
        assert_eq!(sends(&mut lab, 16), [2], "not for an interval");
        assert_eq!(sends(&mut lab, 25), [3], "for an interval");
    }
}
