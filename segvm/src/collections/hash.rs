//! How keys are hashed. Part of the image format: a table is searched by the next build with what this one put in.

use std::hash::{BuildHasher, Hasher};

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;

/// Multiplies to 128 bits and folds the halves: every bit of both reaches every bit of the answer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves are what is wanted"
)]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128) * (b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// What makes one table's hashes differ from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// Hashes a number.
    #[must_use]
    #[inline]
    pub const fn of_number(self, number: u64) -> u64 {
        fold(number ^ self.0 ^ A, B)
    }

    /// Hashes bytes; their number counts.
    #[must_use]
    #[inline]
    pub fn of_bytes(self, bytes: &[u8]) -> u64 {
        let mut state = self.0 ^ bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<16>();
        for word in words {
            let [low, high] = halves(u128::from_le_bytes(*word));
            state = fold(low ^ state ^ A, high ^ B);
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            let [low, high] = halves(u128::from_le_bytes(last));
            state = fold(low ^ state ^ A, high ^ B);
        }
        fold(state ^ A, B)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves are what is wanted"
)]
const fn halves(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

impl BuildHasher for Seed {
    type Hasher = FormatHasher;

    fn build_hasher(&self) -> FormatHasher {
        FormatHasher { state: self.0 }
    }
}

/// The same hashing for std's collections: to compare with them on equal terms.
#[derive(Debug, Clone, Copy)]
pub struct FormatHasher {
    state: u64,
}

impl Hasher for FormatHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        self.state = Seed(self.state).of_bytes(bytes);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.state = Seed(self.state).of_number(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change() {
        let seed = Seed(7);
        assert_eq!(seed.of_number(0), GOLDEN[0]);
        assert_eq!(seed.of_number(u64::MAX), GOLDEN[1]);
        assert_eq!(seed.of_bytes(b""), GOLDEN[2]);
        assert_eq!(seed.of_bytes(b"sixteen bytes ok"), GOLDEN[3]);
        assert_eq!(
            seed.of_bytes("some more than sixteen".as_bytes()),
            GOLDEN[4]
        );
    }

    /// Computed by another program, in Python, from the rules above.
    const GOLDEN: [u64; 5] = [
        0x4c9d_70e1_60cf_e901,
        0x32d1_4ef6_94ef_e62d,
        0x4c9d_70e1_60cf_e901,
        0xc6c7_42c3_fdf9_22d3,
        0x2937_a2e7_c6f0_e24b,
    ];

    #[test]
    fn trailing_zeros_count() {
        assert_ne!(Seed(7).of_bytes(b"a"), Seed(7).of_bytes(b"a\0"));
    }
}
