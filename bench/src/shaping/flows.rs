//! Senders, receivers, and the probe that measures delay.

use super::site::{FAR, Site};
use super::{STORY, TENANTS};
use hdrhistogram::Histogram;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Where TCP of the first tenant goes; the others follow.
const TCP_PORT: u16 = 5000;
/// Where UDP of the first tenant goes; the others follow.
const UDP_PORT: u16 = 6000;
/// Where the probe comes back.
const ECHO_PORT: u16 = 7;
/// How long anything blocks before it looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(200);
/// The probe's field: DSCP 46, the class `realtime`.
const TOS: u8 = 46 << 2;
/// How often the probe goes.
const INTERVAL: Duration = Duration::from_millis(2);
/// An answer that takes longer counts as lost.
const LOST: Duration = Duration::from_secs(1);
/// Of a TCP segment of 1,500 octets 52 are headers with a time stamp.
const SEGMENT: (u64, u64) = (1_500, 1_448);
/// Headers of a datagram.
const UDP_HEADERS: u64 = 28;

/// What one tenant's packets brought so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Octets of IP packets.
    pub octets: u64,
    /// Packets; of TCP, none are counted.
    pub packets: u64,
}

/// Of all tenants.
pub type Counts = [Count; TENANTS.len()];

/// Round-trip times of the probe in each part, nanoseconds.
pub type Probed = Vec<Histogram<u64>>;

/// What all threads share.
pub struct Stage {
    counters: [(AtomicU64, AtomicU64); TENANTS.len()],
    /// The part that is played; beyond the last, it is over.
    part: AtomicUsize,
    over: AtomicBool,
}

/// A part of the story: what is started in it ends with it.
pub struct Act<'a> {
    stage: &'a Stage,
    part: usize,
}

impl Stage {
    /// Before the first part.
    pub fn new() -> Self {
        Self { counters: Default::default(), part: AtomicUsize::new(0), over: AtomicBool::new(false) }
    }

    /// What was received so far.
    pub fn counts(&self) -> Counts {
        self.counters
            .each_ref()
            .map(|(octets, packets)| Count { octets: octets.load(Relaxed), packets: packets.load(Relaxed) })
    }

    /// The next part; what was started in the last one ends.
    pub fn begin(&self, part: usize) -> Act<'_> {
        self.part.store(part, Relaxed);
        Act { stage: self, part }
    }

    /// Everything ends.
    pub fn end(&self) {
        self.part.store(STORY.len(), Relaxed);
        self.over.store(true, Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn count(&self, tenant: usize, octets: u64, packets: u64) {
        let (all_octets, all_packets) = &self.counters[tenant];
        all_octets.fetch_add(octets, Relaxed);
        all_packets.fetch_add(packets, Relaxed);
    }

    /// Starts the receivers of all tenants, and who answers the probe.
    ///
    /// # Errors
    ///
    /// A namespace cannot be entered, or an address not be bound.
    pub fn receive<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, site: &Site) -> io::Result<()> {
        let far = |port| SocketAddr::from((FAR, port));
        for tenant in 0..TENANTS.len() {
            let listener = within(site, "far", || TcpListener::bind(far(TCP_PORT + tenant as u16)))?;
            listener.set_nonblocking(true)?;
            scope.spawn(move || {
                while !self.is_over() {
                    match listener.accept() {
                        Ok((stream, _)) => _ = scope.spawn(move || self.drain(stream, tenant)),
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            });
            let socket = within(site, "far", || UdpSocket::bind(far(UDP_PORT + tenant as u16)))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            scope.spawn(move || {
                let mut buffer = [0; 2_048];
                while !self.is_over() {
                    if let Ok(octets) = socket.recv(&mut buffer) {
                        self.count(tenant, octets as u64 + UDP_HEADERS, 1);
                    }
                }
            });
        }
        let echo = within(site, "far", || UdpSocket::bind(far(ECHO_PORT)))?;
        echo.set_read_timeout(Some(PATIENCE))?;
        sockopt::set_ip_tos(&echo, TOS)?;
        scope.spawn(move || {
            let mut buffer = [0; 64];
            while !self.is_over() {
                if let Ok((octets, from)) = echo.recv_from(&mut buffer) {
                    // One that is lost is missed by the probe.
                    let _lost = echo.send_to(&buffer[..octets], from);
                }
            }
        });
        Ok(())
    }

    fn drain(&self, mut stream: TcpStream, tenant: usize) {
        let mut buffer = vec![0; 256 * 1024];
        let mut remainder = 0;
        if stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).is_err() {
            return;
        }
        while !self.is_over() {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(octets) => {
                    let scaled = octets as u64 * SEGMENT.0 + remainder;
                    remainder = scaled % SEGMENT.1;
                    self.count(tenant, scaled / SEGMENT.1, 0);
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => break,
            }
        }
    }

    /// Starts the probe, on the first tenant's host.
    ///
    /// # Errors
    ///
    /// A namespace cannot be entered.
    pub fn probe<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        site: &Site,
    ) -> io::Result<ScopedJoinHandle<'scope, io::Result<Probed>>> {
        let socket = within(site, "red", || UdpSocket::bind("0.0.0.0:0"))?;
        socket.connect(SocketAddr::from((FAR, ECHO_PORT)))?;
        sockopt::set_ip_tos(&socket, TOS)?;
        socket.set_read_timeout(Some(LOST))?;
        Ok(scope.spawn(move || {
            let mut probed: Probed = STORY.iter().map(|_| histogram()).collect();
            let mut next = Instant::now();
            let mut number = 0_u64;
            while !self.is_over() {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                let (part, start) = (self.part.load(Relaxed), Instant::now());
                next = start + INTERVAL;
                number += 1;
                socket.send(&number.to_be_bytes())?;
                let took = answered(&socket, number, start).unwrap_or(LOST);
                if let Some(histogram) = probed.get_mut(part) {
                    histogram.saturating_record(took.as_nanos() as u64);
                }
            }
            Ok(probed)
        }))
    }
}

