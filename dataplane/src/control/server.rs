//! The control socket: one line with a question, one line with the answer, both JSON.
//!
//! Answers come from the control thread, so a client that is slow is cut off rather than waited for.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a client may take to ask or to read.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Octets of a question at most.
const LONGEST: u64 = 4096;
/// Clients served before the loop goes on.
const AT_ONCE: usize = 16;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Interfaces with mode, queues and counters.
    Interfaces,
    /// Tunnels with their state and counters.
    Tunnels,
    /// Routes and where they lead.
    Routes(RouteQuery),
    /// Neighbours.
    Neighbours,
    /// Rules of the access list, and what met them.
    Acl,
    /// Policers, and what colours they gave.
    Policers,
    /// Tenants' queues.
    Qos,
    /// Where every packet went.
    Drops,
}

/// Which routes. All of them without any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteQuery {
    /// Of this VRF.
    pub vrf: Option<String>,
    /// Within this prefix, itself included.
    pub prefix: Option<IpNet>,
    /// The longest match of this address.
    pub lookup: Option<IpAddr>,
    /// Those behind this one: where the answer before ended.
    pub after: Option<(u16, IpNet)>,
}

/// Why there is no control socket; to be read after the words "control socket".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody answers there.
    #[error("{}: another gateway is running: stop it first", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// It may be anything: it is not ours to remove.
    #[error("{}: that is no socket: remove it, or set `[gateway] control` to another path", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The folder is not there and cannot be made, or may not be written to.
    #[error(
        "{}: {source}: set `[gateway] control` to a path in a folder that this user may write to \
         (RuntimeDirectory= in a systemd unit)", path.display()
    )]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The listening end. Removes its socket when dropped.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at a path, whose folder is made if it is missing. A socket that a dead gateway left is replaced.
    ///
    /// # Errors
    ///
    /// Another gateway answers there, something else has the path, or what the system says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if UnixStream::connect(path).is_ok() {
            return Err(OpenError::Running { path: path.into() });
        }
        if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(OpenError::NotASocket { path: path.into() });
        }
        Self::listen(path).map_err(|source| OpenError::System { path: path.into(), source })
    }

    fn listen(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.into() })
    }

    /// Readable when somebody asks.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd())
    }

    /// Answers those who ask now.
    pub fn serve(&self, answer: impl Fn(Question) -> serde_json::Value) {
        for _ in 0..AT_ONCE {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) => return pause_after(&error),
            };
            // A client that went away is no concern of the gateway's.
            let _gone = serve_one(client, &answer);
        }
    }
}

/// Without descriptors for it who asks goes on asking: a pause keeps control from doing nothing else.
pub fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::WouldBlock {
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn serve_one(client: UnixStream, answer: &impl Fn(Question) -> serde_json::Value) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&client).take(LONGEST)).read_line(&mut line)?;
    let reply = match serde_json::from_str(&line) {
        Ok(question) => answer(question),
        Err(error) => serde_json::json!({ "error": format!("not a question of this version: {error}") }),
    };
    let mut text = reply.to_string();
    text.push('\n');
    (&client).write_all(text.as_bytes())
}

/// Why a gateway could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Its socket is its user's alone.
    #[error("{path}: {source}: only root and the user that the gateway runs as may ask it")]
    Permission {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("no gateway answers at {path}: {source} (is `penstock run` running? --control names its socket)")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It listens and does not answer.
    #[error("the gateway at {path} does not answer: {source}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot answer that.
    #[error("{0}")]
    Refused(String),
    /// It answers something else.
    #[error("the gateway's answer is not understood; is it of another version? {0}")]
    Answer(String),
}

/// Asks a running gateway.
///
/// # Errors
///
/// Nobody listens, or the answer does not come.
pub fn ask(path: &Path, question: Question) -> Result<serde_json::Value, AskError> {
    let mut question = serde_json::to_string(&question).map_err(|error| AskError::Answer(error.to_string()))?;
    question.push('\n');
    let give_up = Instant::now() + ANSWER;
    let answer = loop {
        match exchange(path, &question) {
            // Who is late is cut off, and on a busy machine that can be us.
            Err(AskError::Silent { source, .. }) if is_cut_off(&source) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => break other?,
        }
    };
    let value: serde_json::Value =
        serde_json::from_str(&answer).map_err(|error| AskError::Answer(error.to_string()))?;
    match value.get("error").and_then(serde_json::Value::as_str) {
        Some(error) => Err(AskError::Refused(error.into())),
        None => Ok(value),
    }
}

/// A line there, and a whole line back.
fn exchange(path: &Path, question: &str) -> Result<String, AskError> {
    let silent = |source| AskError::Silent { path: path.into(), source };
    let mut stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Permission { path: path.into(), source },
        _ => AskError::Connect { path: path.into(), source },
    })?;
    stream.set_read_timeout(Some(ANSWER)).map_err(silent)?;
    stream.write_all(question.as_bytes()).map_err(silent)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(silent)?;
    if answer.ends_with('\n') { Ok(answer) } else { Err(silent(io::ErrorKind::UnexpectedEof.into())) }
}

