//! What a program says that the bytes of a raw segment mean.

use std::fmt;

use crate::persist::{Persist, Schema};

/// The `derive_key` context of names that are too long to be kept. Part of the format; it never changes.
const CONTEXT: &str = "segvm 2026-11 raw segment v1";

/// What the bytes of a raw segment mean, in 32 bytes: recorded when the segment is made, and compared when a program that says
/// what it expects asks for it again.
///
/// A version belongs into it: bytes that are laid out in another way have another fingerprint.
///
/// ```
/// # use segvm::{Fingerprint, SegmentOptions};
/// let grid = SegmentOptions::new().fingerprint(Fingerprint::named("heat: f64, by rows, v2"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Says nothing, and is not compared: the default. As bytes, zeros.
    pub const NONE: Self = Self([0; 32]);

    /// By a name of the program's choice.
    ///
    /// Up to 32 bytes of printable ASCII are recorded as they are, so that a refusal can show what was there; of anything
    /// else, its BLAKE3.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut bytes = [0; 32];
        match bytes.get_mut(..name.len()) {
            Some(place) if is_readable(name.as_bytes()) => place.copy_from_slice(name.as_bytes()),
            _ => bytes = blake3::derive_key(CONTEXT, name.as_bytes()),
        }
        Self(bytes)
    }

    /// By a type that lies in the segment: its fields' names, types and places.
    #[must_use]
    pub fn of<T: Persist>() -> Self {
        Self(Schema::of::<T>().fingerprint())
    }

    /// By bytes of the program's own making; zeros are [`NONE`](Self::NONE).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, as commits have them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn is_readable(name: &[u8]) -> bool {
    name.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A name where it can be read as one, otherwise hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("nothing in particular");
        }
        let end = self.0.iter().rposition(|&byte| byte != 0);
        let name = self
            .0
            .get(..end.map_or(0, |end| end + 1))
            .unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(name) if is_readable(name.as_bytes()) => write!(f, "{name:?}"),
            _ => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_read_back_and_others_are_hashed() {
        let longest = "x".repeat(32);
        for name in ["a", "heat: f64, by rows, v2", &longest] {
            let print = Fingerprint::named(name);
            assert_eq!(print.as_bytes()[..name.len()], *name.as_bytes());
            assert_eq!(print.to_string(), format!("{name:?}"));
        }
        for name in ["Gitter, Größe 3", "two\nlines", &"x".repeat(33)] {
            let text = Fingerprint::named(name).to_string();
            assert!(text.len() == 64 && !text.contains('"'), "{text}");
        }
        assert_eq!(Fingerprint::named(""), Fingerprint::NONE);
        assert_ne!(Fingerprint::of::<u64>(), Fingerprint::of::<i64>());
    }
}
