//! Which block is where in a segment: a tree of content-addressed nodes, read lazily and rebuilt incrementally.
//!
//! This room knows ids and lengths. It never sees a block's bytes, a pack or a place.

mod source;

pub use source::{NodeReadError, NodeSink, NodeSource, NodeWriteError};
