//! Answers of a gateway as tables for people.

use crate::control::server::{Question, RouteQuery};
use serde_json::Value;

/// Columns of each table: heading, and the path of the value in a row.
type Columns = &'static [(&'static str, &'static str)];

const INTERFACES: Columns = &[
    ("interface", "name"),
    ("state", "state"),
    ("mode", "mode"),
    ("queues", "queues"),
    ("vrf", "vrf"),
    ("mtu", "mtu"),
    ("fallback", "fallback"),
    ("rpf", "rpf"),
    ("rx packets", "counters/received_packets"),
    ("rx bytes", "counters/received_bytes"),
    ("tx packets", "counters/sent_packets"),
    ("tx bytes", "counters/sent_bytes"),
    ("dropped", "counters/dropped"),
    ("missed", "counters/missed"),
    ("unsent", "counters/unsent"),
];
const TUNNELS: Columns = &[
    ("tunnel", "name"),
    ("type", "type"),
    ("id", "id"),
    ("inner", "inner"),
    ("local", "local"),
    ("remote", "remote"),
    ("mac", "mac"),
    ("vrf", "vrf"),
    ("mtu", "mtu"),
    ("state", "state"),
    ("encap packets", "counters/encapsulated_packets"),
    ("encap bytes", "counters/encapsulated_bytes"),
    ("decap packets", "counters/decapsulated_packets"),
    ("decap bytes", "counters/decapsulated_bytes"),
    ("dropped", "counters/dropped"),
];
const ROUTES: Columns =
    &[("vrf", "vrf"), ("prefix", "prefix"), ("source", "source"), ("via", "via"), ("state", "state")];
const NEIGHBOURS: Columns = &[("interface", "interface"), ("address", "address"), ("mac", "mac"), ("state", "state")];
const POLICERS: Columns = &[
    ("policer", "name"),
    ("kind", "kind"),
    ("of", "of"),
    ("green packets", "green/packets"),
    ("green bytes", "green/bytes"),
    ("yellow packets", "yellow/packets"),
    ("yellow bytes", "yellow/bytes"),
    ("red packets", "red/packets"),
    ("red bytes", "red/bytes"),
];
const QOS: Columns = &[
    ("interface", "interface"),
    ("tunnel", "tunnel"),
    ("tenant", "tenant"),
    ("class", "class"),
    ("bit/s", "rate_bits"),
    ("packets", "sent_packets"),
    ("bytes", "sent_bytes"),
    ("queue bytes", "queue_bytes"),
    ("marked", "marked"),
    ("dropped early", "dropped/early_drop"),
    ("queue full", "dropped/queue_full"),
    ("throttled", "throttled"),
];
const DELAYS: Columns = &[
    ("interface", "interface"),
    ("class", "class"),
    ("delay p50 ns", "delay_p50_ns"),
    ("p99 ns", "delay_p99_ns"),
    ("p99.9 ns", "delay_p999_ns"),
];
const ACL: Columns = &[
    ("rule", "rule"),
    ("line", "line"),
    ("action", "action"),
    ("packets", "counters/packets"),
    ("bytes", "counters/bytes"),
    ("match", "match"),
];

/// An answer, laid out.
pub fn table(question: &Question, answer: &Value) -> String {
    match question {
        Question::Interfaces => rows(&answer["interfaces"], INTERFACES),
        Question::Tunnels => rows(&answer["tunnels"], TUNNELS),
        Question::Routes(query) => routes(query, answer),
        Question::Neighbours => rows(&answer["neighbours"], NEIGHBOURS),
        Question::Policers => rows(&answer["policers"], POLICERS),
        Question::Acl => rows(&answer["acl"], ACL),
        Question::Qos => qos(answer),
        Question::Drops => drops(answer),
    }
}

