//! Extents: which run of a segment lies in one piece in one pack, so that one mmap shows it.
//!
//! | file | for |
//! |---|---|
//! | `layout` | [`Layout`]: the runs of one segment, kept as it is checkpointed |
//! | `file` | a layout as bytes: a cache that may be missing, never wrong |

pub(crate) mod file;
mod layout;

pub use layout::{Extent, Layout, Window};
