//! What holds for every text, and for every value.

use proptest::prelude::*;

use super::faults::BASE;
use super::*;

/// Words that mean something in some place of the file: mutations put them where they do not.
const WORDS: &[&str] = &[
    "\"\"",
    "0",
    "-1",
    "99999999999999999999",
    "\"default\"",
    "\"auto\"",
    "[]",
    "[[]]",
    "{}",
    "[{}]",
    "\"blackhole\"",
    "true",
    "1979-05-27",
    "nan",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "\"ffff::/128\"",
    "\n",
    "=",
    "[[route]]\n",
    "[vrf.x]\n",
    "\"é\"",
    "parent = \"lan0.110\"\n",
    "vlan = 1\n",
    "\"lan0\"",
    "\"site-a\"",
    "\u{0}",
    "table = 254\n",
    "[[route_list]]\n",
    "\"sites.txt\"",
    "[{ group = \"sites\", weight = 3 }, \"blackhole\"]",
    "256",
    "\"GGpps\"",
    "\".Gpps\"",
];

/// About as many lines as the longest file has.
const LINES: usize = 70;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is cut out, doubled or put in: an answer, never a panic; and an error always has a place.
    #[test]
    fn no_text_panics(
        shipped in 0..6_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, 0..WORDS.len() + 2), 0..3),
        values in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(WORDS)), 0..6),
    ) {
        let files = [BASE, include_str!("../../../../configs/vxlan.toml"), include_str!("../../../../configs/ipv6.toml"),
            include_str!("../../../../configs/vrf-vlan.toml"), include_str!("../../../../configs/router.toml"),
            include_str!("../../../../configs/tunnel-group.toml"), include_str!("../../../../configs/qos.toml")];
        let mut text: Vec<char> = files[shipped].chars().collect();
        for (at, cut, what) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            let new: Vec<char> = match WORDS.get(what) {
                Some(word) => word.chars().collect(),
                None if what == WORDS.len() => Vec::new(),
                None => text[at..end].iter().chain(&text[at..end]).copied().collect(),
            };
            text.splice(at..end, new);
        }
        let mut lines: Vec<String> = text.into_iter().collect::<String>().lines().map(str::to_owned).collect();
        // Most cuts leave no TOML at all: a value of another type is still one, and goes deeper.
        for (at, word) in values {
            let Some(line) = lines.get_mut(at.index(LINES)) else { continue };
            if let Some((key, _)) = line.clone().split_once(" = ") {
                *line = format!("{key} = {word}");
            }
        }
        let text = lines.join("\n");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/p.toml");
        match Config::parse(&text, &path) {
            Ok(config) => { crate::check::Report::new(&config, &path).to_string(); }
            Err(error) => {
                let lines = text.split('\n').count();
                let mut here = error.faults().iter().filter(|it| it.file == path);
                prop_assert!(here.all(|it| (1..=lines).contains(&it.line) && it.column >= 1));
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    /// Every packet rate that fits reads back, with every unit that can say it.
    #[test]
    fn a_rate_reads_back(pps in any::<u32>()) {
        for (unit, size) in [("", 1_u64), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)] {
            let (whole, rest) = (u64::from(pps) / size, u64::from(pps) % size);
            let digits = size.ilog10() as usize;
            let fraction = if digits == 0 { String::new() } else { format!(".{rest:0digits$}") };
            let text = format!("{whole}{fraction}{unit}pps");
            prop_assert_eq!(text.parse(), Ok(values::PacketRate(pps)), "{}", text);
        }
    }
}
