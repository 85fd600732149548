//! Segments: named ranges of this process's memory whose content can be captured and brought back.
//!
//! | room | for |
//! |---|---|
//! | `ranges` | which addresses belong to whom in this process |
//! | `state` | what a session knows of a segment |
//! | `space` | a segment as the memory of a heap |
//! | `handle` | what the application holds |
//! | `kernel_write` | system calls that write into one |
//! | `fingerprint` | what it says that the bytes mean |

mod fingerprint;
mod handle;
mod kernel_write;
pub(crate) mod ranges;
pub(crate) mod space;
pub(crate) mod state;

pub use fingerprint::Fingerprint;
pub use handle::{Segment, SegmentOptions};
pub use kernel_write::KernelWrite;
pub use ranges::{ClaimError, Owner};
