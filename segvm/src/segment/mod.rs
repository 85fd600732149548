//! Segments: named ranges of this process's memory whose content can be captured and brought back.
//!
//! | room | for |
//! |---|---|
//! | `ranges` | which addresses belong to whom in this process |
//! | `state` | what a session knows of a segment |
//! | `space` | a segment as the memory of a heap |
//! | `handle` | what the application holds |
//! | `fingerprint` | what it says that the bytes mean |

mod fingerprint;
mod handle;
pub(crate) mod ranges;
pub(crate) mod space;
pub(crate) mod state;

pub use fingerprint::Fingerprint;
pub use handle::{Segment, SegmentOptions};
pub use ranges::{ClaimError, Owner};
