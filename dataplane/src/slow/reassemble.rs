//! Outer datagrams that arrive in fragments, put together (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Only what is sent between the two ends of a tunnel comes here, whatever it turns out to be. All has a bound: datagrams,
//! fragments of one, packet memory, time. When there is no room the oldest datagram goes, not the newest: the fragments of a
//! datagram follow each other closely, so whoever floods the table in the other end's name has to fill it within that
//! moment to do harm. If the newest were refused, a few fragments every two seconds would keep everybody out.
//!
//! No octet is ever written over (RFC 5722): whoever could send the second version of a header could get it past a
//! filter that saw the first.

use crate::hash::Quick;
use crate::packet::{DropReason, Exit, Exits, Family, Packet, Stock, Time};
use crate::tunnel::Ends;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::mem;
use wire::{Be16, Ecn, Ipv4, Ipv6, Ipv6Fragment, Octets, header_mut, is_extension, protocol};
use xsk::Frame;

use DropReason::{FragmentEcn, FragmentMalformed, FragmentOverlap, ReassemblyFull, ReassemblyTimeout};

/// Datagrams that wait for fragments at most.
const DATAGRAMS: usize = 256;
/// Fragments of a datagram at most: the longest fits, over the smallest MTU of IPv6.
const FRAGMENTS: usize = 64;
/// Chunks of packet memory that fragments keep at most.
const CHUNKS: usize = 512;
/// How long the rest of a datagram is waited for, nanoseconds.
///
/// Short, on purpose: what is sent back to back is not seconds apart, and at a million packets per second the 16 bits that
/// name an IPv4 datagram start anew every 65 ms (RFC 4963). Each loss then waits for a fragment of a stranger.
const PATIENCE: u64 = 2 * Time::SECOND;
/// Octets of a datagram at most, as both headers count them.
const LONGEST: usize = u16::MAX as usize;
/// Extension headers that are followed in search of the fragment header: as many as `parse` follows.
const EXTENSIONS: usize = 8;
/// Where an IPv6 header says what follows.
const NEXT_HEADER_AT: usize = 6;
/// Octets of an upper-layer header that the first fragment has to have (RFC 7112 §3: 64 bits of one that is not known).
const UPPER_LAYER: usize = 8;

/// What fragments of one datagram have in common. The protocol is 0 over IPv6, where only the first fragment's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ends: Ends,
    protocol: u8,
    identification: u32,
}

/// What a fragment says of itself.
struct Fragment {
    key: Key,
    /// Which octets of the datagram it has: from, and up to but not including.
    from: usize,
    to: usize,
    /// It is not the last.
    more: bool,
    /// Where in its frame they are.
    data_at: usize,
    /// Octets in front of the data that the lengths of the header count, once the datagram is whole.
    counted: usize,
    /// All headers as far as the upper layer's are there, or it is not the first.
    headers: bool,
}

impl Fragment {
    /// `None` if the packet is no fragment.
    fn read(packet: &Packet) -> Option<Self> {
        let (l3, end) = (usize::from(packet.l3), usize::from(packet.l3) + packet.len as usize);
        let ends = Ends::of_received(packet);
        match packet.family {
            Family::V4 => {
                let header = packet.ipv4().filter(|header| header.is_fragment())?;
                let data_at = l3 + header.header_length();
                let from = header.fragment_offset();
                let identification = header.identification.value().into();
                Some(Self {
                    key: Key { ends, protocol: header.protocol, identification },
                    from,
                    to: from + end.saturating_sub(data_at),
                    more: header.fragment.value() & Ipv4::MF != 0,
                    data_at,
                    counted: header.header_length(),
                    headers: true,
                })
            }
            Family::V6 => {
                let (_, at) = fragment_header(packet)?;
                let header: &Ipv6Fragment = packet.frame.bytes().header(at)?;
                let data_at = at + Ipv6Fragment::SIZE;
                let from = header.offset();
                Some(Self {
                    key: Key { ends, protocol: 0, identification: header.identification.value() },
                    from,
                    to: from + end.saturating_sub(data_at),
                    more: header.offset_more.value() & 1 != 0,
                    data_at,
                    counted: at - l3 - Ipv6::SIZE,
                    headers: from != 0 || usize::from(packet.l4) + UPPER_LAYER <= end,
                })
            }
        }
    }

    /// RFC 8200 §4.5, and the same of IPv4: data in multiples of 8 octets but for the end, no more than a datagram can have,
    /// and all headers in the first fragment.
    const fn is_malformed(&self) -> bool {
        let length = self.to - self.from;
        length == 0 || (self.more && !length.is_multiple_of(8)) || self.counted + self.to > LONGEST || !self.headers
    }
}

