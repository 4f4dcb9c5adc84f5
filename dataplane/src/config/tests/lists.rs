//! Files of prefixes: what they mean, and each line that is wrong named by its file and line.

use super::*;
use std::fs;
use std::time::{Duration, Instant};

/// A folder of its own for one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).unwrap();
    }

    /// Reads `p.toml` of this folder.
    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        self.write("p.toml", text);
        Config::load(self.0.join("p.toml"))
    }

    /// What is wrong, with the folder's name left out.
    fn errors(&self, text: &str) -> Vec<String> {
        let folder = format!("{}/", self.0.display());
        let error = match self.load(text) {
            Ok(_) => return Vec::new(),
            Err(error) => error,
        };
        error.faults().iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

const LIST: &str = "[[route_list]]\nfile = \"a.txt\"\nvia = \"blackhole\"\n";

/// What is wrong with the file of a list.
#[track_caller]
fn wrong_list(test: &str, list: impl AsRef<[u8]>, expected: &[&str]) {
    let folder = Folder::new(test);
    folder.write("a.txt", list);
    assert_eq!(folder.errors(LIST), expected);
}

#[test]
fn a_list_is_a_route_for_each_of_its_lines() {
    let folder = Folder::new("lines");
    folder.write("a.txt", "# a comment\n\n10.0.0.0/8\r\n\t 2001:db8::/32 # both families\n0.0.0.0/0");
    folder.write("b.txt", "10.0.0.0/8\n");
    let absolute = folder.0.join("b.txt");
    let text = format!(
        "[vrf.red]\n[[route]]\nprefix = \"192.0.2.0/24\"\nvia = \"unreachable\"\n{LIST}kernel = false\n\
         [[route_list]]\nfile = {absolute:?}\nvrf = \"red\"\nleak = true\n\
         via = [{{ next_hop = \"192.0.2.1\" }}, {{ next_hop = \"192.0.2.2\", weight = 2 }}]\n"
    );
    let config = folder.load(&text).unwrap_or_else(|error| panic!("{error}"));
    let said: Vec<_> = config
        .routes
        .iter()
        .map(|route| {
            (route.prefix.to_string(), route.vrf, route.kernel, route.leak, route.via.len(), route.place.to_string())
        })
        .collect();
    let at = |name: &str| format!("{}/{name}", folder.0.display());
    let expected = [
        ("192.0.2.0/24", 0, true, false, 1, "line 3".to_owned()),
        ("10.0.0.0/8", 0, false, false, 1, at("a.txt:3")),
        ("2001:db8::/32", 0, false, false, 1, at("a.txt:4")),
        ("0.0.0.0/0", 0, false, false, 1, at("a.txt:5")),
        ("10.0.0.0/8", 1, true, true, 2, at("b.txt:1")),
    ];
    assert_eq!(said, expected.map(|it| (it.0.to_owned(), it.1, it.2, it.3, it.4, it.5)));
    assert_eq!(config.routes[2].place.column, 3);
    assert!(Arc::ptr_eq(&config.routes[1].via, &config.routes[3].via), "the routes of a list share their next hops");
    assert_eq!(config.warnings, []);
}

#[test]
fn a_list_needs_a_file_and_a_next_hop() {
    let folder = Folder::new("needs");
    assert_eq!(
        folder.errors("[[route_list]]\nvia = \"blackhole\"\n"),
        ["p.toml:1:1: [[route_list]]: file is missing: a path of a file with one prefix a line"],
    );
    for value in ["\"\"", "3"] {
        let text = format!("[[route_list]]\nfile = {value}\nvia = \"blackhole\"\n");
        assert_eq!(
            folder.errors(&text),
            [format!("p.toml:2:8: file = {value}: a path of a file with one prefix a line")]
        );
    }
    let missing = "p.toml:2:8: file = \"a.txt\": No such file or directory (os error 2)";
    assert_eq!(folder.errors(LIST), [missing]);
    folder.write("a.txt", "10.0.0.1/8\n");
    let errors = folder.errors("[[route_list]]\nfile = \"a.txt\"\nvrf = \"red\"\n");
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("p.toml:1:1: via: legal: a list of "), "{errors:?}");
    assert_eq!(errors[1], "p.toml:3:7: vrf = \"red\": no such VRF; declared: \"default\"");
    assert!(errors[2].starts_with("a.txt:1:1: prefix = \"10.0.0.1/8\""), "{errors:?}");
}

#[test]
fn a_bad_line_is_named_by_file_and_line() {
    let prefix = "a prefix is an address with its length, such as \"192.0.2.0/24\"";
    wrong_list(
        "bad",
        "10.0.0.0/8\n10.1.0.1/16\n  192.0.2.1 # no length\n192.0.2.0/33\nhello\n2001:db8::1/32\n10.2.0.0/16 10.3.0.0/16\n",
        &[
            "a.txt:2:1: prefix = \"10.1.0.1/16\": has bits set beyond its length; legal: \"10.1.0.0/16\"",
            &format!("a.txt:3:3: prefix = \"192.0.2.1\": {prefix}"),
            &format!("a.txt:4:1: prefix = \"192.0.2.0/33\": {prefix}"),
            &format!("a.txt:5:1: prefix = \"hello\": {prefix}"),
            "a.txt:6:1: prefix = \"2001:db8::1/32\": has bits set beyond its length; legal: \"2001:db8::/32\"",
            &format!("a.txt:7:1: prefix = \"10.2.0.0/16 10.3.0.0/16\": {prefix}"),
        ],
    );
    wrong_list("latin", b"10.0.0.0/8\n# caf\xe9\n", &["a.txt:2:6: not UTF-8"]);
}

