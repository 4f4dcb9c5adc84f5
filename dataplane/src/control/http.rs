//! Metrics over HTTP/1.1: `GET /metrics`, and nothing else.
//!
//! It is served from control's own loop, which must not wait for a client: every socket is non-blocking, and a client
//! is where it got to the last time. What a client may take is bounded: octets of a request, time, and how many there
//! are at once. No TLS and no passwords: who may ask is decided by the address that is listened on.

use super::server::pause_after;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use sys::poll::PollFlags;

/// How long a client has, from its first octet to our last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of a request at most.
const LONGEST: usize = 4096;
/// Clients at most; those beyond wait to be accepted.
const CLIENTS: usize = 16;
/// What is there to read.
const PATH: &str = "/metrics";

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What every scraper and a person reads.
    Prometheus,
    /// For those that ask for it.
    OpenMetrics,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error("metrics {address}: {source}: set `[gateway] metrics` to an address of this host and a port that is free")]
pub struct ListenError {
    /// Where it was to listen.
    address: SocketAddr,
    /// What the system said.
    source: io::Error,
}

/// The listening end, and those who ask.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    clients: Vec<Client>,
}

impl Http {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The address is not the host's, the port is taken, or needs a privilege.
    pub fn open(address: SocketAddr) -> Result<Self, ListenError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listen()
            .map(|listener| Self { listener, clients: Vec::with_capacity(CLIENTS) })
            .map_err(|source| ListenError { address, source })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let room = self.clients.len() < CLIENTS;
        let listener = room.then(|| (self.listener.as_fd(), PollFlags::IN));
        listener.into_iter().chain(self.clients.iter().map(|client| (client.stream.as_fd(), client.waits_for())))
    }

    /// Goes on with each client as far as it can go now. `metrics` is called at most once for each format.
    pub fn serve(&mut self, now: Instant, mut metrics: impl FnMut(Format) -> String) {
        while self.clients.len() < CLIENTS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error);
                    break;
                }
            };
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, deadline: now + PATIENCE, stage: Stage::Asks(Vec::new()) });
            }
        }
        // Those who ask in one moment get one answer: it is the dear part.
        let mut made: Vec<(Format, Rc<[u8]>)> = Vec::new();
        let mut page = |format| match made.iter().find(|(known, _)| *known == format) {
            Some((_, page)) => Rc::clone(page),
            None => {
                let page: Rc<[u8]> = answer("200 OK", format.media_type(), "", &metrics(format)).into();
                made.push((format, Rc::clone(&page)));
                page
            }
        };
        self.clients.retain_mut(|client| now < client.deadline && client.go_on(&mut page).is_ok());
    }
}

/// One who asks.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    deadline: Instant,
    stage: Stage,
}

/// How far a client got.
#[derive(Debug)]
enum Stage {
    /// This much of its request has come.
    Asks(Vec<u8>),
    /// It is being answered; so many octets are sent.
    Hears(Rc<[u8]>, usize),
    /// It has its answer. What else it sends is thrown away, up to so many octets: with octets unread the kernel would
    /// reset the connection, and the answer could be lost on the way (RFC 9112 §9.6).
    Leaves(usize),
}

/// It has left, or must.
struct Gone;

impl Client {
    const fn waits_for(&self) -> PollFlags {
        match self.stage {
            Stage::Asks(_) | Stage::Leaves(_) => PollFlags::IN,
            Stage::Hears(..) => PollFlags::OUT,
        }
    }

    /// As far as it can go without waiting.
    fn go_on(&mut self, page: &mut impl FnMut(Format) -> Rc<[u8]>) -> Result<(), Gone> {
        loop {
            match &mut self.stage {
                Stage::Asks(request) => {
                    let mut octets = [0; 1024];
                    let room = (LONGEST - request.len()).min(octets.len());
                    let Some(count) = some(self.stream.read(&mut octets[..room]))? else { return Ok(()) };
                    request.extend_from_slice(&octets[..count]);
                    let reply = match head(request) {
                        Some(head) => reply(head, page),
                        None if request.len() == LONGEST => refusal("400 Bad Request", ""),
                        None => continue,
                    };
                    self.stage = Stage::Hears(reply, 0);
                }
                Stage::Hears(answer, sent) if *sent < answer.len() => {
                    let Some(count) = some(self.stream.write(&answer[*sent..]))? else { return Ok(()) };
                    *sent += count;
                }
                Stage::Hears(..) => {
                    self.stream.shutdown(Shutdown::Write).map_err(|_| Gone)?;
                    self.stage = Stage::Leaves(0);
                }
                Stage::Leaves(thrown) => {
                    let Some(count) = some(self.stream.read(&mut [0; 1024]))? else { return Ok(()) };
                    *thrown += count;
                    if *thrown > LONGEST {
                        return Err(Gone);
                    }
                }
            }
        }
    }
}

