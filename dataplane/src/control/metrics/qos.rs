//! What the access list, policers and queues did, as `show acl`, `show policers` and `show qos` tell it.
//!
//! Of rules, policers and colours there is a line also while it is zero. Of queues there is none before the first packet:
//! a file of thousands of tenants and tunnels has millions of pairs, of which few are in use.

use super::{BYTES, Measure, Metrics, PACKETS};
use crate::config::Config;
use crate::control::shaping;
use crate::packet::DropReason;
use crate::qos::policer::Colour;
use crate::qos::{ClassReport, Histogram, LeafReport, PortReport};
use crate::stats::{CountTotals, Page};
use crate::tables::acl::Action;
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// Pairs of a tenant and its way out that are told one by one, of all interfaces together: a page must have an end.
const PAIRS: usize = 4096;
const SECONDS: &str = "seconds";

/// Packets and octets that met something: unit, help and which it is.
type MetCounter = (&'static str, &'static str, fn(&CountTotals) -> u64);
const RULE_COUNTERS: [MetCounter; 2] = [
    (PACKETS, "Packets by the rule of the access list that they met first, or none.", |met| met.packets),
    (BYTES, "Octets of them: IP.", |met| met.bytes),
];
const COLOUR_COUNTERS: [MetCounter; 2] = [
    (PACKETS, "Packets by the colour that a policer gave them, and what happens to that.", |met| met.packets),
    (BYTES, "Octets of them: IP.", |met| met.bytes),
];

/// The counters of a class of a pair: unit, help and which it is.
type ClassCounter = (&'static str, &'static str, fn(&ClassReport) -> u64);
const CLASS_COUNTERS: [ClassCounter; 2] = [
    (PACKETS, "Packets of a tenant that its queues have let go.", |class| class.sent_packets),
    (BYTES, "Octets of them, as `[qos] account` counts.", |class| class.sent_octets),
];

/// The drops of a class of a pair.
type Drops = (DropReason, fn(&ClassReport) -> u64);
const DROPS: [Drops; 2] =
    [(DropReason::EarlyDrop, |class| class.dropped), (DropReason::QueueFull, |class| class.refused)];

impl Metrics {
    /// What met each rule of the access list, known by its number: which line that is, `show acl` tells.
    pub(super) fn rules<'p, P: Iterator<Item = &'p Page>>(&mut self, config: &Config, pages: impl Fn() -> P) {
        let rules = config.acl.iter().zip(1..).map(|(entry, number)| (format!("{number}"), entry.rule.action));
        let others = (!config.acl.is_empty()).then(|| ("none".to_owned(), Action::Permit));
        let met = |(at, (rule, action))| (rule, action, CountTotals::of_rule(pages(), at));
        let rules: Vec<_> = rules.chain(others).enumerate().map(met).collect();
        for (unit, help, read) in RULE_COUNTERS {
            let metric = self.counter("acl_met", Some(unit), help);
            for (rule, action, met) in &rules {
                metric.add(&[("rule", rule), ("action", action.name())], read(met));
            }
        }
    }

    /// What policers made of packets.
    pub(super) fn policers<'p, P: Iterator<Item = &'p Page>>(&mut self, config: &Config, pages: impl Fn() -> P) {
        for (unit, help, read) in COLOUR_COUNTERS {
            let metric = self.counter("policer_coloured", Some(unit), help);
            for (at, policer) in config.policers.iter().enumerate() {
                for colour in Colour::ALL {
                    let action = policer.profile.action(colour).name();
                    let labels = [("policer", &*policer.name), ("colour", colour.name()), ("action", action)];
                    metric.add(&labels, read(&CountTotals::of_colour(pages(), at, colour)));
                }
            }
        }
    }

