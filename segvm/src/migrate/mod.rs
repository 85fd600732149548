//! A root of one type becomes one of another, when its image is opened.
//!
//! ```text
//!   open: segments as the newest commit has them
//!         for each root: the steps from the type that is stored to the last one       in memory alone
//!   ----------------------------------------------------------------
//!         tag the old commit
//!         one checkpoint, with all roots                                               one commit, or none
//!   ----------------------------------------------------------------
//!         resume hooks, and the application
//! ```
//!
//! The new value is built in the same heap beside the old one, which is freed afterwards; memory is private, so that a failure
//! anywhere leaves the image as it was (docs/design/schema.md). Nothing happens where the types agree.
//!
//! | file | what |
//! |---|---|
//! | `step` | one type into another |
//! | `run` | the steps that an image needs |
//! | `error` | [`MigrationError`] |

mod error;
mod run;
mod step;

use std::{fmt, sync::Arc};

pub use self::error::MigrationError;
pub(crate) use self::run::run;
use self::step::{Of, Step};
use crate::{hooks::Outcome, persist::Persist, root::HeapShared};

/// How a root of one type becomes one of another: for [`SessionOptions::migration`](crate::SessionOptions::migration).
///
/// ```no_run
/// use segvm::{Migration, Session, Text, Vec, persist::Persist};
///
/// #[derive(Persist)]
/// #[repr(C)]
/// struct OldNotes { all: Vec<Text> } // as it was
///
/// #[derive(Persist)]
/// #[repr(C)]
/// struct Notes { all: Vec<Note> }
///
/// #[derive(Persist)]
/// #[repr(C)]
/// struct Note { text: Text, stars: u32 }
///
/// # fn main() -> Result<(), segvm::Error> {
/// let to_stars = Migration::from::<OldNotes, Notes>("notes", |old, mut new| {
///     for text in &old.all {
///         new.all.push_default().text.push_str(text);
///     }
/// });
/// let session = Session::open_with("notes", to_stars)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Migration {
    root: Arc<str>,
    heap: Arc<str>,
    step: Arc<dyn Step>,
}

impl Migration {
    /// A root of that name that is an `Old` becomes a `New`: `fill` is given the old value to read and the new one, all zeros, to
    /// change.
    ///
    /// `fill` is run again should the program die before the new commit is durable. If it panics, opening fails with that, and the
    /// image is as it was.
    pub fn from<Old: Persist, New: Persist>(
        root: &str,
        fill: impl for<'a> Fn(&'a Old, New::Mut<'a>) + Send + Sync + 'static,
    ) -> Self {
        Self::fallible::<Old, New, ()>(root, fill)
    }

    /// As [`from`](Self::from), where an old value may be one that cannot become a new one: `fill` returns a `Result`, whose error
    /// fails the open.
    pub fn fallible<Old: Persist, New: Persist, O: Outcome>(
        root: &str,
        fill: impl for<'a> Fn(&'a Old, New::Mut<'a>) -> O + Send + Sync + 'static,
    ) -> Self {
        Self {
            root: root.into(),
            heap: HeapShared::USUAL.into(),
            step: Arc::new(Of::<Old, New, _>::new(fill)),
        }
    }

    /// The root is one of the heap in that segment, not of the session's usual one.
    #[must_use]
    pub fn in_heap(mut self, segment: &str) -> Self {
        self.heap = segment.into();
        self
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("root", &self.root)
            .field("heap", &self.heap)
            .finish_non_exhaustive()
    }
}