/// Where the fragment header of IPv6 is, and before it the octet that announces it. One that says it is the whole packet (RFC 6946)
/// is a header like any other.
fn fragment_header(packet: &Packet) -> Option<(usize, usize)> {
    let octets = packet.frame.bytes();
    let l3 = usize::from(packet.l3);
    let mut announced_at = l3 + NEXT_HEADER_AT;
    let mut at = l3 + Ipv6::SIZE;
    for _ in 0..EXTENSIONS {
        let next = *octets.get(announced_at)?;
        if next == protocol::FRAGMENT {
            let header: &Ipv6Fragment = octets.header(at)?;
            if header.offset_more.value() & !0x6 != 0 {
                return Some((announced_at, at));
            }
            (announced_at, at) = (at, at + Ipv6Fragment::SIZE);
        } else if is_extension(next) {
            let length = usize::from(*octets.get(at + 1)?);
            (announced_at, at) = (at, at + 8 * (1 + length));
        } else {
            return None;
        }
    }
    None
}

/// A fragment that waits: its packet is as it arrived.
struct Piece {
    packet: Box<Packet>,
    data_at: usize,
    from: usize,
    to: usize,
}

/// What has come of a datagram.
struct Datagram {
    /// Its place in the order of arrival.
    serial: u64,
    since: Time,
    /// In the order of their data, which do not overlap.
    pieces: Vec<Piece>,
    /// Octets in them.
    octets: usize,
    /// Octets of all, once the last fragment is here.
    end: Option<usize>,
    /// A bit for each value of [`Ecn`] among them.
    ecn: u8,
    /// It is refused, with everything that still comes of it.
    refused: Option<DropReason>,
}

/// How a fragment stands to what is there.
enum Place {
    /// New, with this index.
    At(usize),
    /// The same octets once more.
    Duplicate,
    /// Other octets where there are some, or an end where the datagram goes on.
    Overlap,
}

impl Datagram {
    const fn new(serial: u64, since: Time) -> Self {
        Self { serial, since, pieces: Vec::new(), octets: 0, end: None, ecn: 0, refused: None }
    }

    fn place(&self, fragment: &Fragment, packet: &Packet) -> Place {
        let &Fragment { from, to, more, .. } = fragment;
        let at = self.pieces.partition_point(|piece| piece.from < from);
        let before = at.checked_sub(1).and_then(|at| self.pieces.get(at));
        if let Some(next) = self.pieces.get(at) {
            let same = (next.from, next.to, self.end != Some(to)) == (from, to, more);
            if same && data(&next.packet, next.data_at).eq(data(packet, fragment.data_at)) {
                return Place::Duplicate;
            }
            if next.from < to {
                return Place::Overlap;
            }
        }
        let last = self.pieces.last().map_or(0, |piece| piece.to);
        let beyond = match self.end {
            Some(end) => to > end || !more,
            None => !more && last > to,
        };
        if beyond || before.is_some_and(|before| before.to > from) { Place::Overlap } else { Place::At(at) }
    }

    /// RFC 3168 §5.3: a mark on one fragment is a mark on the datagram, unless another could not have been marked; then the
    /// datagram is lost, as a datagram that meets congestion would be. `Err` also for a mixture that no sender makes.
    const fn ecn(&self) -> Result<Option<Ecn>, ()> {
        const NOT_ECT: u8 = 1 << Ecn::NotEct as u8;
        const CE: u8 = 1 << Ecn::Ce as u8;
        match self.ecn {
            NOT_ECT => Ok(None),
            mixed if mixed & NOT_ECT != 0 => Err(()),
            marked if marked & CE != 0 => Ok(Some(Ecn::Ce)),
            _ => Ok(None),
        }
    }
}

/// The octets of a packet from a position of its frame on.
fn data(packet: &Packet, at: usize) -> impl Iterator<Item = &u8> {
    packet.frame.segments().flatten().skip(at)
}

/// A worker's datagrams that wait for fragments.
pub struct Reassembly {
    datagrams: BTreeMap<Key, Datagram>,
    /// By their order of arrival, which is that of their deadlines.
    order: BTreeMap<u64, Key>,
    next: u64,
    packets: usize,
    chunks: usize,
    /// This worker's number, and how many there are.
    share: (usize, usize),
}

