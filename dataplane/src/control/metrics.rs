//! What a scrape reads: the counters and gauges that `show` knows, under Prometheus' names.
//!
//! Nothing is kept for it: each scrape asks what `show` asks and is then forgotten, so the packet path does not know
//! that it is watched. Of each reason, verdict and state there is a line also while it is zero, or the first packet
//! dropped for it would be no increase. A label's value is the word that `show` uses. No addresses: they would make a
//! line of each neighbour, and some are nobody else's business.

mod qos;

use super::host::{Host, NeighState};
use super::http::Format;
use super::plan::Plan;
use super::resolve::Resolver;
use super::show::{View, state};
use crate::config::Config;
use crate::packet::{DropReason, Family, PortId, PuntReason, TunnelId, Vrf};
use crate::qos::Histogram;
use crate::stats::{Page, PortTotals, Totals, TunnelTotals};
use crate::tables::Resolution;
use lpm::{Usage, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt;
use steering::Verdict;

/// Before every name.
const PREFIX: &str = "penstock";
const PACKETS: &str = "packets";
const BYTES: &str = "bytes";

/// The counters of an interface: name, unit, help and which it is.
type PortCounter = (&'static str, &'static str, &'static str, fn(&PortTotals) -> u64);
const PORT_COUNTERS: [PortCounter; 7] = [
    ("interface_received", PACKETS, "Frames from the wire.", |port| port.received_packets),
    ("interface_received", BYTES, "Octets of them, Ethernet header included.", |port| port.received_bytes),
    ("interface_sent", PACKETS, "Frames to the wire.", |port| port.sent_packets),
    ("interface_sent", BYTES, "Octets of them, all headers included.", |port| port.sent_bytes),
    ("interface_dropped", PACKETS, "Packets received here and dropped, for any reason.", |port| port.dropped),
    ("interface_missed", PACKETS, "Frames that arrived and that no worker has seen: a ring was full.", |port| {
        port.missed
    }),
    ("interface_unsent", PACKETS, "Frames counted as sent that the kernel did not take.", |port| port.unsent),
];

/// The same of a tunnel.
type TunnelCounter = (&'static str, &'static str, &'static str, fn(&TunnelTotals) -> u64);
const TUNNEL_COUNTERS: [TunnelCounter; 6] = [
    ("tunnel_encapsulated", PACKETS, "Packets that went into the tunnel.", |tunnel| tunnel.encapsulated_packets),
    ("tunnel_encapsulated", BYTES, "Octets of them: inner IP.", |tunnel| tunnel.encapsulated_bytes),
    ("tunnel_decapsulated", PACKETS, "Packets that came out of the tunnel.", |tunnel| tunnel.decapsulated_packets),
    ("tunnel_decapsulated", BYTES, "Octets of them: inner IP.", |tunnel| tunnel.decapsulated_bytes),
    ("tunnel_dropped", PACKETS, "Packets that came out of the tunnel and were dropped.", |tunnel| tunnel.dropped),
    ("tunnel_ecn_alarm", PACKETS, "Packets whose outer and inner ECN should not meet (RFC 6040).", |tunnel| {
        tunnel.ecn_alarms
    }),
];

/// What the routing tables take: name, unit, help and which it is.
type FibGauge = (&'static str, Option<&'static str>, &'static str, fn(&Usage) -> usize);
const FIB_GAUGES: [FibGauge; 5] = [
    ("fib_prefixes", None, "Prefixes in the workers' table, all VRFs together.", |fib| fib.prefixes),
    ("fib_used", Some(BYTES), "Octets of the table that lookups can reach.", |fib| fib.used_bytes),
    ("fib_retired", Some(BYTES), "Octets of the table that wait until no worker reads them.", |fib| fib.retired_bytes),
    ("fib_limit", Some(BYTES), "Octets that the table may use.", |fib| fib.limit_bytes),
    ("fib_resident", Some(BYTES), "Octets of memory behind the table.", |fib| fib.resident_bytes),
];

/// All metrics of one moment.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Metric>);

/// One name, and a value for each set of labels.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Labels, Measure)>,
}

/// What one set of labels has.
#[derive(Debug)]
enum Measure {
    Number(u64),
    Delays(Box<Histogram>),
}

type Labels = Vec<(&'static str, String)>;

impl Metric {
    fn add(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.push(labels, Measure::Number(value));
    }

    fn push(&mut self, labels: &[(&'static str, &str)], measure: Measure) {
        self.values.push((labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), measure));
    }
}

impl Metrics {
    /// Of a running gateway, now.
    pub fn of(view: &View<'_>) -> Self {
        let View { config, plan, resolver, host, .. } = *view;
        let mut metrics = Self::default();
        metrics.metric("build", None, "The version that runs.", MetricType::Info).add(&[("version", VERSION)], 1);
        metrics.gauge("uptime", Some("seconds"), "Since the start.").add(&[], view.uptime.as_secs());
        metrics.gauge("workers", None, "Worker threads.").add(&[], view.pages.len() as u64);
        metrics.fates(&Totals::of(view.pages()));
        metrics.interfaces(view);
        metrics.tunnels(config, plan, resolver, || view.pages());
        metrics.routes(config, plan, resolver);
        metrics.neighbours(config, plan, host);
        metrics.rules(config, || view.pages());
        metrics.policers(config, || view.pages());
        metrics.queues(config, &view.team.borrow_mut().shapers());
        metrics
    }

    /// As a page. Its lines end in LF.
    pub fn write(self, format: Format) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        let written = match format {
            Format::Prometheus => prometheus_text::encode(&mut page, &registry),
            Format::OpenMetrics => text::encode(&mut page, &registry),
        };
        written.expect("a String takes whatever is written");
        page
    }

    fn metric(&mut self, name: &'static str, unit: Option<&str>, help: &'static str, kind: MetricType) -> &mut Metric {
        let unit = unit.map(|unit| Unit::Other(unit.into()));
        self.0.push_mut(Metric { name, unit, help, kind, values: Vec::new() })
    }

    fn counter(&mut self, name: &'static str, unit: Option<&str>, help: &'static str) -> &mut Metric {
        self.metric(name, unit, help, MetricType::Counter)
    }

    fn gauge(&mut self, name: &'static str, unit: Option<&str>, help: &'static str) -> &mut Metric {
        self.metric(name, unit, help, MetricType::Gauge)
    }

    /// `received + originated = forwarded + punted + dropped + absorbed + queued`, at a quiet moment.
    fn fates(&mut self, totals: &Totals) {
        for (name, help, value) in [
            ("received", "Packets from interfaces and from the host's side of devices.", totals.received),
            ("originated", "Packets that the gateway made: ICMP errors, further fragments.", totals.originated),
            ("forwarded", "Packets sent.", totals.forwarded),
            ("absorbed", "Packets consumed by the gateway.", totals.absorbed),
        ] {
            self.counter(name, Some(PACKETS), help).add(&[], value);
        }
        self.gauge("queued", Some(PACKETS), "Packets that wait now.").add(&[], totals.queued);
        let punted = self.counter("punted", Some(PACKETS), "Packets handed to the kernel.");
        for (reason, count) in PuntReason::ALL.iter().zip(totals.punts) {
            punted.add(&[("reason", reason.name())], count);
        }
        let dropped = self.counter("dropped", Some(PACKETS), "Packets dropped.");
        for (reason, count) in DropReason::ALL.iter().zip(totals.drops) {
            dropped.add(&[("reason", reason.name())], count);
        }
        let help = "ICMP errors owed and not sent: over the rate, or no address to send from.";
        self.counter("icmp_errors_suppressed", None, help).add(&[], totals.icmp_suppressed);
    }

    fn interfaces(&mut self, view: &View<'_>) {
        let name = |at: usize| ("interface", view.config.interfaces[at].name.as_str());
        let all = || 0..view.config.interfaces.len();
        let up = self.gauge("interface_up", None, "Whether it is taken, switched on and has carrier.");
        for at in all() {
            up.add(&[name(at)], u64::from(view.interface_state(at) == "up"));
        }
        let zero_copy = self.gauge("interface_zero_copy", None, "Whether its driver writes into packet memory itself.");
        for at in all() {
            let attached = view.attached(at);
            zero_copy.add(&[name(at)], u64::from(attached.is_some_and(|attached| attached.zero_copy)));
        }
        let totals: Vec<_> = all().map(|at| PortTotals::of(view.pages(), PortId(at as u16))).collect();
        for (metric, unit, help, read) in PORT_COUNTERS {
            let metric = self.counter(metric, Some(unit), help);
            totals.iter().enumerate().for_each(|(at, totals)| metric.add(&[name(at)], read(totals)));
        }
        let steered = self.counter("interface_steered", Some(PACKETS), "Frames by the verdict of the XDP program.");
        for at in all() {
            // What the kernel does not tell now, it tells the next time.
            let Ok(counters) = view.xdp.counters(at as u16) else { continue };
            for verdict in Verdict::ALL {
                steered.add(&[name(at), ("verdict", verdict.name())], counters[usize::from(verdict.code())]);
            }
        }
    }

    fn tunnels<'p, P: Iterator<Item = &'p Page>>(
        &mut self,
        config: &Config,
        plan: &Plan,
        resolver: &Resolver,
        pages: impl Fn() -> P,
    ) {
        let tunnels = || config.tunnels.iter().zip((0..).map(TunnelId));
        let up = self.gauge("tunnel_up", None, "Whether the way to its remote end is known.");
        for (tunnel, id) in tunnels() {
            up.add(&[("tunnel", &tunnel.name)], u64::from(resolver.tunnel(id) == Some(Resolution::Ready)));
        }
        let mtu = self.gauge("tunnel_mtu", Some(BYTES), "The largest inner packet that fits now.");
        for (tunnel, id) in tunnels() {
            mtu.add(&[("tunnel", &tunnel.name)], Resolver::mtu(config, plan, id).into());
        }
        let totals: Vec<_> = tunnels().map(|(_, id)| TunnelTotals::of(pages(), id)).collect();
        for (metric, unit, help, read) in TUNNEL_COUNTERS {
            let metric = self.counter(metric, Some(unit), help);
            tunnels()
                .zip(&totals)
                .for_each(|((tunnel, _), totals)| metric.add(&[("tunnel", &tunnel.name)], read(totals)));
        }
    }

    fn routes(&mut self, config: &Config, plan: &Plan, resolver: &Resolver) {
        let routes = self.gauge("routes", None, "Prefixes with a route, by the source that won.");
        for (at, vrf) in config.vrfs.iter().enumerate() {
            for (family, source, count) in plan.rib.counts(Vrf(at as u16)) {
                routes.add(&[("vrf", &vrf.name), ("family", name(family)), ("source", source)], count as u64);
            }
        }
        let usage = resolver.usage();
        for (metric, unit, help, read) in FIB_GAUGES {
            let metric = self.gauge(metric, unit, help);
            for (family, usage) in [Family::V4, Family::V6].into_iter().zip(&usage) {
                metric.add(&[("family", name(family))], read(usage) as u64);
            }
        }
        let help = "Distinct next hops of routes, and among them distinct sets of several.";
        self.gauge("next_hops", None, help).add(&[], plan.rib.ways().count() as u64);
        self.gauge("next_hops_limit", None, "How many there may be.").add(&[], Value::MAX.into());
        let mut states = BTreeMap::from(
            [Resolution::Ready, Resolution::Waiting, Resolution::Failed].map(|resolution| (state(resolution), 0_u64)),
        );
        for resolution in resolver.resolutions() {
            *states.entry(state(resolution)).or_default() += 1;
        }
        let adjacencies =
            self.gauge("adjacencies", None, "Where workers may send packets, by how far that is resolved.");
        states.into_iter().for_each(|(state, count)| adjacencies.add(&[("state", state)], count));
    }

    /// Of the interfaces and tunnels' devices that are there.
    fn neighbours(&mut self, config: &Config, plan: &Plan, host: &Host) {
        let there = plan.ifindex.iter().zip(&plan.ports).take(config.interfaces.len() + config.tunnels.len());
        let mut counts: BTreeMap<_, _> =
            there.filter_map(|(index, port)| Some(((*index)?, (&port.name, [0_u64; NeighState::ALL.len()])))).collect();
        for (&(index, _), neighbour) in &host.neighbours {
            if let Some((_, counts)) = counts.get_mut(&index) {
                counts[neighbour.state as usize] += 1;
            }
        }
        let neighbours = self.gauge("neighbours", None, "Neighbours that the kernel knows.");
        for (name, counts) in counts.into_values() {
            for (state, count) in NeighState::ALL.iter().zip(counts) {
                neighbours.add(&[("interface", name), ("state", state.name())], count);
            }
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Metric { name, unit, help, kind, values } in &self.0 {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, measure) in values {
                match (kind, measure) {
                    (MetricType::Info, _) => metric.encode_info(labels)?,
                    (MetricType::Counter, Measure::Number(value)) => {
                        metric.encode_family(labels)?.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
                    }
                    (_, Measure::Number(value)) => metric.encode_family(labels)?.encode_gauge(value)?,
                    (_, Measure::Delays(delays)) => qos::encode(delays, metric.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::offline;
    use crate::stats::{Room, Tally};

    const CONFIG: &str = r#"
[vrf.red]
[interface.wan0]
address = ["192.0.2.1/24", "2001:db8::1/64"]
[tunnel.'say-"b"\']
type = "vxlan"
vni = 1
local = "192.0.2.1"
remote = "192.0.2.2"
remote_mac = "02:00:00:00:00:01"
[[route]]
prefix = "10.0.0.0/8"
via = "blackhole"
"#;

    /// The metrics that need no kernel.
    fn metrics() -> Metrics {
        let config: Config = CONFIG.parse().expect("it is legal");
        let host = offline::host(&config);
        let mut plan = Plan::default();
        let delta = plan.renew(&config, &host);
        let mut resolver = Resolver::new().expect("there is memory");
        resolver.update(&config, &mut plan, &delta, &mut |_, _| true).expect("it fits");
        let mut tally = Tally::new(Room { ports: 3, tunnels: 1, adjacencies: 1, ..Room::default() });
        tally.received(PortId(0), 3, 300);
        tally.encapsulated(TunnelId(0), 80);
        tally.dropped(DropReason::NoRoute, PortId(0), TunnelId(0));
        let page = tally.page();
        let mut metrics = Metrics::default();
        metrics.metric("build", None, "The version that runs.", MetricType::Info).add(&[("version", "1.2")], 1);
        metrics.fates(&Totals::of([&*page]));
        metrics.tunnels(&config, &plan, &resolver, || [&*page].into_iter());
        metrics.routes(&config, &plan, &resolver);
        metrics.neighbours(&config, &plan, &host);
        metrics
    }

    #[track_caller]
    pub fn check(page: &str, lines: &[&str]) {
        for line in lines {
            let count = page.lines().filter(|there| there == line).count();
            assert_eq!(count, 1, "{line}\nin\n{page}");
        }
    }

    #[test]
    fn each_value_has_its_line_with_unit_and_labels() {
        let page = metrics().write(Format::Prometheus);
        check(
            &page,
            &[
                "# TYPE penstock_build_info gauge",
                "penstock_build_info{version=\"1.2\"} 1",
                "# HELP penstock_received_packets_total Packets from interfaces and from the host's side of devices.",
                "# TYPE penstock_received_packets_total counter",
                "penstock_received_packets_total 3",
                "penstock_dropped_packets_total{reason=\"no_route\"} 1",
                "penstock_dropped_packets_total{reason=\"ttl_expired\"} 0",
                "penstock_punted_packets_total{reason=\"local\"} 0",
                "# TYPE penstock_queued_packets gauge",
                "penstock_queued_packets 0",
                r#"penstock_tunnel_encapsulated_bytes_total{tunnel="say-\"b\"\\"} 80"#,
                r#"penstock_tunnel_mtu_bytes{tunnel="say-\"b\"\\"} 1450"#,
                r#"penstock_tunnel_up{tunnel="say-\"b\"\\"} 0"#,
                "penstock_routes{vrf=\"default\",family=\"ipv4\",source=\"static\"} 1",
                "penstock_routes{vrf=\"default\",family=\"ipv4\",source=\"connected\"} 1",
                "penstock_routes{vrf=\"default\",family=\"ipv6\",source=\"address\"} 1",
                "penstock_routes{vrf=\"red\",family=\"ipv6\",source=\"kernel\"} 0",
                "penstock_fib_limit_bytes{family=\"ipv4\"} 268435456",
                "penstock_next_hops_limit 32767",
                "penstock_adjacencies{state=\"neighbour failed\"} 0",
                "penstock_neighbours{interface=\"wan0\",state=\"reachable\"} 0",
            ],
        );
        let reasons = page.lines().filter(|line| line.starts_with("penstock_dropped_packets_total{"));
        assert_eq!(reasons.count(), DropReason::COUNT, "also those that nothing was dropped for");
        assert!(!page.contains("# EOF") && !page.contains("# UNIT"), "not of this format");
    }

    /// What OpenMetrics 1.0 asks beyond that: units that names end in, no sample before its type, no name twice, an end.
    #[test]
    fn open_metrics_has_units_and_an_end() {
        let page = metrics().write(Format::OpenMetrics);
        check(
            &page,
            &[
                "# TYPE penstock_build info",
                "# TYPE penstock_received_packets counter",
                "# UNIT penstock_received_packets packets",
                "penstock_received_packets_total 3",
                "# UNIT penstock_fib_used_bytes bytes",
                "# EOF",
            ],
        );
        assert!(page.ends_with("\n# EOF\n"));
        let mut types: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count, "a name is there twice");
    }
}
