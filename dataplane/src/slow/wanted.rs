//! What the slow path has control do: ask for neighbours, and follow what the underlay says of a path.

use crate::packet::{AdjacencyId, Time, TunnelId};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use sys::Wake;

/// How long a wish is not repeated, nanoseconds: packets for a neighbour that does not answer come by the million.
const AGAIN: u64 = Time::SECOND;
/// Wishes that are remembered for that long; when there are more, neighbours that failed are not asked for again.
pub(super) const REMEMBERED: usize = 256;

/// A neighbour: an adjacency, and on a link also an address, since there every destination is one.
type Key = (AdjacencyId, Option<IpAddr>);

/// What control is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The neighbour of this adjacency, which on a link is this address.
    Neighbour(AdjacencyId, IpAddr),
    /// The path to a tunnel's other end carries so many octets and no more, outer IP header included.
    Path(TunnelId, u16),
}

/// Tells control.
pub struct Wanted {
    to: Option<(rtrb::Producer<Wish>, Option<Arc<Wake>>)>,
    /// Wished for since then.
    recent: BTreeSet<Key>,
    since: Time,
}

impl Wanted {
    /// Through a ring, with a bell where control sleeps.
    pub const fn new(ring: rtrb::Producer<Wish>, bell: Option<Arc<Wake>>) -> Self {
        Self { to: Some((ring, bell)), recent: BTreeSet::new(), since: Time(0) }
    }

    /// Nobody is told.
    pub const fn nobody() -> Self {
        Self { to: None, recent: BTreeSet::new(), since: Time(0) }
    }

    /// A packet waits for a neighbour.
    pub fn ask(&mut self, key: Key, address: IpAddr, now: Time) {
        if now.since(self.since) >= AGAIN {
            self.recent.clear();
        }
        if self.recent.contains(&key) {
            return;
        }
        // Full: control is behind. The packet's sender will try again, and so shall we.
        if self.tell(Wish::Neighbour(key.0, address)) {
            if self.recent.is_empty() {
                self.since = now;
            }
            if self.recent.len() < REMEMBERED {
                self.recent.insert(key);
            }
        }
    }

    /// The same for one that has failed.
    pub fn ask_again(&mut self, key: Key, address: IpAddr, now: Time) {
        let forgets = self.recent.len() >= REMEMBERED && now.since(self.since) < AGAIN;
        if !forgets {
            self.ask(key, address, now);
        }
    }

    /// A path carries less than was thought. Not remembered: once the tables follow, there is nothing more to tell.
    pub fn lower(&mut self, tunnel: TunnelId, mtu: u16) {
        self.tell(Wish::Path(tunnel, mtu));
    }

    /// Returns whether there was room.
    fn tell(&mut self, wish: Wish) -> bool {
        let Some((ring, bell)) = &mut self.to else { return false };
        let told = ring.push(wish).is_ok();
        if told && let Some(bell) = bell {
            bell.notify();
        }
        told
    }
}