impl Reassembly {
    /// Of worker `at` of `count`.
    pub fn new(at: usize, count: usize) -> Self {
        let (datagrams, order) = (BTreeMap::new(), BTreeMap::new());
        Self { datagrams, order, next: 0, packets: 0, chunks: 0, share: (at, count) }
    }

    pub fn is_quiet(&self) -> bool {
        self.order.is_empty()
    }

    /// Fragments that wait.
    pub const fn len(&self) -> usize {
        self.packets
    }

    /// When the oldest datagram is given up.
    pub fn deadline(&self) -> Option<Time> {
        let (_, key) = self.order.first_key_value()?;
        self.datagrams.get(key).map(|datagram| Time(datagram.since.0 + PATIENCE))
    }

    /// The worker that puts together what is sent between these two ends, if it is another one. A card may send a first
    /// fragment, which has ports, another way than the rest; and datagrams of one flow keep their order with one worker.
    pub fn owner_elsewhere(&self, packet: &Packet) -> Option<usize> {
        let (own, count) = self.share;
        if count == 1 {
            return None;
        }
        let hash = BuildHasherDefault::<Quick>::default().hash_one(Ends::of_received(packet));
        let owner = (hash % count as u64) as usize;
        (owner != own).then_some(owner)
    }

    /// Takes a fragment in. Returns the datagram, if it is whole now, to be looked at as if it had been received so; and how many
    /// fragments there are no longer, because they are in it or had come before.
    pub fn push(
        &mut self,
        packet: Box<Packet>,
        stock: &mut Stock,
        exits: &mut Exits,
        now: Time,
    ) -> (Option<Box<Packet>>, u64) {
        let Some(fragment) = Fragment::read(&packet).filter(|fragment| !fragment.is_malformed()) else {
            exits.push(packet, Exit::Drop(FragmentMalformed));
            return (None, 0);
        };
        self.make_room(fragment.key, packet.frame.chunks(), exits);
        let datagram = self.datagrams.entry(fragment.key).or_insert_with(|| {
            self.order.insert(self.next, fragment.key);
            self.next += 1;
            Datagram::new(self.next - 1, now)
        });
        let place = match datagram.refused {
            Some(reason) => Err(reason),
            None => match datagram.place(&fragment, &packet) {
                Place::Duplicate => {
                    stock.put(packet);
                    return (None, 1);
                }
                Place::Overlap => Err(FragmentOverlap),
                Place::At(_) if datagram.pieces.len() == FRAGMENTS => Err(ReassemblyFull),
                Place::At(at) => Ok(at),
            },
        };
        let at = match place {
            Ok(at) => at,
            Err(reason) => {
                // It keeps its place until its time is over, so that what is still to come is refused as well.
                datagram.refused = Some(reason);
                let pieces = mem::take(&mut datagram.pieces);
                self.forget(&pieces);
                leave(pieces, reason, exits);
                exits.push(packet, Exit::Drop(reason));
                return (None, 0);
            }
        };
        let Fragment { from, to, more, data_at, .. } = fragment;
        datagram.octets += to - from;
        datagram.end = if more { datagram.end } else { Some(to) };
        datagram.ecn |= 1 << Ecn::of(packet.tos) as u8;
        let is_whole = datagram.end == Some(datagram.octets);
        self.packets += 1;
        self.chunks += packet.frame.chunks();
        datagram.pieces.insert(at, Piece { packet, data_at, from, to });
        if !is_whole {
            return (None, 0);
        }
        let Some(datagram) = self.remove(fragment.key) else { return (None, 0) };
        match datagram.merge(stock, now) {
            Ok((whole, absorbed)) => (Some(whole), absorbed),
            Err((pieces, reason)) => {
                leave(pieces, reason, exits);
                (None, 0)
            }
        }
    }

    /// The oldest go, until a fragment of the datagram `key` with so many chunks has its place.
    fn make_room(&mut self, key: Key, chunks: usize, exits: &mut Exits) {
        loop {
            let is_full = self.datagrams.len() == DATAGRAMS && !self.datagrams.contains_key(&key);
            if !is_full && self.chunks + chunks <= CHUNKS {
                return;
            }
            let oldest = self.order.values().copied().find(|other| *other != key);
            let Some(datagram) = oldest.and_then(|oldest| self.remove(oldest)) else { return };
            leave(datagram.pieces, ReassemblyFull, exits);
        }
    }

    /// Those whose time is over leave.
    pub fn expire(&mut self, exits: &mut Exits, now: Time) {
        while self.deadline().is_some_and(|deadline| deadline <= now)
            && let Some((_, &key)) = self.order.first_key_value()
            && let Some(datagram) = self.remove(key)
        {
            leave(datagram.pieces, ReassemblyTimeout, exits);
        }
    }

