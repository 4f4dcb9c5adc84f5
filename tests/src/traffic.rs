//! Traffic that checks itself: what arrives is compared octet by octet.

use crate::lab::Host;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(20);

/// Sends `octets` octets by TCP from one host to another, and a receipt back. Both ends are the kernel's, offloads
/// and all.
///
/// # Panics
///
/// If it stalls, or anything but what was sent arrives.
#[track_caller]
pub fn transfer(from: &Host, to: &Host, address: IpAddr, octets: usize) {
    let listener = to.within(|| TcpListener::bind(SocketAddr::new(address, 0)).expect("an address of that host"));
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::scope(|scope| {
        // A listening socket stays in the namespace that it was made in.
        let receiver = scope.spawn(move || receive(&listener, octets));
        from.within(|| send(SocketAddr::new(address, port), octets));
        receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Sends datagrams of `lengths` octets by UDP from one host to another, one after the other; each comes back before the
/// next goes.
///
/// # Panics
///
/// If one is lost or damaged.
#[track_caller]
pub fn exchange(from: &Host, to: &Host, address: IpAddr, lengths: &[usize]) {
    let socket = |host: &Host, to: SocketAddr| {
        let socket = host.within(|| UdpSocket::bind(to).expect("an address of that host"));
        socket.set_read_timeout(Some(STALL)).expect("not zero");
        socket
    };
    let server = socket(to, SocketAddr::new(address, 0));
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = socket(from, any.parse().expect("an address"));
    client.connect(server.local_addr().expect("it is bound")).expect("there is a route");
    let mut buffer = vec![0; 65_536];
    for &length in lengths {
        let datagram: Vec<u8> = pattern(length).flatten().collect();
        client.send(&datagram).unwrap_or_else(|error| panic!("{address}: {length} octets: {error}"));
        let (received, back) =
            server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{address}: {length} octets: {error}"));
        assert!(buffer[..received] == datagram, "{address}: {length} octets were damaged on the way");
        server.send_to(&datagram, back).unwrap_or_else(|error| panic!("{back}: {length} octets: {error}"));
        let received = client.recv(&mut buffer).unwrap_or_else(|error| panic!("{back}: {length} octets: {error}"));
        assert!(buffer[..received] == datagram, "{back}: {length} octets were damaged on the way back");
    }
}

fn send(to: SocketAddr, octets: usize) {
    let mut stream = TcpStream::connect_timeout(&to, STALL).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_write_timeout(Some(STALL)).expect("not zero");
    stream.set_read_timeout(Some(STALL)).expect("not zero");
    let mut sent = 0;
    for block in pattern(octets) {
        stream.write_all(&block).unwrap_or_else(|error| panic!("{to}: {error} after {sent} octets"));
        sent += block.len();
    }
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let mut receipt = [0; 8];
    stream.read_exact(&mut receipt).unwrap_or_else(|error| panic!("{to}: no receipt: {error}"));
    assert_eq!(u64::from_be_bytes(receipt), octets as u64);
}

fn receive(listener: &TcpListener, octets: usize) {
    // Without a bound a sender that never comes would hold the test for ever.
    listener.set_nonblocking(true).expect("a socket");
    let mut accepted = None;
    crate::until("a connection arrives", STALL, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut stream, from) = accepted.expect("until has seen it");
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(STALL)).expect("not zero");
    let mut received = 0;
    for block in pattern(octets) {
        let mut buffer = vec![0; block.len()];
        stream.read_exact(&mut buffer).unwrap_or_else(|error| panic!("{from}: {error} after {received} octets"));
        assert!(buffer == block, "{from}: damaged after {received} octets");
        received += block.len();
    }
    assert_eq!(stream.read(&mut [0]).expect("it is open"), 0, "more than was sent");
    stream.write_all(&(received as u64).to_be_bytes()).expect("the sender waits");
}

/// Octets that do not repeat where a segment, a chunk or a page would.
fn pattern(octets: usize) -> impl Iterator<Item = Vec<u8>> {
    const BLOCK: usize = 64 * 1024;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = octets;
    std::iter::from_fn(move || {
        let length = left.min(BLOCK);
        left -= length;
        let mut block = vec![0; length];
        for part in block.chunks_mut(8) {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            part.copy_from_slice(&state.to_be_bytes()[..part.len()]);
        }
        (length > 0).then_some(block)
    })
}
