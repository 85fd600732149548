//! Blocks at rest: ids, trees, packs, the index, extent maps.
//!
//! This house stores and finds immutable bytes by hash in one directory. It never touches a program's memory, and
//! does not know what an image, a session or a lease is.
//!
//! | room | for |
//! |---|---|
//! | [`disk`] | the seam to the file system, with its doubles |
//! | `id`, `unit`, `root` | names and numbers, and what refers to them from outside |
//! | `tree` | which block is where in a segment: nodes, built incrementally |
//! | `pack` | blocks and nodes on disk: written, sealed, recovered |
//! | `extent` | which runs of a segment lie in one piece, so that they can be mapped |
//! | `store` | one directory with all of it |
//! | [`gc`] | frees what nothing refers to |
//! | [`fsck`] | whether all of it is what it should be |
//! | `spans` | what `tracing` is told, here and in the houses above |

pub mod disk;
mod extent;
pub mod fsck;
pub mod gc;
mod id;
mod pack;
mod root;
#[doc(hidden)]
pub mod spans;
mod store;
mod tree;
mod unit;

pub use extent::*;
pub use id::{
    BLOCK_CONTEXT, BlockId, COMMIT_CONTEXT, CommitId, NODE_CONTEXT, NodeId, PackId, ParseIdError,
    TreeId,
};
pub use pack::*;
pub use root::{ImageMark, TreeRoot};
pub use store::*;
pub use tree::*;
pub use unit::{BlockIndex, BlockSize, Codec, Place};
