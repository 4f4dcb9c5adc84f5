//! Explicit congestion notification through tunnels (RFC 3168, RFC 6040).

/// The two low bits of the traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not capable: drop instead of marking.
    NotEct = 0,
    /// Capable, ECT(1).
    Ect1 = 1,
    /// Capable, ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// Of a traffic class octet.
    #[inline(always)]
    pub const fn of(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// What a decapsulator does with the inner header (RFC 6040 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decapsulated {
    /// What the inner header carries on; `None`: the packet is dropped.
    pub inner: Option<Ecn>,
    /// The combination is one that no compliant encapsulator or queue makes: an operator should know.
    pub alarm: bool,
}

/// The whole table of RFC 6040 §4.2, figure 4.
#[inline(always)]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Decapsulated {
    use Ecn::{Ce, Ect0, Ect1, NotEct};
    let (to, alarm) = match (inner, outer) {
        (NotEct, NotEct) => (Some(NotEct), false),
        (NotEct, Ect0 | Ect1) => (Some(NotEct), true),
        // Congestion was met and the transport would never hear of it: only a loss tells it.
        (NotEct, Ce) => (None, true),
        (Ect0, NotEct | Ect0) => (Some(Ect0), false),
        (Ect0, Ect1) => (Some(Ect1), false),
        (Ect1, NotEct | Ect1) => (Some(Ect1), false),
        (Ect1, Ect0) => (Some(Ect1), true),
        (Ect0 | Ect1, Ce) => (Some(Ce), false),
        (Ce, Ect1) => (Some(Ce), true),
        (Ce, _) => (Some(Ce), false),
    };
    Decapsulated { inner: to, alarm }
}

#[cfg(test)]
mod tests {
    use super::Ecn::{self, Ce, Ect0, Ect1, NotEct};
    use super::*;

    /// RFC 6040 figure 4, read row by row; the alarms are its cells marked (!!!) and (!).
    #[test]
    fn decapsulates_all_sixteen_combinations_as_the_rfc_says() {
        let columns = [NotEct, Ect0, Ect1, Ce];
        let rows: [(Ecn, [Option<Ecn>; 4]); 4] = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in columns.into_iter().zip(expected) {
                assert_eq!(decapsulate(inner, outer).inner, expected, "{inner:?} in {outer:?}");
            }
        }
        let alarms = [(NotEct, Ect0), (NotEct, Ect1), (NotEct, Ce), (Ect1, Ect0), (Ce, Ect1)];
        for inner in columns {
            for outer in columns {
                assert_eq!(decapsulate(inner, outer).alarm, alarms.contains(&(inner, outer)), "{inner:?} in {outer:?}");
            }
        }
    }
}