/// From a microsecond to a second, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 2_000_000_000, 3).expect("bounds that are far enough apart")
}

/// How long the answer with a number took, if it came.
fn answered(socket: &UdpSocket, number: u64, start: Instant) -> Option<Duration> {
    let mut answer = [0; 8];
    while start.elapsed() < LOST {
        match socket.recv(&mut answer) {
            Ok(8) if u64::from_be_bytes(answer) == number => return Some(start.elapsed()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    None
}

impl<'scope> Act<'scope> {
    fn goes_on(&self) -> bool {
        self.stage.part.load(Relaxed) == self.part && !self.stage.is_over()
    }

    /// A TCP connection that sends all it can.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn tcp(&self, scope: &'scope Scope<'scope, '_>, site: &Site, tenant: usize) -> io::Result<()> {
        let act = Self { stage: self.stage, part: self.part };
        let from = TENANTS[tenant];
        let mut stream = within(site, from.host, || connected(from.address, TCP_PORT + tenant as u16))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        scope.spawn(move || {
            let block = vec![0x5a; 64 * 1024];
            while act.goes_on() {
                match stream.write(&block) {
                    Err(error) if !is_timeout(&error) => break,
                    _ => {}
                }
            }
        });
        Ok(())
    }

    /// Datagrams at a steady rate.
    ///
    /// # Errors
    ///
    /// The socket cannot be made.
    pub fn udp(
        &self,
        scope: &'scope Scope<'scope, '_>,
        site: &Site,
        tenant: usize,
        octets: usize,
        per_second: u64,
    ) -> io::Result<()> {
        let act = Self { stage: self.stage, part: self.part };
        let from = TENANTS[tenant];
        let socket = within(site, from.host, || UdpSocket::bind(SocketAddr::from((from.address, 0))))?;
        socket.connect(SocketAddr::from((FAR, UDP_PORT + tenant as u16)))?;
        scope.spawn(move || {
            let block = vec![0x5a; octets];
            let (start, mut sent) = (Instant::now(), 0);
            while act.goes_on() {
                let due = (start.elapsed().as_nanos() * u128::from(per_second) / 1_000_000_000) as u64;
                while sent < due {
                    // One that the device has no room for is lost, like others.
                    let _lost = socket.send(&block);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(())
    }
}

/// From an address to the far end. The kernel chooses the port.
fn connected(from: [u8; 4], port: u16) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(from.into(), 0))?;
    connect(&socket, &SocketAddrV4::new(FAR.into(), port))?;
    Ok(socket.into())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Runs `body` in the namespace of a host: sockets that it makes stay there.
fn within<T: Send>(site: &Site, host: &str, body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = site.path(host);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sys::netns::enter(&namespace)?;
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