    /// How the queues of interfaces with a shaper do.
    pub(super) fn queues(&mut self, config: &Config, reports: &[PortReport]) {
        let interface = |report: &PortReport| ("interface", &*config.interfaces[report.port.index()].name);
        let help = "Packets that wait for an interface with a shaper.";
        let waiting = self.gauge("qos_waiting", Some(PACKETS), help);
        reports.iter().for_each(|report| waiting.add(&[interface(report)], report.waiting as u64));
        let help = "Pairs of a tenant and its way out that have had packets: the first 4096 have lines of their own.";
        let pairs = self.gauge("qos_pairs", None, help);
        reports.iter().for_each(|report| pairs.add(&[interface(report)], report.leaves.len() as u64));
        self.pairs(config, reports, interface);
        let classes = shaping::class_names(config);
        let help = "How long packets waited for an interface; the sum is right to a sixteenth.";
        let delays = self.metric("qos_delay", Some(SECONDS), help, MetricType::Histogram);
        for report in reports {
            let had_packets = |delays: &Histogram| *delays != Histogram::default();
            for (class, histogram) in classes.iter().zip(&report.delays).filter(|(_, delays)| had_packets(delays)) {
                delays.push(&[interface(report), ("class", class)], Measure::Delays(Box::new(*histogram)));
            }
        }
    }

    /// What each tenant sent by each way, by class: an empty `tunnel` is the interface itself.
    fn pairs<'n>(
        &mut self,
        config: &'n Config,
        reports: &[PortReport],
        interface: impl Fn(&PortReport) -> (&'static str, &'n str),
    ) {
        let (tenants, classes) = (shaping::tenant_names(config), shaping::class_names(config));
        let pair = |report: &PortReport, leaf: &LeafReport| {
            let tunnel = leaf.tunnel.map_or("", |tunnel| &*config.tunnels[tunnel.index()].name);
            [interface(report), ("tunnel", tunnel), ("tenant", tenants[leaf.tenant.index()])]
        };
        let pairs = || reports.iter().flat_map(|report| report.leaves.iter().map(move |leaf| (report, leaf)));
        let help = "Whether a limit of the tenant, or of its way out, holds it back now.";
        let throttled = self.gauge("qos_throttled", None, help);
        for (report, leaf) in pairs().take(PAIRS) {
            throttled.add(&pair(report, leaf), leaf.throttled.into());
        }
        let add = |metric: &mut super::Metric, reason: Option<DropReason>, read: fn(&ClassReport) -> u64| {
            for (report, leaf) in pairs().take(PAIRS) {
                let [interface, tunnel, tenant] = pair(report, leaf);
                let had_packets = |class: &ClassReport| *class != ClassReport::default();
                for (name, class) in classes.iter().zip(&leaf.classes).filter(|(_, class)| had_packets(class)) {
                    let labels = [interface, tunnel, tenant, ("class", name)];
                    let reason = reason.map(|reason| ("reason", reason.name()));
                    metric.add(&labels.into_iter().chain(reason).collect::<Vec<_>>(), read(class));
                }
            }
        };
        for (unit, help, read) in CLASS_COUNTERS {
            add(self.counter("qos_sent", Some(unit), help), None, read);
        }
        add(self.gauge("qos_queued", Some(BYTES), "Octets of a tenant that wait."), None, |class| class.queue_octets);
        let marked = self.counter("qos_marked", Some(PACKETS), "Packets that a queue marked as having met congestion.");
        add(marked, None, |class| class.marked);
        let dropped = self.counter("qos_dropped", Some(PACKETS), "Packets that a queue dropped.");
        for (reason, read) in DROPS {
            add(dropped, Some(reason), read);
        }
    }
}

