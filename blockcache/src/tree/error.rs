//! What can go wrong in a tree.

use super::{codec::DecodeError, shape::MAX_LEN, source::NodeReadError};
use crate::{
    id::NodeId,
    unit::{BlockIndex, BlockSize},
};

/// Why a tree could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A node could not be had; [`NodeReadError::Absent`] says that it has to be fetched.
    #[error(transparent)]
    Read(#[from] NodeReadError),
    /// The bytes are what the id names, and are no node that belongs there.
    #[error("node {id:.12} is malformed")]
    Malformed {
        /// The node.
        id: NodeId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The block lies beyond the end of the segment.
    #[error("block {} of a segment of {blocks} blocks", index.0)]
    OutOfRange {
        /// The block asked for.
        index: BlockIndex,
        /// Blocks that the segment has.
        blocks: u64,
    },
    /// The length is more than a tree can describe.
    #[error("a segment of {len} bytes; at most {MAX_LEN}")]
    TooLong {
        /// The length asked for.
        len: u64,
    },
    /// Two trees of different block sizes cannot be compared block by block.
    #[error("{a:?} against {b:?}")]
    BlockSizesDiffer {
        /// Of the first tree.
        a: BlockSize,
        /// Of the second.
        b: BlockSize,
    },
}
