//! One line of a directory or an index.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{FIRST_BATCH, Flaw, MAX_NODE, MAX_PACK, PAGE_LEN, block_align};
use crate::{
    id::{BlockId, NodeId, PackId},
    unit::{BlockSize, Codec, Place},
};

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A block of a segment.
    Block,
    /// A node of a tree.
    Node,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Node => 2,
        }
    }
}

/// One line of a directory or an index: which bytes lie where. In memory as on disk.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(crate) struct Entry {
    pub(super) id: [u8; 32],
    pub(super) offset: U64,
    pub(super) stored: U32,
    pub(super) kind: u8,
    pub(super) codec: u8,
    /// Base-2 logarithm of a block's length; 0 for nodes.
    pub(super) log2: u8,
    /// None is defined: keyed ids and encryption will be.
    pub(super) flags: u8,
}

/// The length of an [`Entry`] on disk.
pub(crate) const ENTRY: usize = size_of::<Entry>();
const _: () = assert!(ENTRY == 48);

impl Entry {
    pub(crate) fn block(id: BlockId, size: BlockSize, offset: u64) -> Self {
        Self {
            id: *id.as_bytes(),
            offset: offset.into(),
            stored: (1_u32 << size.log2()).into(),
            kind: Kind::Block.byte(),
            codec: 0,
            log2: size.log2(),
            flags: 0,
        }
    }

    pub(crate) fn node(id: NodeId, stored: u32, offset: u64) -> Self {
        Self {
            id: *id.as_bytes(),
            offset: offset.into(),
            stored: stored.into(),
            kind: Kind::Node.byte(),
            codec: 0,
            log2: 0,
            flags: 0,
        }
    }

    pub(crate) const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    pub(crate) fn is(&self, kind: Kind, id: &[u8; 32]) -> bool {
        self.kind == kind.byte() && self.id == *id
    }

    pub(crate) fn order(&self) -> (&[u8; 32], u8, u64) {
        (&self.id, self.kind, self.offset.get())
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset.get()
    }

    pub(crate) fn stored(&self) -> u32 {
        self.stored.get()
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        self.check().ok()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset
            .get()
            .saturating_add(u64::from(self.stored.get()))
    }

    pub(crate) fn place(&self, pack: PackId) -> Place {
        Place {
            pack,
            offset: self.offset.get(),
            stored: self.stored.get(),
            codec: Codec::Raw,
        }
    }

    /// Checks everything that can be checked of an entry on its own.
    pub(crate) fn check(&self) -> Result<Kind, Flaw> {
        if self.codec != 0 || self.flags != 0 {
            return Err("an entry has a codec or flags that this version does not know");
        }
        let stored = self.stored.get();
        if self.offset.get() < FIRST_BATCH + PAGE_LEN || self.end() > MAX_PACK {
            return Err("an entry points outside the pack");
        }
        if self.kind == Kind::Block.byte() {
            let size = BlockSize::from_log2(u32::from(self.log2))
                .ok_or("an entry's block size is not one that exists")?;
            if 1 << size.log2() != stored || !self.offset.get().is_multiple_of(block_align(size)) {
                return Err("an entry's block has another length or alignment than its size says");
            }
            Ok(Kind::Block)
        } else if self.kind == Kind::Node.byte() {
            if self.log2 != 0 || stored == 0 || stored > MAX_NODE {
                return Err("an entry's node is empty or too long");
            }
            Ok(Kind::Node)
        } else {
            Err("an entry is neither block nor node")
        }
    }
}