/// How many octets went, `None` if it would have to wait.
fn some(result: io::Result<usize>) -> Result<Option<usize>, Gone> {
    match result {
        Ok(0) => Err(Gone),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(_) => Err(Gone),
    }
}

/// The request up to its empty line, once that has come. A line may end in LF alone (RFC 9112 §2.2).
fn head(request: &[u8]) -> Option<&[u8]> {
    let ends = [b"\r\n\r\n".as_slice(), b"\n\n"];
    let found = ends.iter().filter_map(|end| request.windows(end.len()).position(|octets| octets == *end));
    Some(&request[..found.min()?])
}

/// What is answered to a whole request.
fn reply(head: &[u8], page: &mut impl FnMut(Format) -> Rc<[u8]>) -> Rc<[u8]> {
    let bad = || refusal("400 Bad Request", "");
    let Ok(head) = str::from_utf8(head) else { return bad() };
    let mut lines = head.lines();
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] = words[..] else { return bad() };
    let (mut hosts, mut format) = (0, Format::Prometheus);
    for line in lines {
        // A name ends at its colon, and a line that begins with a space goes on with the one before (RFC 9112 §5.1, §5.2).
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_token(name)) else { return bad() };
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text") {
            format = Format::OpenMetrics;
        }
    }
    // RFC 9112 §3.2: exactly one, since HTTP/1.1.
    if hosts > 1 || (hosts == 0 && version == "HTTP/1.1") || !is_token(method) {
        return bad();
    }
    let Some(path) = path(target) else { return bad() };
    match (path, method) {
        (PATH, "GET") => page(format),
        (PATH, _) => refusal("405 Method Not Allowed", "Allow: GET\r\n"),
        _ => refusal("404 Not Found", ""),
    }
}

/// The path of a request's target, also of one with the scheme and host before it (RFC 9112 §3.2.2), without its query.
fn path(target: &str) -> Option<&str> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => &rest[rest.find('/')?..],
        None => target,
    };
    path.starts_with('/').then(|| path.split_once('?').map_or(path, |(path, _)| path))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

fn refusal(status: &str, header: &str) -> Rc<[u8]> {
    let text = format!("{status}: this is GET {PATH} over HTTP/1.1\n");
    answer(status, "text/plain; charset=utf-8", header, &text).into()
}

