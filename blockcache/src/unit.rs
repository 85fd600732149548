//! Numbers with types: sizes, indices and places of blocks, closed under their own arithmetic.

use std::fmt;

use crate::id::PackId;

/// The size of a segment's blocks: a power of two from 4 KiB to 2 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize {
    /// 12 to 21.
    log2: u8,
}

impl BlockSize {
    /// 4 KiB.
    pub const MIN: Self = Self { log2: 12 };
    /// 2 MiB.
    pub const MAX: Self = Self { log2: 21 };
    /// 16 KiB: the smallest size at which hashing runs at its full speed (docs/design/store.md).
    pub const DEFAULT: Self = Self { log2: 14 };

    /// Accepts the powers of two from 4 KiB to 2 MiB.
    #[must_use]
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() {
            Self::from_log2(bytes.trailing_zeros())
        } else {
            None
        }
    }

    /// Accepts 12 to 21.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked to be at most 21")]
    pub const fn from_log2(log2: u32) -> Option<Self> {
        if log2 >= 12 && log2 <= 21 {
            Some(Self { log2: log2 as u8 })
        } else {
            None
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.log2
    }

    /// The base-2 logarithm of the size in bytes.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.log2
    }

    /// How many blocks cover `len` bytes; the last one may be covered in part.
    #[must_use]
    pub const fn count(self, len: u64) -> u64 {
        len.div_ceil(1 << self.log2)
    }

    /// The block that the byte at `offset` lies in.
    #[must_use]
    pub const fn index(self, offset: u64) -> BlockIndex {
        BlockIndex(offset >> self.log2)
    }

    /// Where a block begins, in bytes from the segment's base.
    #[must_use]
    pub const fn offset(self, index: BlockIndex) -> u64 {
        index.0 << self.log2
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB blocks", self.bytes() >> 10)
    }
}

/// The place of a block in its segment, counted in blocks from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(pub u64);

impl BlockIndex {
    /// The block `n` blocks further on.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }
}

/// Where the bytes of a block or node lie in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The pack.
    pub pack: PackId,
    /// Bytes from the beginning of the pack file.
    pub offset: u64,
    /// Bytes as stored.
    pub stored: u32,
    /// How they are stored.
    pub codec: Codec,
}

/// How the bytes of a block are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// As they are; only such blocks can be mapped.
    #[default]
    Raw,
}
