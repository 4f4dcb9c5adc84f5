//! Whether a link keeps what is guaranteed on it. Guarantees count what `account` says, by default IP packets; a link
//! passes whole frames, preamble and gap included. So it is the packets' length that decides.

use super::{Config, Interface};
use crate::qos::{Account, Rate};

/// Around an IP packet on an Ethernet link: header 14, check sequence 4, preamble 8, gap 12.
const AROUND: u64 = 38;
/// The shortest frame with preamble and gap (IEEE 802.3).
const LEAST_ON_WIRE: u64 = 84;
/// The longest packets that links carry where the file does not say it.
const JUMBO: u16 = 9_000;
/// The mean length of 7 packets of 40 octets, 4 of 576 and 1 of 1,500, the usual simple mix of the Internet's.
const MIXED: u16 = 340;

/// How guarantees do on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They fit as long as packets have so many octets on average, which is what traffic has.
    From(u16),
    /// They fit only with packets that are longer than usual.
    Tight(u16),
    /// Not even the longest packets leave room for more than so many bits per second.
    Never {
        /// Bits per second that can be guaranteed.
        most: u64,
        /// Octets of those packets.
        octets: u16,
    },
}

impl Config {
    /// The sum of all tenants' guarantees, bits per second.
    pub fn guaranteed(&self) -> u64 {
        self.tenants.iter().filter_map(|tenant| tenant.guarantee).map(Rate::bits).sum()
    }

    /// How all guarantees do on an interface whose rate the file says; `None` without guarantees or rate. Octets are those of
    /// IP packets as they leave, outer headers included.
    pub fn fit(&self, interface: &Interface) -> Option<Fit> {
        let (rate, guaranteed) = (interface.rate?.bits(), self.guaranteed());
        if guaranteed == 0 {
            return None;
        }
        let account = self.qos.as_ref().map_or(Account::default(), |qos| qos.account);
        let fits = |octets, overhead| most(account, rate, octets, overhead) >= guaranteed;
        let longest = interface.mtu.unwrap_or(JUMBO);
        // What leaves plain has nothing before it: only what cannot be for any packet is refused.
        if !fits(longest, 0) {
            return Some(Fit::Never { most: most(account, rate, longest, 0), octets: longest });
        }
        let overhead = self.tunnels.iter().map(super::Tunnel::overhead).max().unwrap_or(0);
        let from = (1..=longest).find(|octets| fits(*octets, overhead)).unwrap_or(longest);
        Some(if from > MIXED { Fit::Tight(from) } else { Fit::From(from) })
    }
}

/// Bits per second, as the account counts them, of packets of one length that fill a link.
fn most(account: Account, rate: u64, octets: u16, overhead: u16) -> u64 {
    let octets = u64::from(octets);
    let on_wire = (octets + AROUND).max(LEAST_ON_WIRE);
    let counted = match account {
        Account::L1 => on_wire,
        Account::L2 => octets + 14,
        Account::L3Outer => octets,
        Account::Inner => octets.saturating_sub(overhead.into()),
    };
    // Rates are up to 1.6 Tbit/s: with 16 bits of octets, far from the end.
    rate * counted / on_wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fits(guarantee: &str, more: &str, expected: Fit) {
        let text = format!(
            "[interface.wan0]\naddress = [\"192.0.2.1/24\"]\nrate = \"1G\"\n{more}\n\
             [tenant.a]\nmatch = {{ source = \"10.0.0.0/8\" }}\nguarantee = \"1M\"\n"
        );
        let mut config: Config = text.parse().expect("legal");
        let Ok(bits) = guarantee.parse() else { panic!("{guarantee}") };
        config.tenants[0].guarantee = Rate::new(bits);
        assert_eq!(config.fit(&config.interfaces[0]), Some(expected), "{guarantee} {more}");
    }

    /// By hand: p / (p + 38) of the rate, or p / 84 for the shortest.
    #[test]
    fn the_length_of_packets_decides_whether_guarantees_fit() {
        fits("500000000", "", Fit::From(42));
        fits("600000000", "", Fit::From(57));
        fits("899000000", "", Fit::From(339));
        fits("900000000", "", Fit::Tight(342));
        fits("975292587", "mtu = 1500", Fit::Tight(1_500));
        fits("975292588", "mtu = 1500", Fit::Never { most: 975_292_587, octets: 1_500 });
        fits("995795529", "", Fit::Tight(9_000));
        fits("995795530", "", Fit::Never { most: 995_795_529, octets: 9_000 });
    }

    /// All that is on the wire fits whatever it is; of a tunnel's packets the inner ones are the fewest octets.
    #[test]
    fn what_counts_of_a_packet_decides_too() {
        fits("1000000000", "[qos]\naccount = \"l1\"", Fit::From(1));
        fits("1000000001", "[qos]\naccount = \"l1\"", Fit::Never { most: 1_000_000_000, octets: 9_000 });
        fits("500000000", "[qos]\naccount = \"l2\"", Fit::From(28));
        fits("500000000", "[qos]\naccount = \"inner\"", Fit::From(42));
        let tunnel = "[tunnel.t]\ntype = \"ipip\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.9\"\n";
        fits("500000000", &format!("[qos]\naccount = \"inner\"\n{tunnel}"), Fit::From(78));
        fits("995795529", &format!("[qos]\naccount = \"inner\"\n{tunnel}"), Fit::Tight(9_000));
        fits("500000000", tunnel, Fit::From(42));
    }
}
