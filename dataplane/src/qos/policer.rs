//! Policers: what comes above a rate is marked or dropped, at once (RFC 2697, RFC 2698, RFC 4115).
//!
//! Levels are in **nanobits** (bits × 10⁹), so that `rate × elapsed` adds without a division and no fraction of a token is
//! ever rounded away; packet tokens are in billionths of a packet. Time that goes backwards earns nothing and is not
//! earned again; after a long idle time a bucket is full and no more.
//!
//! The kinds differ in who fills the second bucket (what the first one spills, a rate of its own) and in who empties it
//! (yellow packets only, or green ones too). Lengths are of the IP packet (RFC 2697 §3).

use crate::packet::{Batch, DropReason, Exit, Exits, Packet, Time};
use crate::stats::Tally;
use crate::tables::Policing;
use wire::Ecn;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One rate, three colours: the second bucket gets what the first spills.
    Rfc2697,
    /// Two rates, three colours: the second is the peak, and green counts against it.
    Rfc2698,
    /// Two rates, three colours: the second is what comes on top of the first.
    Rfc4115,
}

/// How a packet stands to the rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// Within the committed rate.
    Green,
    /// Above it, within the second bucket.
    Yellow,
    /// Above both, or above the rate of packets.
    Red,
}

impl Colour {
    /// In order.
    pub const ALL: [Self; 3] = [Self::Green, Self::Yellow, Self::Red];

    /// As another router has marked it: the drop precedence of an assured forwarding class (RFC 2597 §6); else green.
    pub const fn of_dscp(dscp: u8) -> Self {
        match (dscp >> 3, dscp & 7) {
            (1..=4, 4) => Self::Yellow,
            (1..=4, 6) => Self::Red,
            _ => Self::Green,
        }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}

/// What happens to a packet that is not green.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on as it is.
    Pass,
    /// It is dropped.
    Drop,
    /// It goes on with this DSCP.
    Dscp(u8),
    /// It goes on with congestion marked. One that cannot carry the mark (RFC 3168 §5) goes on without when it is
    /// yellow, and is dropped when it is red.
    Ce,
}

impl Action {
    /// As the file says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Dscp(_) => "dscp",
            Self::Ce => "ce",
        }
    }
}

/// What a policer promises: plain data, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Which kind.
    pub kind: Kind,
    /// Committed rate, bits per second.
    pub cir: u64,
    /// The second rate, bits per second: peak (RFC 2698), excess (RFC 4115), 0 (RFC 2697).
    pub pir: u64,
    /// Octets of the first bucket, at most [`Self::MOST_BURST`].
    pub cbs: u32,
    /// Octets of the second bucket: peak (RFC 2698) or excess. At most [`Self::MOST_BURST`].
    pub pbs: u32,
    /// Packets per second; 0 is any number.
    pub packets: u32,
    /// Whether colours that packets come with count.
    pub colour_aware: bool,
    /// What happens to yellow packets.
    pub exceed: Action,
    /// What happens to red packets.
    pub violate: Action,
}

impl Profile {
    /// What happens to packets of a colour.
    pub const fn action(&self, colour: Colour) -> Action {
        match colour {
            Colour::Green => Action::Pass,
            Colour::Yellow => self.exceed,
            Colour::Red => self.violate,
        }
    }

    /// Octets of a bucket at most: a gigabyte, whose nanobits fit 64 bits twice.
    pub const MOST_BURST: u32 = 1_000_000_000;

    /// One worker's part of it, of `count`: parts of the rates, which add up to them, and of the bursts, each of which must
    /// hold the longest packets. So while workers are equally busy the promise is whole, and it is never exceeded but by
    /// those bursts.
    #[must_use]
    pub fn share(self, at: usize, count: usize) -> Self {
        let (at, count) = (at as u64, count.max(1) as u64);
        let part = |whole: u64| whole / count + u64::from(at < whole % count);
        let burst = |whole: u32| (whole / count as u32).max(whole.min(LONGEST));
        Self {
            cir: part(self.cir),
            pir: part(self.pir),
            cbs: burst(self.cbs),
            pbs: burst(self.pbs),
            // Zero is any number.
            packets: if self.packets == 0 { 0 } else { part(self.packets.into()).max(1) as u32 },
            ..self
        }
    }
}

/// Two jumbo packets.
const LONGEST: u32 = 18_000;
/// Nanobits of an octet.
const OCTET: u64 = 8_000_000_000;
/// Tokens of a packet.
const PACKET: u64 = 1_000_000_000;
/// Packets that may come at once, whatever their rate.
const LEAST_PACKETS: u64 = 64;
/// The time whose packets may come at once, as a part of a second.
const PACKETS_AT_ONCE: u64 = 100;

/// One policer: what it promises and how full its buckets are, in one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Policer {
    /// Nanobits in the first bucket.
    committed: u64,
    /// Nanobits in the second bucket.
    second: u64,
    /// Billionths of a packet.
    packets: u64,
    last: Time,
    cir: u64,
    pir: u64,
    cbs: u32,
    pbs: u32,
    pps: u32,
    kind: Kind,
    colour_aware: bool,
}

const _: () = assert!(size_of::<Policer>() == 64);

impl Policer {
    /// With full buckets.
    pub const fn new(profile: &Profile) -> Self {
        let mut policer = Self {
            committed: profile.cbs as u64 * OCTET,
            second: profile.pbs as u64 * OCTET,
            packets: 0,
            last: Time(0),
            cir: profile.cir,
            pir: profile.pir,
            cbs: profile.cbs,
            pbs: profile.pbs,
            pps: profile.packets,
            kind: profile.kind,
            colour_aware: profile.colour_aware,
        };
        policer.packets = policer.most_packets();
        policer
    }

