//! What a lookup answers.

use std::num::NonZeroU16;

/// What a prefix leads to: 1..=32767, for the owner to interpret.
///
/// Zero is "not found" inside the tables, and the highest bit is theirs, so `Option<Value>`
/// takes two octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Value(NonZeroU16);

impl Value {
    /// The highest value there is.
    pub const MAX: u16 = 0x7fff;

    /// `None` for zero and for anything above [`Value::MAX`].
    #[inline]
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) if value.get() <= Self::MAX => Some(Self(value)),
            _ => None,
        }
    }

    /// The number, 1..=32767.
    #[inline]
    pub const fn as_u16(self) -> u16 {
        self.0.get()
    }

    /// The number as an index into a table whose first element is never used.
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize
    }

    /// The value in the low 15 bits of a table's entry: no test but that for zero.
    #[inline]
    pub(crate) const fn in_entry(entry: u32) -> Option<Self> {
        match NonZeroU16::new(entry as u16 & Self::MAX) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_neither_zero_nor_wider_than_fifteen_bits() {
        assert_eq!(Value::new(0), None);
        assert_eq!(Value::new(1).map(Value::as_u16), Some(1));
        assert_eq!(Value::new(0x7fff).map(Value::index), Some(0x7fff));
        assert_eq!(Value::new(0x8000), None);
        assert_eq!(size_of::<Option<Value>>(), 2);
    }
}
