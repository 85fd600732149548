//! What can go wrong with a pack while it is written.

use std::{io, path::PathBuf};

use crate::store::StoreError;

/// Why blocks or nodes were not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The disk, or the user's share of it, is full.
    #[error(
        "no room for {wanted} bytes at offset {offset} of {}: free some space there ({source})",
        path.display()
    )]
    Full {
        /// The pack.
        path: PathBuf,
        /// Where the bytes should have gone.
        offset: u64,
        /// How many bytes were to be written.
        wanted: u64,
        /// The kernel's word.
        source: io::Error,
    },
    /// Any other failure of a file operation.
    #[error("{op} at offset {offset} of {} failed: {source}", path.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The pack, or the directory it is in.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The kernel's word.
        source: io::Error,
    },
    /// An earlier write or sync of this pack failed, so nothing more goes into it. What was durable stays so.
    #[error("{} takes no more writes since an earlier one failed: {source}", path.display())]
    Dead {
        /// The pack.
        path: PathBuf,
        /// The earlier failure.
        source: io::Error,
    },
    /// The seal of an adopted pack could not be made durable, so nothing may be recorded that takes its mark's place:
    /// the store has to be opened again.
    #[error("the seal of an adopted pack could not be made durable")]
    Settle(#[source] StoreError),
    /// More blocks were kept than there was room asked for.
    #[error("{kept} blocks were kept, but room was given for {room}")]
    Kept {
        /// Ids that were given.
        kept: usize,
        /// Blocks that the last room had.
        room: usize,
    },
    /// A node is longer than the format allows.
    #[error("a node of {len} bytes is longer than the format's {max}")]
    NodeTooLong {
        /// Its length.
        len: usize,
        /// The format's limit.
        max: usize,
    },
}
