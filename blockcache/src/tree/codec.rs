//! Nodes and heads as bytes. Exactly one encoding exists of each, so that ids can stand for contents.
//!
//! ```text
//!          0      4       5    6      7      8            12          16
//!   node   "SEGT" version kind level  0      count: u32   0: u32      count x 32 bytes of child id
//!   head   "SEGT" version kind height log2   length: u64              flags: u64 = 0, 0: u64, root id
//! ```

use super::shape::{self, FANOUT, MAX_LEN};
use crate::{id::NodeId, unit::BlockSize};

/// An id of a child as it lies in a node: a block's at level 1, a node's above.
pub(super) type RawId = [u8; 32];

/// Stands for a child that has no content. No hash is ever taken to be it: that would be a preimage of zero.
pub(super) const HOLE: RawId = [0; 32];

const MAGIC: [u8; 4] = *b"SEGT";
const VERSION: u8 = 1;
const KIND_NODE: u8 = 1;
const KIND_HEAD: u8 = 2;
const NODE_HEADER: usize = 16;
const HEAD_LEN: usize = 64;
const ID_LEN: usize = 32;

/// What is wrong with the bytes of a node or head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are more or fewer bytes than this kind of object has.
    #[error("{got} bytes where {wanted} were expected")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        wanted: usize,
    },
    /// It does not begin as the objects of a tree do.
    #[error("begins with {got:02x?}, not with a tree's magic")]
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// It was written by another version of the format.
    #[error("tree format version {got}; this program reads version {VERSION}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// It is neither a node nor a head, or one where the other belongs.
    #[error("object of kind {got}")]
    Kind {
        /// The kind found.
        got: u8,
    },
    /// The node's level does not exist, or is not the one below its parent's.
    #[error("node at level {got}")]
    Level {
        /// The level found.
        got: u8,
    },
    /// The node has no children, or more than fit between its place and the end of the segment.
    #[error("{got} children where 1 to {most} fit")]
    Count {
        /// Children found.
        got: u32,
        /// Children that fit.
        most: u32,
    },
    /// The node ends in holes, which are left out.
    #[error("the last child is a hole")]
    TrailingHole,
    /// Bytes that must be zero are not: padding, or a feature that this version does not know.
    #[error("byte {at} must be zero")]
    NotZero {
        /// Bytes from the beginning.
        at: usize,
    },
    /// The head's block size is none that exists.
    #[error("blocks of 2^{log2} bytes")]
    BlockSize {
        /// The base-2 logarithm found.
        log2: u8,
    },
    /// The head's length is more than a tree can describe.
    #[error("{len} bytes; at most {MAX_LEN}")]
    TooLong {
        /// The length found.
        len: u64,
    },
    /// The head's height is not the one that its length has.
    #[error("height {got} where the length has height {wanted}")]
    Height {
        /// The height found.
        got: u8,
        /// The height that follows from length and block size.
        wanted: u8,
    },
}

/// The topmost object of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The segment's length in bytes, at most [`MAX_LEN`].
    pub len: u64,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// Levels of nodes, from `len` and `block_size`.
    pub height: u8,
    /// The node below; none where the whole segment is a hole.
    pub root: Option<NodeId>,
}

/// An object of a tree, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeObject {
    /// The topmost one.
    Head(Head),
    /// An interior node.
    Node {
        /// 1 where the children are blocks.
        level: u8,
        /// Ids; all zero means a hole, and the last one is not.
        children: Vec<[u8; 32]>,
    },
}

/// Decodes whatever object of a tree the bytes are.
///
/// Accepts exactly the bytes that some tree encodes to, as far as one object can tell.
///
/// - **Source**: docs/format.md.
pub fn decode_any(bytes: &[u8]) -> Result<TreeObject, DecodeError> {
    match kind(bytes)? {
        KIND_HEAD => decode_head::<FANOUT>(bytes).map(TreeObject::Head),
        KIND_NODE => {
            let level = array::<1>(bytes, 6)?[0];
            if level == 0
                || level > shape::height::<FANOUT>(MAX_LEN / BlockSize::MIN.bytes() as u64)
            {
                return Err(DecodeError::Level { got: level });
            }
            let children = decode_node::<FANOUT>(bytes, level, FANOUT as u64)?;
            Ok(TreeObject::Node { level, children })
        }
        got => Err(DecodeError::Kind { got }),
    }
}