/// As cumulative counts below bounds in seconds.
pub(super) fn encode(delays: &Histogram, mut metric: MetricEncoder<'_>) -> fmt::Result {
    let bounds = Histogram::BOUNDS_NS.iter().map(|ns| *ns as f64 / 1e9).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(delays.counts).collect();
    metric.encode_histogram::<NoLabelSet>(delays.sum_seconds, delays.counts.iter().sum(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;
    use crate::control::http::Format;
    use crate::packet::{Class, PortId, TenantId, TunnelId};
    use crate::stats::{Room, Tally};

    const CONFIG: &str = r#"
[interface.lan0]
[interface.wan0]
rate = "10G"
[tunnel.vpn]
type = "ipip"
local = "192.0.2.1"
remote = "198.51.100.7"
[[acl]]
action = "reject"
dscp = 1
[[acl]]
action = "deny"
dscp = 2
[policer.p]
kind = "rfc2698"
cir = "1G"
pir = "2G"
exceed = { dscp = 8 }
[tenant.red]
match = { source = "203.0.113.0/24" }
[tenant.blue]
match = { source = "198.51.100.0/24" }
[qos]
classes = "gpu-gateway"
"#;

    fn config() -> Config {
        CONFIG.parse().expect("it is legal")
    }

    /// Red has sent into the tunnel, and of another class has something to send; nobody else has sent.
    fn report(pairs: usize) -> PortReport {
        let mut leaf = LeafReport {
            tenant: TenantId(1),
            tunnel: Some(TunnelId(0)),
            throttled: true,
            classes: [ClassReport::default(); Class::COUNT],
        };
        leaf.classes[0] = ClassReport { sent_packets: 3, sent_octets: 300, marked: 4, ..ClassReport::default() };
        leaf.classes[5] = ClassReport { queue_octets: 77, dropped: 5, refused: 6, ..ClassReport::default() };
        let direct = LeafReport { tunnel: None, throttled: false, ..leaf.clone() };
        let mut delays = [Histogram::default(); Class::COUNT];
        delays[0].counts[0] = 1;
        delays[0].counts[23] = 2;
        delays[0].sum_seconds = 10.5;
        PortReport {
            port: PortId(1),
            waiting: 1,
            leaves: [leaf, direct].into_iter().cycle().take(pairs).collect(),
            delays_ns: [[None; 3]; Class::COUNT],
            delays,
        }
    }

    #[test]
    fn rules_and_colours_are_counted_also_while_nothing_met_them() {
        let mut tally = Tally::new(Room { rules: 2, policers: 1, ..Room::default() });
        tally.rule_met(1, 100);
        tally.rule_met(2, 60);
        tally.policed(0, Colour::Yellow, 80);
        let (config, page) = (config(), tally.page());
        let mut metrics = Metrics::default();
        metrics.rules(&config, || [&*page].into_iter());
        metrics.policers(&config, || [&*page].into_iter());
        let page = metrics.write(Format::Prometheus);
        check(
            &page,
            &[
                "# TYPE penstock_acl_met_packets_total counter",
                "penstock_acl_met_packets_total{rule=\"1\",action=\"reject\"} 0",
                "penstock_acl_met_packets_total{rule=\"2\",action=\"deny\"} 1",
                "penstock_acl_met_bytes_total{rule=\"2\",action=\"deny\"} 100",
                "penstock_acl_met_bytes_total{rule=\"none\",action=\"permit\"} 60",
                "penstock_policer_coloured_packets_total{policer=\"p\",colour=\"green\",action=\"pass\"} 0",
                "penstock_policer_coloured_packets_total{policer=\"p\",colour=\"yellow\",action=\"dscp\"} 1",
                "penstock_policer_coloured_bytes_total{policer=\"p\",colour=\"yellow\",action=\"dscp\"} 80",
                "penstock_policer_coloured_packets_total{policer=\"p\",colour=\"red\",action=\"drop\"} 0",
            ],
        );
    }

    #[test]
    fn without_rules_nothing_is_said_of_packets_that_meet_none() {
        let page = Tally::new(Room::default()).page();
        let mut metrics = Metrics::default();
        metrics.rules(&"[interface.lan0]\n".parse().expect("it is legal"), || [&*page].into_iter());
        assert!(!metrics.write(Format::Prometheus).contains("rule="));
    }

    #[test]
    fn queues_are_told_by_interface_tunnel_tenant_and_class_once_they_have_had_packets() {
        let mut metrics = Metrics::default();
        metrics.queues(&config(), &[report(2)]);
        let page = metrics.write(Format::Prometheus);
        let classes = shaping::class_names(&config());
        let of = |tunnel: &str, class: usize| {
            format!("{{interface=\"wan0\",tunnel=\"{tunnel}\",tenant=\"red\",class=\"{}\"}}", classes[class])
        };
        let by_class = [
            format!("penstock_qos_sent_packets_total{} 3", of("vpn", 0)),
            format!("penstock_qos_sent_bytes_total{} 300", of("vpn", 0)),
            format!("penstock_qos_sent_packets_total{} 0", of("vpn", 5)),
            format!("penstock_qos_queued_bytes{} 77", of("vpn", 5)),
            format!("penstock_qos_queued_bytes{} 0", of("", 0)),
            format!("penstock_qos_marked_packets_total{} 4", of("vpn", 0)),
            format!("penstock_qos_marked_packets_total{} 0", of("", 5)),
            format!(
                "penstock_qos_dropped_packets_total{},reason=\"early_drop\"}} 5",
                of("vpn", 5).trim_end_matches('}')
            ),
            format!("penstock_qos_dropped_packets_total{},reason=\"queue_full\"}} 6", of("", 5).trim_end_matches('}')),
        ];
        check(&page, &by_class.each_ref().map(String::as_str));
        let delay = format!("{{interface=\"wan0\",class=\"{}\"", classes[0]);
        check(
            &page,
            &[
                "penstock_qos_waiting_packets{interface=\"wan0\"} 1",
                "penstock_qos_pairs{interface=\"wan0\"} 2",
                "penstock_qos_throttled{interface=\"wan0\",tunnel=\"vpn\",tenant=\"red\"} 1",
                "penstock_qos_throttled{interface=\"wan0\",tunnel=\"\",tenant=\"red\"} 0",
                "# TYPE penstock_qos_delay_seconds histogram",
                &format!("penstock_qos_delay_seconds_bucket{delay},le=\"1.015e-06\"}} 1"),
                &format!("penstock_qos_delay_seconds_bucket{delay},le=\"4.294967287\"}} 1"),
                &format!("penstock_qos_delay_seconds_bucket{delay},le=\"+Inf\"}} 3"),
                &format!("penstock_qos_delay_seconds_count{delay}}} 3"),
                &format!("penstock_qos_delay_seconds_sum{delay}}} 10.5"),
            ],
        );
        let silent = [&*classes[1], "tenant=\"default\"", "lan0"];
        assert!(silent.iter().all(|name| !page.contains(name)), "what had no packet\n{page}");
    }

    #[test]
    fn a_page_has_an_end_and_says_how_much_it_leaves_out() {
        let mut metrics = Metrics::default();
        metrics.queues(&config(), &[report(PAIRS - 1), report(PAIRS)]);
        let lines = |name: &str| {
            let of_name = metrics.0.iter().filter(|metric| metric.name == name);
            of_name.map(|metric| metric.values.len()).collect::<Vec<_>>()
        };
        assert_eq!(lines("qos_throttled"), [PAIRS]);
        assert_eq!(lines("qos_sent"), [2 * PAIRS; 2], "two classes of each");
        check(&metrics.write(Format::Prometheus), &["penstock_qos_pairs{interface=\"wan0\"} 4095"]);
    }

    #[test]
    fn open_metrics_has_the_unit_of_delays_and_one_end() {
        let mut metrics = Metrics::default();
        metrics.queues(&config(), &[report(2)]);
        let page = metrics.write(Format::OpenMetrics);
        check(&page, &["# TYPE penstock_qos_delay_seconds histogram", "# UNIT penstock_qos_delay_seconds seconds"]);
        let bounds = page.lines().filter(|line| line.starts_with("penstock_qos_delay_seconds_bucket{"));
        assert_eq!(bounds.count(), Histogram::BOUNDS_NS.len() + 1);
    }
}
