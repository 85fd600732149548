//! Who may write what: images, commits, leases.
//!
//! This house knows which commits an image is made of and who may add one. It never looks into a tree or a block:
//! a commit names trees by id, and the [mark](Record::mark) beside it is the store's own word.
//!
//! | room | for |
//! |---|---|
//! | `commit` | what a commit says, byte by byte |
//! | `name` | images and how people point at a commit |
//! | `time` | instants in commits and in text |
//! | `home` | the traits [`Home`] and [`Lease`]: read, acquire, publish |
//! | `lease` | who may add a commit: the rules, without I/O and without a clock |
//! | `history` | an image's commits through its branch points, and who wrote them |
//! | `roots` | what all images need of a store, for a collection and for a check |
//! | `error` | why not, per operation |
//! | `dir` | the home of one store |

mod commit;
mod dir;
mod error;
mod history;
mod home;
pub mod lease;
mod name;
mod roots;
mod time;

pub use commit::{
    Commit, DecodeError, InvalidCommit, RangeAttribute, RangeKind, SegmentKind, SegmentRecord,
};
pub use dir::{DirHome, FrameFault, LeaseFileError, LogError, MARK_MAX, TagFileError, WriterLease};
pub use error::{AcquireError, HomeError, PublishError, RemoveError, ResolveError, TagError};
pub use history::{Author, BRANCHED_FROM, History, authors};
pub use home::{Holder, Home, ImageState, Lease, Log, Record, Tag};
pub use name::{ImageName, ImageRef, ParseNameError, ParseRefError, Ref};
pub use roots::{Roots, RootsError};
pub use time::Timestamp;

/// Decodes arbitrary bytes as a commit, as a log, as a lease and as a tag: what a fuzzer calls. Must never panic, and whatever decodes
/// must encode to the same bytes.
///
/// - **Panics**: if a decoder is wrong.
pub fn decode_any(bytes: &[u8]) {
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(
            commit.encode().as_deref(),
            Ok(bytes),
            "one commit, one encoding"
        );
    }
    dir::decode_any(bytes);
}
