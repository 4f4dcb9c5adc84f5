//! Who is policed by what: numbers of policers, whose buckets are the workers' own.

use crate::packet::{Packet, PortId, TunnelId};
use std::sync::Arc;

/// The policer of each interface and of each tunnel; where nobody is policed, it costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Policing(Option<Arc<Ways>>);

#[derive(Debug)]
struct Ways {
    interfaces: Box<[Option<u16>]>,
    tunnels: Box<[Option<u16>]>,
}

impl Policing {
    /// By interface and by tunnel.
    pub fn new(interfaces: Vec<Option<u16>>, tunnels: Vec<Option<u16>>) -> Self {
        let nobody = interfaces.iter().chain(&tunnels).all(Option::is_none);
        let ways = || Arc::new(Ways { interfaces: interfaces.into(), tunnels: tunnels.into() });
        Self((!nobody).then(ways))
    }

    /// Whether anybody is policed.
    #[inline(always)]
    pub const fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// The policer of the way that a packet came in: a tunnel's, if it came out of one.
    #[inline(always)]
    pub fn of_way(&self, packet: &Packet) -> Option<usize> {
        let ways = self.0.as_ref()?;
        let policer = match (packet.tunnel, packet.ingress) {
            (TunnelId::NONE, PortId(port)) => ways.interfaces.get(usize::from(port)),
            (TunnelId(tunnel), _) => ways.tunnels.get(usize::from(tunnel)),
        };
        policer.copied().flatten().map(usize::from)
    }
}
