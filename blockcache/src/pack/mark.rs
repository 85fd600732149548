//! How far a pack is known to be durable: what the head record of an image carries beside its commit.

use crate::id::PackId;

/// The batches of a pack up to `len` are durable; what lies beyond is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackMark {
    /// The pack.
    pub pack: PackId,
    /// Bytes from the beginning of the pack file to the end of its last durable batch.
    pub len: u64,
}

impl PackMark {
    /// The length of an encoded mark.
    pub const ENCODED: usize = 16;

    /// Encodes it: pack, then length, both little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::ENCODED] {
        let mut bytes = [0; Self::ENCODED];
        let (pack, len) = bytes.split_at_mut(8);
        pack.copy_from_slice(&self.pack.0.to_le_bytes());
        len.copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Decodes what [`encode`](Self::encode) made.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::ENCODED]) -> Self {
        let number = |at: usize| {
            let half = bytes.iter().skip(at).take(8).rev();
            half.fold(0_u64, |n, &byte| n << 8 | u64::from(byte))
        };
        Self {
            pack: PackId(number(0)),
            len: number(8),
        }
    }
}

/// What is wrong with encoded marks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarksError {
    /// The length is not a number of marks that exists.
    #[error("marks are at most {max} times 16 bytes, not {len} bytes", max = Marks::MAX)]
    Length {
        /// Bytes that were given.
        len: usize,
    },
    /// One pack is named twice.
    #[error("pack {pack} is marked twice")]
    Twice {
        /// The pack.
        pack: PackId,
    },
}

/// The marks of the packs that an image's newest commits may lie in and that are not sealed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// At most [`Marks::MAX`]; no pack twice.
    list: Vec<PackMark>,
}

impl Marks {
    /// How many marks a record carries at most.
    pub const MAX: usize = 8;

    /// The marks, in the order they were set.
    #[must_use]
    pub fn list(&self) -> &[PackMark] {
        &self.list
    }

    /// Sets the mark of a pack, replacing the one it had.
    ///
    /// Answers `false`, and changes nothing, where [`Marks::MAX`] other packs are marked already: then one of them
    /// has to be sealed first.
    #[must_use]
    pub fn set(&mut self, mark: PackMark) -> bool {
        if let Some(old) = self.list.iter_mut().find(|old| old.pack == mark.pack) {
            *old = mark;
            return true;
        }
        let fits = self.list.len() < Self::MAX;
        if fits {
            self.list.push(mark);
        }
        fits
    }

    /// Forgets a pack: it was sealed, and needs no mark any more.
    pub fn clear(&mut self, pack: PackId) {
        self.list.retain(|mark| mark.pack != pack);
    }

    /// Encodes them one after the other: at most 128 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.list.iter().flat_map(PackMark::encode).collect()
    }

    /// Decodes what [`encode`](Self::encode) made.
    ///
    /// - **Errors**: a length that is not a whole number of marks, or too many; a pack marked twice.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarksError> {
        let (chunks, rest) = bytes.as_chunks::<{ PackMark::ENCODED }>();
        if !rest.is_empty() || chunks.len() > Self::MAX {
            return Err(MarksError::Length { len: bytes.len() });
        }
        let mut marks = Self::default();
        for chunk in chunks {
            let mark = PackMark::decode(chunk);
            if marks.list.iter().any(|other| other.pack == mark.pack) {
                return Err(MarksError::Twice { pack: mark.pack });
            }
            marks.list.push(mark);
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(pack: u64, len: u64) -> PackMark {
        PackMark {
            pack: PackId(pack),
            len,
        }
    }

    #[test]
    fn marks_and_back() {
        let mut marks = Marks::default();
        for n in 0..8 {
            assert!(marks.set(mark(n, n << 12)));
        }
        assert!(!marks.set(mark(8, 1)));
        assert!(marks.set(mark(3, 0x0102_0304_0506_0708)));
        let bytes = marks.encode();
        assert_eq!(&bytes[3 * 16 + 8..4 * 16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Marks::decode(&bytes), Ok(marks.clone()));
        marks.clear(PackId(0));
        assert_eq!(marks.list().len(), 7);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(Marks::decode(&[0; 17]), Err(MarksError::Length { len: 17 }));
        assert_eq!(
            Marks::decode(&[0; 144]),
            Err(MarksError::Length { len: 144 })
        );
        let twice = [0; 32];
        assert_eq!(
            Marks::decode(&twice),
            Err(MarksError::Twice { pack: PackId(0) })
        );
    }
}