    /// The colour of a packet of so many octets of IP, which came with a colour. Its tokens are taken.
    #[inline(always)]
    pub fn colour(&mut self, octets: u32, came: Colour, now: Time) -> Colour {
        // A batch shares its time: most packets find everything filled already.
        if now > self.last {
            self.fill(now.since(self.last));
            self.last = now;
        }
        let tokens = u64::from(octets) * OCTET;
        let came = if self.colour_aware { came } else { Colour::Green };
        let has_packet = self.pps == 0 || self.packets >= PACKET;
        let colour = match self.kind {
            _ if !has_packet => Colour::Red,
            // RFC 2698 §3: the peak first, and all that is not red counts against it.
            Kind::Rfc2698 => {
                if came == Colour::Red || self.second < tokens {
                    Colour::Red
                } else {
                    self.second -= tokens;
                    if came == Colour::Yellow || self.committed < tokens {
                        Colour::Yellow
                    } else {
                        self.committed -= tokens;
                        Colour::Green
                    }
                }
            }
            // RFC 2697 §3, RFC 4115 §4: one bucket or the other.
            Kind::Rfc2697 | Kind::Rfc4115 => {
                if came == Colour::Green && self.committed >= tokens {
                    self.committed -= tokens;
                    Colour::Green
                } else if came <= Colour::Yellow && self.second >= tokens {
                    self.second -= tokens;
                    Colour::Yellow
                } else {
                    Colour::Red
                }
            }
        };
        if self.pps != 0 && colour != Colour::Red {
            self.packets -= PACKET;
        }
        colour
    }

    /// What so many nanoseconds have earned.
    #[inline(always)]
    fn fill(&mut self, elapsed: u64) {
        let (cbs, pbs) = (u64::from(self.cbs) * OCTET, u64::from(self.pbs) * OCTET);
        let room = cbs - self.committed;
        if self.kind == Kind::Rfc2697 {
            let earned = earned(self.cir, elapsed, cbs + pbs);
            let kept = earned.min(room);
            self.committed += kept;
            self.second += (earned - kept).min(pbs - self.second);
        } else {
            self.committed += earned(self.cir, elapsed, room);
            self.second += earned(self.pir, elapsed, pbs - self.second);
        }
        if self.pps != 0 {
            self.packets += earned(self.pps.into(), elapsed, self.most_packets() - self.packets);
        }
    }

    const fn most_packets(&self) -> u64 {
        let at_once = self.pps as u64 * (PACKET / PACKETS_AT_ONCE);
        if at_once > LEAST_PACKETS * PACKET { at_once } else { LEAST_PACKETS * PACKET }
    }
}

/// `rate × elapsed`, at most `room`: exact, however long that was.
#[inline(always)]
const fn earned(rate: u64, elapsed: u64, room: u64) -> u64 {
    let earned = rate as u128 * elapsed as u128;
    if earned < room as u128 { earned as u64 } else { room }
}

/// All policers of one worker.
#[derive(Debug, Default)]
pub struct Policers {
    all: Box<[Policer]>,
    actions: Box<[[Action; 3]]>,
}

impl Policers {
    /// In the order of the configuration.
    pub fn new(profiles: impl Iterator<Item = Profile> + Clone) -> Self {
        let actions = |profile: Profile| Colour::ALL.map(|colour| profile.action(colour));
        Self {
            all: profiles.clone().map(|profile| Policer::new(&profile)).collect(),
            actions: profiles.map(actions).collect(),
        }
    }

    /// Lets go what may go on, marked as its policers say: that of the way in, then that of the tenant, which sees what
    /// the first has let pass. What is too much goes to `exits`.
    #[inline(always)]
    pub fn admit(&mut self, batch: &mut Batch, exits: &mut Exits, policing: &Policing, now: Time, tally: &mut Tally) {
        if policing.polices_ways() {
            self.admit_some(batch, exits, |packet| policing.of_way(packet), now, tally);
        }
        if policing.polices_tenants() {
            self.admit_some(batch, exits, |packet| policing.of_tenant(packet), now, tally);
        }
    }

    #[inline(never)]
    fn admit_some(
        &mut self,
        batch: &mut Batch,
        exits: &mut Exits,
        policer: impl Fn(&Packet) -> Option<usize>,
        now: Time,
        tally: &mut Tally,
    ) {
        batch.retain(exits, |packet| match policer(packet) {
            Some(policer) => self.police(packet, policer, now, tally),
            None => Ok(()),
        });
    }

    #[inline(always)]
    fn police(&mut self, packet: &mut Packet, at: usize, now: Time, tally: &mut Tally) -> Result<(), Exit> {
        let (Some(policer), Some(actions)) = (self.all.get_mut(at), self.actions.get(at)) else { return Ok(()) };
        let colour = policer.colour(packet.len, Colour::of_dscp(packet.tos >> 2), now);
        tally.policed(at, colour, packet.len.into());
        match actions[colour as usize] {
            Action::Pass => Ok(()),
            Action::Drop => Err(Exit::Drop(DropReason::Policed)),
            Action::Dscp(dscp) => {
                packet.set_tos(dscp << 2 | packet.tos & 3);
                Ok(())
            }
            Action::Ce if Ecn::of(packet.tos) != Ecn::NotEct => {
                packet.set_tos(packet.tos | Ecn::Ce as u8);
                Ok(())
            }
            Action::Ce if colour == Colour::Yellow => Ok(()),
            Action::Ce => Err(Exit::Drop(DropReason::Policed)),
        }
    }
}

#[cfg(test)]
mod tests;