/// Whether the other end closed before all was said.
fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Asks a running gateway for routes, answer by answer, and puts them together.
///
/// # Errors
///
/// As [`ask`].
pub fn ask_routes(path: &Path, mut query: RouteQuery) -> Result<serde_json::Value, AskError> {
    let mut all = Vec::new();
    loop {
        let mut answer = ask(path, Question::Routes(query.clone()))?;
        if let Some(routes) = answer["routes"].as_array_mut() {
            all.append(routes);
        }
        query.after = serde_json::from_value(answer["next"].take()).unwrap_or(None);
        if query.after.is_none() {
            answer["routes"] = all.into();
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("next");
            }
            return Ok(answer);
        }
    }
}

/// Asks a running gateway twice how its queues do, a second apart: rates are what was sent between.
///
/// # Errors
///
/// As [`ask`].
pub fn ask_qos(path: &Path) -> Result<serde_json::Value, AskError> {
    let before = ask(path, Question::Qos)?;
    let asked = Instant::now();
    if before["qos"].as_array().is_none_or(Vec::is_empty) {
        return Ok(before);
    }
    std::thread::sleep(Duration::from_secs(1));
    let mut after = ask(path, Question::Qos)?;
    let seconds = asked.elapsed().as_secs_f64();
    for row in after["qos"].as_array_mut().into_iter().flatten() {
        let keys = ["interface", "tunnel", "tenant", "class"];
        let old = before["qos"].as_array().into_iter().flatten();
        let sent = |row: &serde_json::Value| row["sent_bytes"].as_u64().unwrap_or(0);
        let old = old.filter(|old| keys.iter().all(|key| old[key] == row[key])).map(sent).next().unwrap_or(0);
        row["rate_bits"] = ((sent(row).saturating_sub(old) as f64 * 8.0 / seconds) as u64).into();
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("penstock-{}-{name}/control.sock", std::process::id()))
    }

    #[test]
    fn answers_a_question_and_refuses_what_is_none() {
        let path = socket("answers");
        let server = Server::open(&path).expect("a folder of our own");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| ask(&path, Question::Drops));
            while !client.is_finished() {
                server.serve(|question| serde_json::json!({ "asked": question }));
                std::thread::yield_now();
            }
            let answer = client.join().expect("no panic").expect("an answer");
            assert_eq!(answer["asked"], "drops");
            let client = scope.spawn(|| {
                let mut stream = UnixStream::connect(&path).expect("it listens");
                stream.write_all(b"nonsense\n").expect("it reads");
                let mut answer = String::new();
                BufReader::new(stream).read_line(&mut answer).expect("it answers");
                answer
            });
            while !client.is_finished() {
                server.serve(|_| unreachable!("not a question"));
                std::thread::yield_now();
            }
            assert!(client.join().expect("no panic").contains("not a question"));
        });
        drop(server);
        assert!(!path.exists(), "the socket is removed at the end");
        std::fs::remove_dir_all(path.parent().expect("it has a folder")).expect("ours");
    }

    #[test]
    fn who_is_cut_off_before_the_question_or_within_the_answer_asks_again() {
        let path = socket("cuts");
        let server = Server::open(&path).expect("a folder of our own");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| ask(&path, Question::Drops));
            let accept = || {
                while !client.is_finished() {
                    if let Ok((stream, _)) = server.listener.accept() {
                        return Some(stream);
                    }
                    std::thread::yield_now();
                }
                None
            };
            drop(accept());
            if let Some(late) = accept() {
                BufReader::new(&late).read_line(&mut String::new()).expect("the question");
                (&late).write_all(b"{\"asked\":").expect("the client reads");
            }
            if let Some(whole) = accept() {
                serve_one(whole, &|question| serde_json::json!({ "asked": question })).expect("the client reads");
            }
            assert_eq!(client.join().expect("no panic").expect("an answer")["asked"], "drops");
        });
        drop(server);
        std::fs::remove_dir_all(path.parent().expect("it has a folder")).expect("ours");
    }

    #[test]
    fn two_gateways_do_not_share_a_socket_but_a_dead_ones_is_replaced() {
        let path = socket("shares");
        let first = Server::open(&path).expect("a folder of our own");
        let second = Server::open(&path).err().expect("refused");
        assert!(matches!(second, OpenError::Running { .. }), "{second}");
        drop(first);
        // What a killed process leaves: a socket that nobody listens on.
        drop(UnixListener::bind(&path).expect("the folder is there"));
        let third = Server::open(&path).expect("nobody listens");
        drop(third);
        std::fs::remove_dir_all(path.parent().expect("it has a folder")).expect("ours");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let path = socket("file");
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder of our own");
        std::fs::write(&path, "precious").expect("a folder of our own");
        let error = Server::open(&path).err().expect("refused");
        assert!(matches!(error, OpenError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
        std::fs::remove_dir_all(path.parent().expect("it has a folder")).expect("ours");
    }
}