    /// All leave.
    pub fn give_up(&mut self, reason: DropReason, exits: &mut Exits) {
        while let Some((_, &key)) = self.order.first_key_value()
            && let Some(datagram) = self.remove(key)
        {
            leave(datagram.pieces, reason, exits);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&key)?;
        self.order.remove(&datagram.serial);
        self.forget(&datagram.pieces);
        Some(datagram)
    }

    fn forget(&mut self, pieces: &[Piece]) {
        self.packets -= pieces.len();
        self.chunks -= pieces.iter().map(|piece| piece.packet.frame.chunks()).sum::<usize>();
    }
}

fn leave(pieces: Vec<Piece>, reason: DropReason, exits: &mut Exits) {
    pieces.into_iter().for_each(|piece| exits.push(piece.packet, Exit::Drop(reason)));
}

impl Datagram {
    /// The datagram as it was before it was cut, and how many fragments there are no longer.
    fn merge(self, stock: &mut Stock, now: Time) -> Result<(Box<Packet>, u64), (Vec<Piece>, DropReason)> {
        let Ok(ecn) = self.ecn() else { return Err((self.pieces, FragmentEcn)) };
        let mut pieces = self.pieces;
        let first = pieces.first_mut().map(|first| &mut *first.packet);
        // The headers of the others, which may be shorter, no longer count.
        let Some(()) = first.and_then(|first| unfragment(first, self.octets, ecn)) else {
            return Err((pieces, FragmentMalformed));
        };
        let absorbed = pieces.len() as u64 - 1;
        let mut pieces = pieces.into_iter();
        let mut whole = pieces.next().map_or_else(|| stock.empty(), |first| first.packet);
        for piece in pieces {
            let mut frame = stock.unwrap(piece.packet);
            let cut = frame.advance(piece.data_at);
            debug_assert!(cut, "the first chunk has all headers");
            append(&mut whole.frame, frame, stock);
        }
        whole.traits = whole.traits.received();
        whole.arrived = now;
        Ok((whole, absorbed))
    }
}

/// Makes the first fragment's headers those of the whole datagram, which has `octets` of data. `None`, and nothing
/// changed, if it would be too long.
fn unfragment(packet: &mut Packet, octets: usize, ecn: Option<Ecn>) -> Option<()> {
    let l3 = usize::from(packet.l3);
    let tos = ecn.map_or(packet.tos, |ecn| packet.tos & !3 | ecn as u8);
    match packet.family {
        Family::V4 => {
            let mut header = *packet.ipv4()?;
            let options = packet.frame.bytes().get(l3 + Ipv4::SIZE..l3 + header.header_length())?;
            header.total_length = Be16::new(u16::try_from(header.header_length() + octets).ok()?);
            header.fragment = Be16::new(header.fragment.value() & Ipv4::DF);
            header.tos = tos;
            header.checksum = Be16::new(header.computed_checksum(options));
            *header_mut(packet.frame.bytes_mut(), l3)? = header;
        }
        Family::V6 => {
            let (announced_at, at) = fragment_header(packet)?;
            let length = u16::try_from(at - l3 - Ipv6::SIZE + octets).ok()?;
            let next = packet.frame.bytes().header::<Ipv6Fragment>(at)?.next_header;
            let octets = packet.frame.bytes_mut();
            octets[announced_at] = next;
            let header: &mut Ipv6 = header_mut(octets, l3)?;
            header.payload_length = Be16::new(length);
            header.set_traffic_class(tos);
            octets.copy_within(..at, Ipv6Fragment::SIZE);
            packet.frame.advance(Ipv6Fragment::SIZE);
        }
    }
    Some(())
}

/// Puts the data of `tail` behind those of `frame`: into the room that is there, and as chunks of the chain as far as it is
/// not enough. So the headers are in the first chunk, however small the first fragment was, and what fits one chunk is in one.
fn append(frame: &mut Frame, tail: Frame, stock: &mut Stock) {
    let mut rest = Some(tail);
    while let Some((mut chunk, next)) = rest.take().map(Frame::split) {
        let count = chunk.bytes().len().min(frame.tailroom());
        if let Some(room) = frame.append(count) {
            room.copy_from_slice(&chunk.bytes()[..count]);
            chunk.advance(count);
        }
        if chunk.bytes().is_empty() {
            stock.frames.put(chunk)
        } else {
            frame.chain(chunk)
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests;
