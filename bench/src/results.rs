//! `results.json`: figures by name, so that a program can check them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Less is good: time.
    Lower,
    /// More is good: a rate.
    Higher,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Layer and case, such as `pipeline/vxlan`.
    pub name: String,
    /// The median of all runs.
    pub value: f64,
    /// Unit of the value.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// How many runs the median is of.
    pub runs: usize,
    /// Who ran beside, in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// How many times better than the opponent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Whatever else belongs to it, such as the machine: more fields of the same object.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// Why figures cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {source}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is nothing of criterion's in the directory.
    #[error("{}: no benchmark has left results here; run `cargo bench -p bench` first", .0.display())]
    Empty(PathBuf),
}

/// Puts figures into the file, in the place of those that had their names; all others stay.
///
/// # Errors
///
/// The file is not a list of figures, or cannot be written.
pub fn merge(path: &Path, figures: &[Figure]) -> Result<(), ResultsError> {
    let mut all: BTreeMap<String, Figure> = match std::fs::read(path) {
        Ok(octets) => {
            let old: Vec<Figure> = decode(path, &octets)?;
            old.into_iter().map(|figure| (figure.name.clone(), figure)).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(source) => return Err(ResultsError::File { path: path.into(), source }),
    };
    all.extend(figures.iter().map(|figure| (figure.name.clone(), figure.clone())));
    let all: Vec<_> = all.into_values().collect();
    let text = serde_json::to_string_pretty(&all).expect("numbers and strings have a form in JSON");
    let file = |source| ResultsError::File { path: path.into(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    // Whole or not at all: a reader may look at any time.
    let next = path.with_extension("json.next");
    std::fs::write(&next, text + "\n").map_err(file)?;
    std::fs::rename(&next, path).map_err(file)
}

/// The medians that criterion left in its directory, in nanoseconds per packet, in the order of their names.
///
/// # Errors
///
/// There are none, or a file of criterion's is not as expected.
pub fn of_criterion(directory: &Path) -> Result<Vec<Figure>, ResultsError> {
    let mut figures = Vec::new();
    collect(directory, &mut figures)?;
    if figures.is_empty() {
        return Err(ResultsError::Empty(directory.into()));
    }
    figures.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(figures)
}

fn collect(directory: &Path, figures: &mut Vec<Figure>) -> Result<(), ResultsError> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if entry.file_name().is_some_and(|name| name == "new") {
            figures.push(figure(&entry)?);
        } else {
            collect(&entry, figures)?;
        }
    }
    Ok(())
}

/// The figure of one benchmark's directory `new`.
fn figure(directory: &Path) -> Result<Figure, ResultsError> {
    let benchmark: Benchmark = read(&directory.join("benchmark.json"))?;
    let estimates: Estimates = read(&directory.join("estimates.json"))?;
    let sample: Sample = read(&directory.join("sample.json"))?;
    let packets = benchmark.throughput.and_then(|throughput| throughput.elements);
    Ok(Figure {
        name: benchmark.full_id,
        value: (estimates.median.point_estimate / packets.unwrap_or(1) as f64 * 100.0).round() / 100.0,
        unit: if packets.is_some() { "ns/packet" } else { "ns" }.into(),
        better: Better::Lower,
        runs: sample.times.len(),
        against: None,
        ratio: None,
        details: Map::new(),
    })
}

/// What is read of criterion's files.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Elements>,
}

#[derive(Deserialize)]
struct Elements {
    #[serde(rename = "Elements")]
    elements: Option<u64>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Sample {
    times: Vec<f64>,
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ResultsError> {
    let octets = std::fs::read(path).map_err(|source| ResultsError::File { path: path.into(), source })?;
    decode(path, &octets)
}

fn decode<T: for<'a> Deserialize<'a>>(path: &Path, octets: &[u8]) -> Result<T, ResultsError> {
    serde_json::from_slice(octets).map_err(|source| ResultsError::Content { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("penstock-{name}-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        path
    }

    fn named(name: &str, value: f64) -> Figure {
        let (unit, better) = ("ns/packet".into(), Better::Lower);
        Figure { name: name.into(), value, unit, better, runs: 5, against: None, ratio: None, details: Map::new() }
    }

    #[test]
    fn keeps_the_figures_of_other_benches_and_replaces_its_own() {
        let path = directory("merge").join("deeper/results.json");
        merge(&path, &[named("lab/ipv4", 1.0), named("parse/ipv4", 2.0)]).expect("a new file");
        merge(&path, &[named("parse/ipv4", 3.0)]).expect("an old file");
        let all: Vec<Figure> = read(&path).expect("as written");
        assert_eq!(all, [named("lab/ipv4", 1.0), named("parse/ipv4", 3.0)]);
        std::fs::remove_dir_all(path.ancestors().nth(2).expect("as made above")).expect("removed");
    }

    #[test]
    fn leaves_a_file_alone_that_holds_something_else() {
        let path = directory("foreign").join("results.json");
        std::fs::write(&path, "{}").expect("written");
        assert!(matches!(merge(&path, &[named("a", 1.0)]), Err(ResultsError::Content { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "{}");
        std::fs::remove_dir_all(path.parent().expect("as made above")).expect("removed");
    }

    #[test]
    fn divides_the_median_of_a_batch_by_its_packets() {
        let root = directory("criterion");
        let new = root.join("pipeline/ipv4/new");
        std::fs::create_dir_all(&new).expect("made");
        for (name, text) in [
            ("benchmark.json", r#"{"full_id": "pipeline/ipv4", "throughput": {"Elements": 64}}"#),
            ("estimates.json", r#"{"mean": {"point_estimate": 1.0}, "median": {"point_estimate": 2240.0}}"#),
            ("sample.json", r#"{"iters": [1.0, 2.0], "times": [2240.0, 4480.0]}"#),
        ] {
            std::fs::write(new.join(name), text).expect("written");
        }
        let figures = of_criterion(&root).expect("one benchmark");
        assert_eq!(figures, [Figure { runs: 2, ..named("pipeline/ipv4", 35.0) }]);
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn says_so_where_no_benchmark_ran() {
        let root = directory("empty");
        assert!(matches!(of_criterion(&root), Err(ResultsError::Empty(_))));
        std::fs::remove_dir_all(root).expect("removed");
    }
}
