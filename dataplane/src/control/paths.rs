//! Path MTUs that the underlay has named: believed for a while, since nobody says when a path is wide again.

use crate::config::Config;
use crate::packet::{Time, TunnelId};
use std::collections::BTreeMap;

/// How long a path is taken for narrow (RFC 1191 §6.3, RFC 8201 §5.2: ten minutes).
const AGE: u64 = 600 * Time::SECOND;

/// Narrowed paths by tunnel.
#[derive(Debug, Default)]
pub struct Paths {
    narrow: BTreeMap<TunnelId, Path>,
}

#[derive(Clone, Copy, Debug)]
struct Path {
    mtu: u16,
    until: Time,
}

impl Paths {
    /// The path of a tunnel carries `mtu` octets, outer IP header included, and no more: so do those of all tunnels between
    /// the same ends. Returns whether that is news.
    pub fn lower(&mut self, config: &Config, id: TunnelId, mtu: u16, now: Time) -> bool {
        let Some(heard) = config.tunnels.get(id.index()) else { return false };
        let ends = (heard.underlay_vrf, heard.local, heard.remote);
        let mut news = false;
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            let id = TunnelId(at as u16);
            if (tunnel.underlay_vrf, tunnel.local, tunnel.remote) == ends
                && self.mtu(id).is_none_or(|known| mtu < known)
            {
                self.narrow.insert(id, Path { mtu, until: Time(now.0 + AGE) });
                news = true;
            }
        }
        news
    }

    /// What was heard of a tunnel's path.
    pub fn mtu(&self, id: TunnelId) -> Option<u16> {
        self.narrow.get(&id).map(|path| path.mtu)
    }

    /// Forgets what is too old. Returns whether there was any.
    pub fn expire(&mut self, now: Time) -> bool {
        let before = self.narrow.len();
        self.narrow.retain(|_, path| now < path.until);
        self.narrow.len() != before
    }

    /// When the next is too old.
    pub fn due(&self) -> Option<Time> {
        self.narrow.values().map(|path| path.until).min()
    }
}
