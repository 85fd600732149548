use std::{fmt, sync::Arc, time::Duration};

use super::AnyError;

/// Which kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookKind {
    /// Before a capture.
    Flush,
    /// After going on from a commit.
    Resume,
    /// Fills a region that is not saved.
    Regenerate,
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flush => "flush",
            Self::Resume => "resume",
            Self::Regenerate => "regenerate",
        })
    }
}

/// A hook of the application failed; the program goes on, and the checkpoint before is the newest.
#[derive(Debug, thiserror::Error)]
#[error("the {kind} hook `{hook}` {failure}")]
pub struct HookError {
    /// Which kind it is.
    pub kind: HookKind,
    /// Its name; for a regenerate callback, the segment's.
    pub hook: Arc<str>,
    /// What it did.
    #[source]
    pub failure: HookFailure,
}

/// How a hook failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// It panicked.
    #[error("panicked: {message}")]
    Panicked {
        /// What it said.
        message: Box<str>,
    },
    /// It returned an error.
    #[error("failed: {0}")]
    Failed(#[source] AnyError),
    /// It returned after its time was over.
    #[error(
        "took {took:?}, and {limit:?} are allowed: do less, or raise SessionOptions::hook_limit"
    )]
    Overran {
        /// How long it ran.
        took: Duration,
        /// How long it may.
        limit: Duration,
    },
    /// It runs for another checkpoint, which was waited for in vain.
    #[error(
        "still runs for another checkpoint after {waited:?}: it may be waiting for this one, which a hook must not"
    )]
    Busy {
        /// How long it was waited for.
        waited: Duration,
    },
}
