//! A commit: the trees of all segments at one instant, and what a resume must know before it maps them.
//!
//! Its id is the hash of its bytes, so equal commits have equal ids everywhere, and one commit has one encoding.
//! Signatures are not part of a commit: they would change what they sign. They go into the attachments of the
//! record that carries the commit, outside its identity.

mod decode;
mod encode;

use std::collections::BTreeMap;

use segvm_blockcache::{BlockSize, CommitId, TreeId};

pub use self::{decode::DecodeError, encode::InvalidCommit};
use crate::time::Timestamp;

/// The first bytes of every commit.
const MAGIC: [u8; 8] = *b"SEGVMCMT";
const VERSION: u16 = 1;

/// The longest encoded commit, in bytes.
pub(crate) const COMMIT_MAX: usize = 1 << 20;
const PARENTS_MAX: usize = 16;
const TEXT_MAX: usize = 255;
const SEGMENTS_MAX: usize = 4096;
const RANGES_MAX: usize = 1 << 14;
const ATTRIBUTES_MAX: usize = 256;
const ATTRIBUTE_MAX: usize = 1 << 16;

/// All segments of an image at one instant. Immutable once named by its id.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Commit {
    /// The commits that this one continues: none for the first of an image, one for most. At most 16.
    pub parents: Vec<CommitId>,
    /// When the instant was.
    pub time: Timestamp,
    /// The machine's name, at most 255 bytes.
    pub host: String,
    /// The program's name, at most 255 bytes: a resume by another program is refused.
    pub program: String,
    /// Changes at every resume, clone, branch and restore.
    pub generation: u64,
    /// Base-2 logarithm of the page size of the machine that made it.
    pub page_size_log2: u8,
    /// Bytes in a pointer of the program that made it.
    pub pointer_width: u8,
    /// In ascending order of names, each name once. At most 4,096.
    pub segments: Vec<SegmentRecord>,
    /// What programs add: at most 256 keys of 1 to 255 bytes, values of at most 64 KiB.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// One segment in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// 1 to 255 bytes.
    pub name: String,
    /// Its content.
    pub tree: TreeId,
    /// How long it is, in bytes; at most `reserved`.
    pub len: u64,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The address of its first byte.
    pub base: u64,
    /// How much address space is set aside for it, in bytes; `base + reserved` does not overflow.
    pub reserved: u64,
    /// What manages its bytes.
    pub kind: SegmentKind,
    /// Fingerprint of the schema of what is in it; zeros where there is none.
    pub fingerprint: [u8; 32],
    /// Ranges that are not simply kept: in ascending order, without overlap, none empty, within `reserved`.
    /// At most 16,384.
    pub ranges: Vec<RangeAttribute>,
}

/// What manages the bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SegmentKind {
    /// The program itself.
    Raw,
    /// A heap, which owns all of it.
    Heap,
}

/// A range of a segment that is not simply kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RangeAttribute {
    /// Bytes from the segment's base.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What becomes of it.
    pub kind: RangeKind,
}

/// What becomes of a range that is not simply kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RangeKind {
    /// A cache: not saved, zero after a resume.
    Drop,
    /// A secret: never written to disk, zero after a resume.
    Wipe,
    /// Not saved; refilled by the program after a resume.
    Regenerate,
}

impl Commit {
    /// The commit's bytes: the same for equal commits, on every machine.
    ///
    /// - **Errors**: [`InvalidCommit`] where a limit or an order that a field states is broken.
    /// - **Source**: docs/format.md 8.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidCommit> {
        encode::commit(self)
    }

    /// Reads a commit from all of `bytes`.
    ///
    /// - **Cost**: memory at most a few times the length of `bytes`, whatever they say.
    /// - **Errors**: for every input that [`encode`](Self::encode) does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::commit(bytes)
    }

    /// The commit's name.
    ///
    /// - **Errors**: as [`encode`](Self::encode).
    pub fn id(&self) -> Result<CommitId, InvalidCommit> {
        Ok(CommitId::of(&self.encode()?))
    }
}

impl SegmentKind {
    const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Heap => 1,
        }
    }
}

impl RangeKind {
    const fn code(self) -> u8 {
        match self {
            Self::Drop => 1,
            Self::Wipe => 2,
            Self::Regenerate => 3,
        }
    }
}
