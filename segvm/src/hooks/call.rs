//! What a hook is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::session::{Cause, Session};

/// Why flush hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A checkpoint is about to be made; the program goes on afterwards.
    Checkpoint,
    /// The session is about to be saved and ended.
    Suspend,
    /// Memory is short: [`Session::flush`]. Nothing is captured.
    MemoryPressure,
}

/// What a flush hook is told, and where it says what it let go of.
#[derive(Debug)]
pub struct Flush<'s> {
    pub(super) session: &'s Session,
    pub(super) reason: Reason,
    pub(super) begun: Instant,
    pub(super) limit: Duration,
    pub(super) dropped: u64,
}

impl Flush<'_> {
    /// The session that is about to be captured: its roots and segments can be reached and changed.
    ///
    /// Checkpointing it is refused: [`CheckpointError::InHook`](crate::CheckpointError::InHook).
    #[must_use]
    pub fn session(&self) -> &Session {
        self.session
    }

    /// Why hooks run.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// How much of the time limit is left. A hook that returns after it fails the checkpoint.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    /// Reports that so many bytes were let go of; calls add up.
    pub fn dropped(&mut self, bytes: u64) {
        self.dropped = self.dropped.saturating_add(bytes);
    }
}

/// What one flush hook did: part of [`Saved`](crate::Saved).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// The hook's name.
    pub hook: Arc<str>,
    /// Bytes that it said it let go of.
    pub dropped: u64,
    /// How long it ran.
    pub took: Duration,
}

/// What a resume hook is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resuming<'s> {
    /// The session, whole: regions are filled, roots can be reached.
    pub session: &'s Session,
    /// Another one after each resume, branch and restore, also in two processes that go on from one commit; unchanged where the cause is
    /// [`Cause::Failed`].
    pub generation: u64,
    /// Why hooks run.
    pub cause: Cause,
    /// Wall time since the instant of the commit that the program goes on from, or, after a failure, of the newest one; zero
    /// where the clock went back, or there is none.
    pub elapsed: Duration,
}
