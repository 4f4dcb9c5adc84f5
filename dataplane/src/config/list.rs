//! The file of a `[[route_list]]`: one prefix a line, `#` begins a comment.
//!
//! Such files come from feeds and have a hundred thousand lines: each is looked at once, and nothing is kept of it
//! but its prefix and its place.

use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use super::error::{Fault, FaultKind};
use super::file::Value;
use super::source::Source;
use super::{Config, Place, values};

/// So many lines of a list are said to be wrong at most: of a file of something else it would be every one.
const WRONG: usize = 100;

/// The prefixes of a file, each with its place; what is wrong with a line goes into `faults`.
///
/// # Errors
///
/// The file cannot be read, or is too large: that is the fault of the key that names it.
pub fn read(path: &Arc<Path>, faults: &mut Vec<Fault>) -> Result<Vec<(IpNet, Place)>, FaultKind> {
    let file = || path.to_path_buf();
    let octets = super::read(path, Config::MAX_LIST_FILE);
    let octets = octets.map_err(|reason| FaultKind::ListRead { file: file(), reason: reason.to_string() })?;
    let octets = octets.ok_or_else(|| FaultKind::ListTooLarge { file: file() })?;
    let mut wrong = |line, column, kind| faults.push(Fault { file: file(), line, column, kind });
    let text = match str::from_utf8(&octets) {
        Ok(text) => text,
        Err(error) => {
            let text = str::from_utf8(&octets[..error.valid_up_to()]).expect("valid up to there, the error says");
            let (line, column) = Source::new(file(), text).place(text.len());
            wrong(line, column, FaultKind::NotUtf8);
            return Ok(Vec::new());
        }
    };
    let mut prefixes = Vec::with_capacity(octets.iter().filter(|octet| **octet == b'\n').count() + 1);
    let mut bad = 0;
    for (line, content) in (1..).zip(text.split('\n')) {
        let content = content.split('#').next().unwrap_or_default();
        let word = content.trim();
        if word.is_empty() {
            continue;
        }
        let column = 1 + content.chars().take_while(|c| c.is_whitespace()).count();
        match values::prefix_of(word) {
            Ok(prefix) => prefixes.push((prefix, Place { list: Some(Arc::clone(path)), line, column })),
            Err(_) if bad == WRONG => {
                wrong(line, column, FaultKind::ListEnds);
                break;
            }
            Err(legal) => {
                let value = Value::Text(word.to_owned()).to_string();
                wrong(line, column, FaultKind::Value { key: "prefix", value, legal });
                bad += 1;
            }
        }
    }
    Ok(prefixes)
}
