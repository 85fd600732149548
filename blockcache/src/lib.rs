//! Blocks at rest: ids, trees, packs, the index, extent maps.
//!
//! This house stores and finds immutable bytes by hash in one directory. It never touches a program's memory, and
//! does not know what an image, a session or a lease is.
//!
//! | room | for |
//! |---|---|
//! | [`disk`] | the seam to the file system, with its doubles |
//! | `id`, `unit` | names and numbers |
//! | `tree` | which block is where in a segment: nodes, built incrementally |
//! | `pack` | blocks and nodes on disk: written, sealed, recovered |
//! | `extent` | which runs of a segment lie in one piece, so that they can be mapped |
//! | `store` | one directory with all of it |

pub mod disk;
mod extent;
mod id;
mod pack;
mod store;
mod tree;
mod unit;

pub use extent::*;
pub use id::{
    BLOCK_CONTEXT, BlockId, COMMIT_CONTEXT, CommitId, NODE_CONTEXT, NodeId, PackId, ParseIdError,
    TreeId,
};
pub use pack::*;
pub use store::*;
pub use tree::*;
pub use unit::{BlockIndex, BlockSize, Codec, Place};
