//! Why a checkpoint could not be made.

use std::{fmt, sync::Arc};

use segvm_blockcache::{NodeWriteError, PackError, ReadError, StoreError, TreeError};
use segvm_home::{PublishError, Timestamp};
use segvm_os::KernelError;

use crate::{gate::GateError, hooks::HookError};

/// Why a checkpoint could not be made. The checkpoint before stays the newest, the program goes on, and what
/// changed since is part of the next attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The gate could not be closed: somebody is in the middle of a change.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Memory could not be scanned or copied.
    #[error("reading the session's memory: {0}")]
    Memory(#[from] KernelError),
    /// Blocks could not be written.
    #[error("writing blocks: {0}")]
    Pack(#[from] PackError),
    /// A stored block that this checkpoint builds on could not be read.
    #[error("reading a stored block: {0}")]
    Read(#[from] ReadError),
    /// The tree could not be read or written.
    #[error("updating the tree of segment `{segment}`: {source}")]
    Tree {
        /// The segment.
        segment: String,
        /// What went wrong.
        source: TreeError,
    },
    /// Nodes of the tree could not be written.
    #[error("writing the tree of segment `{segment}`: {source}")]
    Nodes {
        /// The segment.
        segment: String,
        /// What went wrong.
        source: NodeWriteError,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record could not be appended.
    #[error("recording the checkpoint: {0}{more}", more = remedy(.0))]
    Publish(#[source] PublishError),
    /// The image was stolen from this session, which commits to it no more. Memory and program are untouched.
    #[error("{by}: Session::branch_here keeps what is in memory, as a new image")]
    Orphaned {
        /// Which image, by whom, since when.
        by: Box<Takeover>,
    },
    /// The session is closed or suspended.
    #[error("the session is closed")]
    Closed,
    /// This process is a fork of the one that opened the session.
    #[error(
        "this process is a fork of {owner}, to which the session belongs: open an image of its own here"
    )]
    Forked {
        /// The process that opened it.
        owner: u32,
    },
    /// The session was opened for reading.
    #[error("image `{image}` was opened for reading: open it as a writer to checkpoint, or branch")]
    ReadOnly {
        /// The image.
        image: String,
    },
    /// A flush hook failed, so nothing was captured.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A hook tried to do what hooks run for.
    #[error(
        "the hook `{hook}` of this session tried to checkpoint, suspend or restore it: hooks must not"
    )]
    InHook {
        /// The hook's name.
        hook: Arc<str>,
    },
    /// The checkpoint failed, and so did a resume hook that was told.
    #[error("{first}; and then {hook}")]
    Twice {
        /// Why the checkpoint failed.
        first: Box<CheckpointError>,
        /// Which hook failed.
        hook: HookError,
    },
    /// A failure before this one could not be rolled back in memory.
    #[error(
        "an earlier checkpoint failed and could not be undone: {reason}; the last checkpoint is intact: open the image again"
    )]
    Broken {
        /// What happened.
        reason: String,
    },
}

impl CheckpointError {
    /// Tells whether the next one must fail alike: the session has no image to checkpoint to.
    pub(crate) fn is_for_good(&self) -> bool {
        match self {
            Self::Orphaned { .. } | Self::ReadOnly { .. } => true,
            Self::Twice { first, .. } => first.is_for_good(),
            _ => false,
        }
    }
}

/// What can be done beside what the home says.
fn remedy(error: &PublishError) -> &'static str {
    match error {
        // Opening it again is the end of what is in memory.
        PublishError::Sync { .. } | PublishError::Poisoned { .. } => {
            "; Session::branch_here before that keeps what is in memory, as a new image"
        }
        _ => "",
    }
}

/// Who took an image over from the session that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Takeover {
    /// The image.
    pub image: String,
    /// The process; 0 where it cannot be seen from here.
    pub pid: u32,
    /// Its machine, as far as known.
    pub host: String,
    /// Its program, as far as known.
    pub program: String,
    /// Since when, as far as known.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            image,
            pid,
            host,
            program,
            since,
        } = self;
        write!(
            f,
            "image `{image}` was taken over by {program}, process {pid} on {host}"
        )?;
        since.map_or(Ok(()), |since| write!(f, ", since {since}"))
    }
}

impl From<PublishError> for CheckpointError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Orphaned {
                image,
                pid,
                host,
                program,
                since,
            } => Self::Orphaned {
                by: Box::new(Takeover {
                    image: image.to_string(),
                    pid,
                    host,
                    program,
                    since,
                }),
            },
            other => Self::Publish(other),
        }
    }
}

pub(crate) trait InSegment<T> {
    fn of(self, segment: &str) -> Result<T, CheckpointError>;
}

impl<T> InSegment<T> for Result<T, TreeError> {
    fn of(self, segment: &str) -> Result<T, CheckpointError> {
        self.map_err(|source| CheckpointError::Tree {
            segment: segment.to_owned(),
            source,
        })
    }
}
