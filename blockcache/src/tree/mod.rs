//! Which block is where in a segment: a tree of content-addressed nodes, read lazily and rebuilt incrementally.
//!
//! This room knows ids and lengths. It never sees a block's bytes, a pack or a place.
//!
//! ```text
//!   head    length, block size, root        its id is the tree's
//!    |
//!   node    level 2: ids of nodes           trailing holes are left out; a node of holes is a hole
//!    | \
//!   node    level 1: ids of blocks
//! ```
//!
//! | file | for |
//! |---|---|
//! | `source` | the seams: where nodes come from and go to |
//! | `shape` | height, spans and slots: what follows from length and fan-out |
//! | `codec` | nodes and heads as bytes |
//! | `reader` | reads a node and refuses one that does not belong there |
//! | `node` | nodes in memory, loaded and dirty |
//! | `tree` | the tree of a segment |
//! | `diff` | walks over stored trees |

mod codec;
mod diff;
mod error;
mod node;
mod reader;
mod shape;
mod source;
#[expect(
    clippy::module_inception,
    reason = "the room is named after its main thing"
)]
mod tree;

#[cfg(test)]
mod tests;

pub use codec::{DecodeError, Head, TreeObject, decode_any};
pub use diff::{Descend, diff, reachable};
pub use error::TreeError;
pub(crate) use shape::span_of;
pub use shape::{FANOUT, MAX_LEN};
pub use source::{NodeReadError, NodeSink, NodeSource, NodeWriteError};
pub use tree::{Tree, TreeOf};