/// Tenants' queues, then how long packets waited.
fn qos(answer: &Value) -> String {
    let list = |key: &str| answer[key].as_array().is_some_and(|rows| !rows.is_empty());
    if !list("qos") {
        return "nothing is queued by tenant and class\n".to_owned();
    }
    let mut text = rows(&answer["qos"], QOS);
    if list("delays") {
        text.push('\n');
        text.push_str(&rows(&answer["delays"], DELAYS));
    }
    text
}

/// Routes, the members of those that several share, and below what there are in all.
fn routes(query: &RouteQuery, answer: &Value) -> String {
    let list = answer["routes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = match (list, query.lookup, query.prefix) {
        ([], Some(address), _) => format!("no route for {address}\n"),
        ([], None, Some(prefix)) => format!("no route within {prefix}\n"),
        _ => rows(&answer["routes"], ROUTES),
    };
    if query.lookup.is_some() {
        for member in list.iter().flat_map(|route| route["members"].as_array().into_iter().flatten()) {
            let share = member["share"].as_f64().unwrap_or(0.0) * 100.0;
            let state = if member["up"] == true { "" } else { ", down" };
            text.push_str(&format!(
                "  {share:5.1} %  {} (weight {}{state})\n",
                cell(member.get("via")),
                member["weight"]
            ));
        }
        return text;
    }
    let counts = answer["counts"].as_array().into_iter().flatten();
    let counts: Vec<_> = counts.map(|count| format!("{} {}", cell(count.get("vrf")), count["routes"])).collect();
    let fib = &answer["fib"];
    let mib = |family: &str| fib[family]["bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    text.push_str(&format!(
        "routes: {}; next hops: {}; tables: IPv4 {:.1} MiB, IPv6 {:.1} MiB\n",
        counts.join(", "),
        fib["next_hops"],
        mib("ipv4"),
        mib("ipv6"),
    ));
    text
}

fn rows(list: &Value, columns: Columns) -> String {
    let mut lines = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    for row in list.as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|(_, path)| cell(row.pointer(&format!("/{path}")))).collect());
    }
    aligned(&lines)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Numbers to the right, all else to the left.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let number = |at: usize| lines.len() > 1 && lines[1..].iter().all(|line| line[at].parse::<u64>().is_ok());
    let numbers: Vec<bool> = (0..columns).map(number).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(at, cell)| {
            let width = widths[at];
            if numbers[at] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn drops(answer: &Value) -> String {
    let mut lines = Vec::new();
    for name in ["received", "originated", "forwarded", "punted", "absorbed", "queued"] {
        lines.push(vec![name.to_owned(), cell(answer.get(name))]);
    }
    let reasons = answer["dropped"].as_object();
    let dropped: u64 = reasons.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    lines.push(vec!["dropped".into(), dropped.to_string()]);
    for (reason, count) in reasons.into_iter().flatten() {
        lines.push(vec![format!("  {reason}"), count.to_string()]);
    }
    lines.push(vec!["icmp errors not sent".into(), cell(answer.get("icmp_suppressed"))]);
    lines.insert(0, vec!["packets".into(), "count".into()]);
    aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_stand_to_the_right_and_what_is_unknown_is_a_dash() {
        let answer = json!({ "neighbours": [
            { "interface": "wan0", "address": "192.0.2.7", "mac": "02:00:00:00:00:07", "state": "stale" },
            { "interface": "lan0", "address": "2001:db8::1", "mac": null, "state": "failed" },
        ]});
        let expected = "interface  address      mac                state\n\
                        wan0       192.0.2.7    02:00:00:00:00:07  stale\n\
                        lan0       2001:db8::1  -                  failed\n";
        assert_eq!(table(&Question::Neighbours, &answer), expected);
        let answer = json!({ "received": 12, "forwarded": 9, "dropped": { "no_route": 3 } });
        assert!(table(&Question::Drops, &answer).contains("\n  no_route"));
        assert_eq!(aligned(&[vec!["n".into()], vec!["5".into()], vec!["12".into()]]), " n\n 5\n12\n");
    }
}
