//! Packs: append-only files of blocks and nodes, written by one session, and how they are found again.
//!
//! | file | for |
//! |---|---|
//! | `format` | pages, headers and entries as bytes; docs/format.md has the offsets |
//! | `writer` | [`PackWriter`]: puts together and writes batches |
//! | `buffer`, `io` | aligned memory, and the thread that writes it |
//! | `table`, `open` | what an open pack holds, in memory |
//! | `mark` | how far a pack is durable |
//! | `walk` | reads headers and directories again |
//! | `index`, `seal`, `sealed` | the sorted index, how a pack is completed, and a completed one |

mod buffer;
mod error;
pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod io;
mod mark;
pub(crate) mod open;
pub(crate) mod seal;
pub(crate) mod sealed;
pub(crate) mod table;
pub(crate) mod walk;
mod writer;

pub use error::PackError;
pub use mark::{Marks, MarksError, PackMark};
pub use writer::{PackWriter, WriterOptions};
