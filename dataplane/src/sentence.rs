//! An error and its causes as one sentence.

use std::error::Error;
use std::fmt;

/// Displays an error, then each cause that has not been said yet, on one line.
///
/// Some errors quote their cause where the sentence wants it, others leave it to whoever prints them; some causes
/// bring a log of their own, of which the first line will do.
pub struct Sentence<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            let line = text.lines().next().unwrap_or_default();
            if !said.contains(line) {
                said.push_str(": ");
                said.push_str(line);
            }
            next = cause.source();
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("c.sock: {source}: set another")]
        Quotes { source: io::Error },
        #[error("the map cannot be read")]
        Leaves {
            #[source]
            cause: Box<Example>,
        },
        #[error("the verifier said\n0: (b4) w2 = 2\n1: (63)")]
        Rambles,
    }

    #[track_caller]
    fn check(error: Example, expected: &str) {
        assert_eq!(Sentence(&error).to_string(), expected);
    }

    #[test]
    fn says_each_cause_once_and_on_one_line() {
        let quotes = || Example::Quotes { source: io::Error::from_raw_os_error(libc::EACCES) };
        let quoted = "c.sock: Permission denied (os error 13): set another";
        check(quotes(), quoted);
        check(Example::Leaves { cause: Box::new(quotes()) }, &format!("the map cannot be read: {quoted}"));
        check(Example::Leaves { cause: Box::new(Example::Rambles) }, "the map cannot be read: the verifier said");
    }
}
