//! What a check found, and how bad it is.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{
    id::{BlockId, NodeId, PackId, TreeId},
    pack::PackMark,
    tree::DecodeError,
    unit::{BlockIndex, BlockSize},
};

/// How bad a finding is. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// No root needs what is damaged.
    Unreached,
    /// Every root can be read: what is damaged is there twice, or is made again by whoever needs it.
    Mendable,
    /// A root cannot be read as a whole, or would be shown wrong.
    Harm,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// The page at the beginning of a pack.
    #[error("the header of pack {pack}: {flaw}")]
    PackHeader {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The seal page of a pack.
    #[error("the seal of pack {pack}: {flaw}")]
    Seal {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The header of a batch. What follows it was found by looking for the next header.
    #[error("a batch header of pack {pack}: {flaw}")]
    BatchHeader {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The directory of a batch, or one entry of it.
    #[error("a directory of pack {pack}: {flaw}")]
    Directory {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The index of a sealed pack.
    #[error("the index of pack {pack}: {flaw}")]
    Index {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// A pack file is shorter or longer than it says.
    #[error("pack {pack} has {len} bytes where {wanted} were expected")]
    Length {
        /// The pack.
        pack: PackId,
        /// Bytes there are.
        len: u64,
        /// Bytes there should be.
        wanted: u64,
    },
    /// A record says that a pack is durable up to a place where it is not.
    #[error("pack {} is marked by image {image} up to {}: {flaw}", mark.pack, mark.len)]
    Mark {
        /// The image whose record says so.
        image: Arc<str>,
        /// What it says.
        mark: PackMark,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The bytes of a block are not what its id names.
    #[error("block {id:.12} in pack {pack}{}", copy(elsewhere.as_ref()))]
    Block {
        /// The block.
        id: BlockId,
        /// The pack.
        pack: PackId,
        /// A pack that has it too and in which nothing is known to be wrong with it.
        elsewhere: Option<PackId>,
    },
    /// The bytes of a node are not what its id names.
    #[error("node {id:.12} in pack {pack}{}", copy(elsewhere.as_ref()))]
    Node {
        /// The node.
        id: NodeId,
        /// The pack.
        pack: PackId,
        /// A pack that has it too and in which nothing is known to be wrong with it.
        elsewhere: Option<PackId>,
    },
    /// An image needs what is in a pack that is not sealed, and does not mark it: it may not be opened to the end.
    #[error("pack {pack} is not sealed, and an image needs it that does not mark it")]
    NotShared {
        /// The pack.
        pack: PackId,
    },
    /// A tree refers to a block that no pack has.
    #[error("block {id:.12} is nowhere; it is block {} of its segment", index.0)]
    AbsentBlock {
        /// The block.
        id: BlockId,
        /// One of its places in the first of the roots that have it.
        index: BlockIndex,
    },
    /// A tree refers to a node that no pack has.
    #[error("node {id:.12} is nowhere")]
    AbsentNode {
        /// The node.
        id: NodeId,
    },
    /// A node is what its id names, and is no node that belongs there.
    #[error("node {id:.12} is malformed: {source}")]
    Malformed {
        /// The node.
        id: NodeId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A block has another length than the blocks of the segment that it is in.
    #[error("block {id:.12} has {stored} bytes in a segment of {size:?}")]
    BlockLength {
        /// The block.
        id: BlockId,
        /// Its length.
        stored: u32,
        /// What it should be.
        size: BlockSize,
    },
    /// The head of a tree says something else than the commit that names it.
    #[error("tree {tree:.12} is of {len} bytes in {block_size:?}, which its commit does not say")]
    HeadDiffers {
        /// The tree.
        tree: TreeId,
        /// The length in its head.
        len: u64,
        /// The block size in its head.
        block_size: BlockSize,
    },
    /// A tree has blocks beyond the end of its segment.
    #[error("tree {tree:.12} has {blocks} blocks, {room} of them before its segment's end")]
    TooManyBlocks {
        /// The tree.
        tree: TreeId,
        /// Blocks up to its last one.
        blocks: u64,
        /// Blocks that the segment has.
        room: u64,
    },
    /// An extent map is not whole. Whoever needs it makes it again.
    #[error("the extent map of tree {tree:.12} is not whole")]
    ExtentMap {
        /// The tree.
        tree: TreeId,
    },
    /// An extent map is whole and does not show its tree. Whoever maps by it sees wrong bytes: remove the file.
    #[error("the extent map of tree {tree:.12}, at block {}: {flaw}", index.0)]
    FalseMap {
        /// The tree.
        tree: TreeId,
        /// The first block that it shows wrong.
        index: BlockIndex,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// Bytes between the parts of a pack are not zero. Nothing reads them.
    #[error("{len} bytes between the parts of pack {pack} should be zero and are not")]
    Gap {
        /// The pack.
        pack: PackId,
        /// From the first that is not zero to the last.
        len: u64,
    },
    /// A file could not be read there.
    #[error("it could not be read: {source}")]
    Unreadable {
        /// The kernel's word.
        source: io::Error,
    },
}

fn copy(elsewhere: Option<&PackId>) -> String {
    elsewhere.map_or_else(
        || " does not have its hash".to_owned(),
        |pack| format!(" does not have its hash; pack {pack} has it too"),
    )
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What it is.
    pub what: What,
    /// How bad it is.
    pub severity: Severity,
    /// The file; none for what is nowhere.
    pub path: Option<PathBuf>,
    /// Where in the file; 0 where that means nothing.
    pub offset: u64,
    /// The roots that it touches: positions in the list that was given, ascending.
    pub touches: Vec<usize>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(
                f,
                "{} at offset {}: {}",
                path.display(),
                self.offset,
                self.what
            ),
            None => write!(f, "{}", self.what),
        }
    }
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that is wrong, in the order of files and offsets.
    pub findings: Vec<Finding>,
    /// Packs looked at, sealed and marked.
    pub packs: u64,
    /// Their batches.
    pub batches: u64,
    /// Blocks in them, counted once for each place.
    pub blocks: u64,
    /// Nodes in them, counted once for each place.
    pub nodes: u64,
    /// Blocks and nodes whose hash was computed.
    pub hashed: u64,
    /// Bytes of packs that were read for that.
    pub bytes: u64,
    /// Trees that were walked, counted once however many roots have them.
    pub trees: u64,
    /// Different nodes that they refer to, heads included.
    pub reached_nodes: u64,
    /// Extent maps that were looked at.
    pub maps: u64,
    /// Packs that are not sealed and not marked: of a writer that has not come to its first checkpoint, or that died
    /// before. Not read.
    pub unmarked: Vec<PackId>,
    /// Files in the directories of packs and extent maps that are neither.
    pub strays: Vec<PathBuf>,
}

impl Report {
    /// The worst of what was found; `None` where nothing was.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// What a check is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Packs: bytes of pack files.
    Packs {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Trees: roots.
    Trees {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Extent maps: files.
    Maps {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
}
