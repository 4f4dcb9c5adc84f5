//! What a gateway's metrics say, read as a scraper reads them: over HTTP, and strictly.

use crate::lab::Host;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request to an address of a host, and reads to the end of the answer: its head and its body.
///
/// # Panics
///
/// If there is no answer, or it is none of HTTP/1.1.
#[track_caller]
pub fn ask(host: &Host, address: &str, request: &str) -> (String, String) {
    let address: SocketAddr = address.parse().expect("an address with its port");
    let answer = host.within(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    (head.into(), body.into())
}

/// The metrics of one moment: the value of each name with its labels, as `name{label="value"}`.
#[derive(Clone, Debug)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Asks a gateway as Prometheus does, in each of the two formats: what OpenMetrics demands, and what everybody
    /// reads. Both are checked; the latter is returned.
    ///
    /// # Panics
    ///
    /// If a line is not as its format wants it.
    #[track_caller]
    pub fn of(host: &Host, address: &str) -> Self {
        for (accept, open) in [("Accept: application/openmetrics-text\r\n", true), ("", false)] {
            let (head, body) = ask(host, address, &format!("GET /metrics HTTP/1.1\r\nHost: gateway\r\n{accept}\r\n"));
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}\n{body}");
            assert_eq!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), open, "{head}");
            let scrape = Self::parse(&body, open);
            if !open {
                return scrape;
            }
        }
        unreachable!("the second format is not open")
    }

    /// Reads a page, in the format of OpenMetrics or of Prometheus.
    ///
    /// # Panics
    ///
    /// If a line is not as its format wants it.
    #[track_caller]
    pub fn parse(page: &str, open: bool) -> Self {
        let page = if open { page.strip_suffix("# EOF\n").expect("it has an end") } else { page };
        assert!(page.ends_with('\n'), "the last line is cut");
        let (mut values, mut known) = (BTreeMap::new(), BTreeSet::new());
        // The name that was described last, and its type.
        let (mut family, mut kind) = (String::new(), String::new());
        for line in page.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "HELP", name, _, ..] => {
                    assert!(known.insert(name.to_owned()), "twice: {line}");
                    (family, kind) = (name.into(), String::new());
                }
                ["#", "TYPE", name, what @ ("counter" | "gauge" | "info" | "histogram")] => {
                    assert_eq!((name, kind.as_str()), (family.as_str(), ""), "{line}");
                    kind = what.into();
                }
                ["#", "UNIT", name, unit] => {
                    assert!(open && name == family && name.ends_with(&format!("_{unit}")), "{line}");
                }
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                    let name = &series[..series.find('{').unwrap_or(series.len())];
                    check_labels(&series[name.len()..]);
                    let suffixes: &[_] = match (open, kind.as_str()) {
                        (true, "counter") => &["_total"],
                        (true, "info") => &["_info"],
                        (_, "histogram") => &["_bucket", "_sum", "_count"],
                        _ => &[""],
                    };
                    let suffix = name.strip_prefix(&family).unwrap_or("of another name");
                    assert!(suffixes.contains(&suffix), "not below its own type: {line}");
                    let bounded = [",le=\"", "{le=\""].iter().any(|bound| series.contains(bound));
                    assert_eq!(suffix == "_bucket", bounded, "{line}");
                    assert!(is_name(name) && name.starts_with("penstock_"), "{line}");
                    assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                    let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
                    assert!(values.insert(series.to_owned(), value).is_none(), "twice: {line}");
                }
            }
        }
        let scrape = Self(values);
        scrape.check_histograms();
        scrape
    }

    /// Each ends with all that it counts.
    #[track_caller]
    fn check_histograms(&self) {
        for (series, value) in self.0.iter().filter(|(series, _)| series.contains("le=\"+Inf\"")) {
            let bound = [",le=\"+Inf\"", "le=\"+Inf\",", "{le=\"+Inf\"}"];
            let count =
                bound.iter().fold(series.replacen("_bucket", "_count", 1), |name, bound| name.replace(bound, ""));
            assert_eq!(self.value(&count), *value, "{series}");
        }
    }

    /// The value of a name with its labels.
    ///
    /// # Panics
    ///
    /// If it is not there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} among {:#?}", self.0.keys()))
    }

    /// The sum over all labels of a name.
    ///
    /// # Panics
    ///
    /// If it is not there.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        let of_name =
            |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let values: Vec<f64> = self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {name} among {:#?}", self.0.keys());
        values.iter().sum()
    }

    /// Whether every packet has exactly one fate.
    #[track_caller]
    pub fn balances(&self) -> bool {
        let packets = |fate: &str| self.sum(&format!("penstock_{fate}_packets_total"));
        let fates = ["forwarded", "punted", "dropped", "absorbed"].map(packets).iter().sum::<f64>();
        packets("received") + packets("originated") == fates + self.value("penstock_queued_packets")
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// `{a="x",b="y"}`, or nothing; within the quotes `"`, `\` and line ends are escaped.
#[track_caller]
fn check_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = inside.unwrap_or_else(|| panic!("no labels: {text}"));
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest}"));
        assert!(is_name(name), "{text}");
        let (mut escaped, mut end) = (false, None);
        for (at, c) in after.char_indices() {
            match c {
                _ if escaped => {
                    assert!(matches!(c, '"' | '\\' | 'n'), "{text}");
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        rest = &after[end.unwrap_or_else(|| panic!("no end: {text}")) + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break assert!(rest.is_empty(), "{text}"),
        }
    }
}