/// Replaces what is in `out` by the bytes of a node with these children, of which the last is no hole.
pub(super) fn encode_node(
    out: &mut Vec<u8>,
    level: u8,
    children: impl ExactSizeIterator<Item = RawId>,
) {
    out.clear();
    out.reserve(NODE_HEADER + ID_LEN * children.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, KIND_NODE, level, 0]);
    #[expect(clippy::cast_possible_truncation, reason = "at most the fan-out")]
    out.extend_from_slice(&(children.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for id in children {
        out.extend_from_slice(&id);
    }
}

/// The children of a node that has to be at `level`, where `room` children fit before the end of the segment.
pub(super) fn decode_node<const F: usize>(
    bytes: &[u8],
    level: u8,
    room: u64,
) -> Result<Vec<RawId>, DecodeError> {
    match kind(bytes)? {
        KIND_NODE => {}
        got => return Err(DecodeError::Kind { got }),
    }
    let [got, pad] = array(bytes, 6)?;
    if got != level {
        return Err(DecodeError::Level { got });
    }
    if pad != 0 {
        return Err(DecodeError::NotZero { at: 7 });
    }
    let got = u32::from_le_bytes(array(bytes, 8)?);
    #[expect(clippy::cast_possible_truncation, reason = "at most the fan-out")]
    let most = room.min(F as u64) as u32;
    if got == 0 || got > most {
        return Err(DecodeError::Count { got, most });
    }
    zero(bytes, 12..NODE_HEADER)?;
    length(bytes, NODE_HEADER + ID_LEN * got as usize)?;
    let (_, ids) = bytes.split_at(NODE_HEADER);
    let (ids, _) = ids.as_chunks::<ID_LEN>();
    if ids.last() == Some(&HOLE) {
        return Err(DecodeError::TrailingHole);
    }
    Ok(ids.to_vec())
}

/// Replaces what is in `out` by the bytes of a head.
pub(super) fn encode_head(out: &mut Vec<u8>, head: &Head) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, KIND_HEAD, head.height, head.block_size.log2()]);
    out.extend_from_slice(&head.len.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(head.root.as_ref().map_or(&HOLE, |root| root.as_bytes()));
}

pub(super) fn decode_head<const F: usize>(bytes: &[u8]) -> Result<Head, DecodeError> {
    match kind(bytes)? {
        KIND_HEAD => {}
        got => return Err(DecodeError::Kind { got }),
    }
    length(bytes, HEAD_LEN)?;
    let [got, log2] = array(bytes, 6)?;
    let block_size =
        BlockSize::from_log2(u32::from(log2)).ok_or(DecodeError::BlockSize { log2 })?;
    let len = u64::from_le_bytes(array(bytes, 8)?);
    if len > MAX_LEN {
        return Err(DecodeError::TooLong { len });
    }
    let wanted = shape::height::<F>(block_size.count(len));
    if got != wanted {
        return Err(DecodeError::Height { got, wanted });
    }
    zero(bytes, 16..32)?;
    let root = array::<ID_LEN>(bytes, 32)?;
    let root = (root != HOLE).then(|| NodeId::from_bytes(root));
    // Nothing lies in a segment without bytes.
    if len == 0 && root.is_some() {
        return Err(DecodeError::Count { got: 1, most: 0 });
    }
    Ok(Head {
        len,
        block_size,
        height: got,
        root,
    })
}

fn kind(bytes: &[u8]) -> Result<u8, DecodeError> {
    let magic = array(bytes, 0)?;
    if magic != MAGIC {
        return Err(DecodeError::Magic { got: magic });
    }
    let [version, kind] = array(bytes, 4)?;
    if version != VERSION {
        return Err(DecodeError::Version { got: version });
    }
    Ok(kind)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DecodeError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>().copied())
        .ok_or(DecodeError::Length {
            got: bytes.len(),
            wanted: at + N,
        })
}

fn length(bytes: &[u8], wanted: usize) -> Result<(), DecodeError> {
    if bytes.len() == wanted {
        return Ok(());
    }
    Err(DecodeError::Length {
        got: bytes.len(),
        wanted,
    })
}

fn zero(bytes: &[u8], range: std::ops::Range<usize>) -> Result<(), DecodeError> {
    let start = range.start;
    let field = bytes.get(range).unwrap_or_default();
    match field.iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(at) => Err(DecodeError::NotZero { at: start + at }),
    }
}