fn answer(status: &str, media_type: &str, header: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n{header}Connection: close\r\n\r\n\
         {body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

    fn open() -> (Http, SocketAddr) {
        let http = Http::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        let address = http.listener.local_addr().expect("it is bound");
        (http, address)
    }

    /// Sends a request, and reads to the end.
    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(request).expect("it reads, or the kernel does");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers, and does not reset");
        answer
    }

    /// What comes back while `http` serves a page of that length.
    fn asked(http: &mut Http, address: SocketAddr, request: &[u8], length: usize) -> String {
        thread::scope(|scope| {
            let client = scope.spawn(|| ask(address, request));
            while !client.is_finished() {
                http.serve(Instant::now(), |format| format!("{format:?}").repeat(length));
                thread::yield_now();
            }
            client.join().expect("no panic")
        })
    }

    #[track_caller]
    fn check(request: &str, status: &str, contains: &str) {
        let (mut http, address) = open();
        let answer = asked(&mut http, address, request.as_bytes(), 1);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.contains(contains), "{request:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert!(head.contains("Connection: close"), "{answer}");
    }

    #[test]
    fn answers_get_metrics_in_the_format_that_is_asked_for() {
        check(GET, "200", "\r\n\r\nPrometheus");
        check("GET /metrics HTTP/1.0\r\n\r\n", "200", "Content-Type: text/plain; version=0.0.4");
        check("GET /metrics?x=1 HTTP/1.1\nhost: x\n\n", "200", "Prometheus");
        check("GET http://h:1/metrics HTTP/1.1\r\nHost: h:1\r\n\r\n", "200", "Prometheus");
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        check(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"), "200", "\r\n\r\nOpenMetrics");
    }

    #[test]
    fn refuses_everything_else_by_its_number() {
        check("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404", "GET /metrics");
        check("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404", "");
        check("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405", "Allow: GET\r\n");
        for request in [
            "GET /metrics HTTP/1.1\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET  /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n",
            "G(T /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
            "\r\n\r\n",
        ] {
            check(request, "400", "");
        }
        let (mut http, address) = open();
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'a'; LONGEST], b"\r\n\r\n"].concat();
        assert!(asked(&mut http, address, &long, 1).starts_with("HTTP/1.1 400 "));
        let latin = b"GET /metrics HTTP/1.1\r\nHost: \xff\r\n\r\n";
        assert!(asked(&mut http, address, latin, 1).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn who_is_refused_may_finish_its_sentence() {
        let (mut http, address) = open();
        let answer = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.write_all(&[b'a'; LONGEST + 1]).expect("the kernel takes it");
                let mut answer = vec![0];
                stream.read_exact(&mut answer).expect("it is answered before the end");
                stream.write_all(&[b'a'; LONGEST / 2]).expect("the connection is not reset");
                stream.shutdown(Shutdown::Write).expect("nor closed");
                stream.read_to_end(&mut answer).expect("nor reset");
                answer
            });
            while !client.is_finished() {
                http.serve(Instant::now(), |_| unreachable!("it is no request"));
                thread::yield_now();
            }
            client.join().expect("no panic")
        });
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    }

    #[test]
    fn a_page_beyond_every_buffer_of_the_kernel_arrives_whole() {
        let (mut http, address) = open();
        let length = 4 << 20;
        let answer = asked(&mut http, address, GET.as_bytes(), length);
        assert_eq!(answer.split_once("\r\n\r\n").expect("a body").1.len(), length * "Prometheus".len());
    }

    /// Until the kernel has delivered, nothing is to be expected.
    fn serve_until(http: &mut Http, now: Instant, mut happened: impl FnMut(&Http) -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !happened(http) {
            assert!(Instant::now() < patience, "{http:?}");
            http.serve(now, |_| "page".into());
            thread::yield_now();
        }
    }

    #[test]
    fn clients_beyond_the_limit_wait_and_those_that_say_nothing_are_let_go() {
        let (mut http, address) = open();
        let now = Instant::now();
        let silent: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        serve_until(&mut http, now, |http| http.clients.len() == CLIENTS);
        assert_eq!(http.descriptors().count(), CLIENTS, "nobody is accepted any more");
        let mut late = TcpStream::connect(address).expect("the kernel takes it");
        late.write_all(GET.as_bytes()).expect("the kernel takes it");
        late.set_nonblocking(true).expect("a socket");
        http.serve(now + PATIENCE - Duration::from_nanos(1), |_| unreachable!("there is no room"));
        assert_eq!(http.clients.len(), CLIENTS);
        // Their time is over; the one that waited has its own.
        let then = now + PATIENCE;
        let mut answer = Vec::new();
        serve_until(&mut http, then, |_| {
            let _waits = late.read_to_end(&mut answer);
            !answer.is_empty()
        });
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        drop((silent, late));
        serve_until(&mut http, then, |http| http.clients.is_empty());
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named_with_the_mend() {
        let (_http, address) = open();
        let error = Http::open(address).expect_err("it is taken").to_string();
        assert!(error.starts_with(&format!("metrics {address}: Address already in use")), "{error}");
        assert!(error.contains("set `[gateway] metrics`"), "{error}");
        let error = Http::open("192.0.2.1:9473".parse().expect("an address")).expect_err("not ours").to_string();
        assert!(error.contains("Cannot assign requested address"), "{error}");
    }
}