#[test]
fn a_duplicate_names_both_lines() {
    wrong_list(
        "twice",
        "10.0.0.0/8\n10.1.0.0/16\n10.0.0.0/8\n",
        &["a.txt:3:1: prefix = \"10.0.0.0/8\": VRF \"default\" has this route, line 1"],
    );
    let folder = Folder::new("duplicates");
    folder.write("a.txt", "10.0.0.0/8\n10.1.0.0/16\n");
    folder.write("b.txt", "10.2.0.0/16\n10.1.0.0/16\n");
    let route = "[[route]]\nprefix = \"10.0.0.0/8\"\nvia = \"unreachable\"\n";
    let text = format!("{LIST}{}{route}[vrf.red]\n", LIST.replace("a.txt", "b.txt"));
    let place = |name: &str| format!("{}/{name}", folder.0.display());
    let errors = folder.load(&text).unwrap_err().to_string();
    let expected = format!(
        "{}:1:1: prefix = \"10.0.0.0/8\": VRF \"default\" has this route, {}:8\n\
         {}:2:1: prefix = \"10.1.0.0/16\": VRF \"default\" has this route, {}:2",
        place("a.txt"),
        place("p.toml"),
        place("b.txt"),
        place("a.txt"),
    );
    assert_eq!(errors, expected);
    let text = LIST.replace("a.txt", "b.txt").replace("via =", "vrf = \"red\"\nvia =");
    assert_eq!(folder.errors(&format!("{LIST}{text}[vrf.red]\n")), [""; 0], "another VRF's is another route");
}

/// What the lines share is said once, not for each line.
#[test]
fn next_hops_that_do_not_fit_a_list() {
    let folder = Folder::new("fit");
    folder.write("a.txt", "10.0.0.0/8\n10.1.0.0/16\n2001:db8::/32\n2001:db8:1::/48\n");
    folder.write("empty.txt", "# nothing yet\n");
    let text = LIST.replace("\"blackhole\"", "[{ next_hop = \"192.0.2.1\" }]");
    assert_eq!(
        folder.errors(&text),
        ["p.toml:3:21: next_hop = \"192.0.2.1\": not of one family with prefix = \"2001:db8::/32\", a.txt:3"],
    );
    let tunnel = "[tunnel.t]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nmtu = 1279\n\
                  remote_mac = \"02:00:00:00:00:01\"\n[tunnel-group.g]\nmembers = [{ tunnel = \"t\" }]\n";
    let text = LIST.replace("\"blackhole\"", "[{ group = \"g\" }]") + tunnel;
    assert_eq!(
        folder.errors(&text),
        [
            "p.toml:3:18: group = \"g\": tunnel \"t\" has mtu = 1279, IPv6 needs 1280..=65535 (RFC 8200 §5), and there is 2001:db8::/32"
        ],
    );
    let config = folder.load(&LIST.replace("a.txt", "empty.txt")).unwrap();
    assert_eq!(config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2:8: file: has no prefix"]);
}

#[test]
fn a_list_and_what_is_said_of_it_have_a_bound() {
    let folder = Folder::new("bound");
    folder.write("a.txt", "x\n".repeat(1000));
    let errors = folder.errors(LIST);
    assert_eq!(errors.len(), 101);
    assert_eq!(errors[100], "a.txt:101:1: the rest of this list is not looked at");
    folder.write("a.txt", vec![b'\n'; Config::MAX_LIST_FILE + 1]);
    assert_eq!(folder.errors(LIST), ["p.toml:2:8: file = \"a.txt\": a list has at most 67108864 octets"]);
    let line = |index: u32| format!("{}/32\n", std::net::Ipv4Addr::from_bits(index));
    let full: String = (0..1 << 20).map(line).collect();
    folder.write("a.txt", &full);
    assert_eq!(folder.errors(LIST), [""; 0]);
    folder.write("a.txt", full + "10.0.0.0/8\n");
    assert_eq!(folder.errors(LIST), ["p.toml:1:1: prefixes of route lists: at most 1048576 are supported"]);
}

#[test]
fn a_hundred_thousand_lines_load_in_less_than_a_second() {
    let folder = Folder::new("long");
    let lines = (0..100_000_u32).map(|index| match index % 2 {
        0 => format!("10.{}.{}.{}/32\n", index >> 16, index >> 8 & 0xff, index & 0xff),
        _ => format!("2001:db8:{:x}:{:x}::/64\n", index >> 16, index & 0xffff),
    });
    folder.write("a.txt", lines.collect::<String>());
    // The best of three: others compute here too.
    let best = (0..3).map(|_| {
        let start = Instant::now();
        assert_eq!(folder.load(LIST).unwrap().routes.len(), 100_000);
        start.elapsed()
    });
    let best = best.min().unwrap();
    println!("100,000 lines: {best:?}");
    assert!(best < Duration::from_secs(1), "{best:?}");
}
