//! A session: one process's open image.
//!
//! | room | for |
//! |---|---|
//! | `options`, `open` | how an image is opened |
//! | `segments` | what a session has by name: segments, heaps, roots |
//! | `plan` | how content is brought back in a bounded number of maps |
//! | `resume` | bringing it back |
//! | `cause` | why memory holds what it holds |
//! | `core` | what a session is made of |
//! | `background` | checkpoints beside the program: handles, automatic ones |
//! | `line` | going back on the image's line of commits, looking along it |
//! | `branch`, `tags` | new images that start at a commit, names for commits |
//! | `reader` | sessions without a lease |
//! | `verify` | checking what this store wrote before it is shown |
//! | `close` | how a session ends: suspended, or dropped |
//! | `error` | why it could not be opened |

mod background;
mod branch;
mod cause;
mod close;
pub(crate) mod core;
mod error;
mod line;
mod open;
mod options;
mod plan;
mod reader;
mod resume;
mod segments;
mod tags;
mod verify;

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use segvm_blockcache::CommitId;

use self::{background::Background, core::Core};
pub use self::{
    background::{Automatic, Checkpoint},
    cause::{Cause, Resumed},
    error::{Error, OpenError, SuspendError},
    options::{SessionOptions, default_store},
    verify::Verify,
};
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Saved},
    gate::{GateError, Kind, Pass},
    hooks::{self, Flush, Flushed, HookList, Outcome, Reason, Resuming},
    migrate::Migration,
};

/// What a session is opened with, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) gate_timeout: Duration,
    pub(crate) any_program: bool,
    pub(crate) hooks: HookList,
    pub(crate) access: Access,
    pub(crate) verify: Verify,
    pub(crate) migrations: Vec<Migration>,
}

/// What an image is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// For writing, if nobody else has it.
    #[default]
    Write,
    /// For writing, whoever has it.
    Steal,
    /// For reading, whoever has it.
    Read,
}

/// One process's open image: as its writer, or as one of its [readers](SessionOptions::reader).
///
/// Dropping it is a crash with manners: background work is joined, nothing is saved, the lease is released. Only
/// [`suspend`](Session::suspend) saves and ends.
pub struct Session {
    core: Arc<Core>,
    background: Mutex<Option<Background>>,
    role: Role,
}

/// Whether the session ends with this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Owner,
    /// A hook's view of it.
    Visitor,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("image", &self.core.image())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the image in the default store, or makes it.
    ///
    /// - **Cost**: under a millisecond more than a bare open, mmap and read, whatever the size.
    /// - **Errors**: see [`SessionOptions::open`].
    pub fn open(image: &str) -> Result<Self, OpenError> {
        SessionOptions::new().open(image)
    }

    /// Opens the image in the default store, or makes it; a root that is of an older type is brought to the program's.
    ///
    /// - **Errors**: see [`SessionOptions::migration`].
    pub fn open_with(image: &str, migration: Migration) -> Result<Self, OpenError> {
        SessionOptions::new().migration(migration).open(image)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The session as a hook sees it: dropping this ends nothing.
    pub(crate) fn visiting(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            background: Mutex::new(None),
            role: Role::Visitor,
        }
    }

    /// The image's name; another one after [`branch_here`](Session::branch_here).
    #[must_use]
    pub fn image(&self) -> String {
        self.core.image().to_string()
    }

    /// Tells whether the image had no checkpoint when this session opened it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.core.segments.lock().is_empty() && self.head().is_none()
    }

    /// The commit that memory continues, if there is one: the newest checkpoint of a writer.
    #[must_use]
    pub fn head(&self) -> Option<CommitId> {
        *self.core.newest.lock()
    }

    /// How this session came to what is in memory; `None` as long as it began with nothing.
    #[must_use]
    pub fn resumed(&self) -> Option<Resumed> {
        *self.core.resumed.lock()
    }

    /// Enters the gate as a writer: while the pass lives, no checkpoint takes its instant. For changes to raw segments.
    pub fn enter(&self) -> Result<Pass<'_>, GateError> {
        self.core
            .gate
            .enter(Kind::Write, self.core.gate.label("raw memory"))
    }

    /// Captures every segment at one instant and makes the result durable in the local store.
    ///
    /// - **Cost**: O(dirty blocks). Writers wait for the residue's copy only, never for hashing or disk.
    /// - **Durable**: on `Ok`, yes. On `Err` the newest checkpoint is the one before.
    /// - **Blocks**: on the disk, and on another checkpoint of this session.
    /// - **Errors**: [`CheckpointError::Gate`] if this thread holds a guard, or another one does for too long.
    pub fn checkpoint(&self) -> Result<Saved, CheckpointError> {
        self.checkpoint_with(Rounds::Auto)
    }

    /// As [`checkpoint`](Session::checkpoint), saying how rounds are used.
    pub fn checkpoint_with(&self, rounds: Rounds) -> Result<Saved, CheckpointError> {
        let saved = background::checkpoint_now(&self.core, rounds, &|_| ())?;
        if checkpoint::is_fragmented(&self.core) {
            self.background().lay_out(saved.to_lay_out);
        }
        Ok(saved)
    }

    /// Begins a checkpoint on the session's own thread and returns at once.
    pub fn start_checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        self.core.check_process()?;
        self.core.hooks.check_here()?;
        Ok(self.background().start())
    }

    /// Checkpoints by itself from now on, every `interval` if anything changed; errors go to stderr unless
    /// [`automatic`](Session::automatic) says otherwise.
    pub fn checkpoint_every(&self, interval: Duration) -> Result<(), CheckpointError> {
        self.automatic(Automatic::every(interval))
    }

    /// Checkpoints by itself from now on, as `when` says; replaces what was said before.
    ///
    /// The gate decides the instant: changes to raw segments must be made inside [`enter`](Session::enter).
    pub fn automatic(&self, when: Automatic) -> Result<(), CheckpointError> {
        self.core.check_process()?;
        self.core.hooks.check_here()?;
        self.background().automatic(when);
        Ok(())
    }

    /// Has `hook` run before every checkpoint and suspend, on the thread that makes it, after the hooks registered earlier.
    ///
    /// It lets go of what can be made again, and says how much with [`Flush::dropped`]. It may take guards and change roots; it may
    /// not checkpoint. If it panics, errs or overruns its limit, that checkpoint fails with its name.
    pub fn on_flush<O: Outcome>(
        &self,
        name: &str,
        hook: impl Fn(&mut Flush<'_>) -> O + Send + Sync + 'static,
    ) {
        self.core.hooks.on_flush(name, hook);
    }

    /// Has `hook` run after each restore from now on, and after a checkpoint that failed when its flush hooks had begun; before the
    /// hooks registered earlier.
    ///
    /// What has to run when the image is opened is given to [`SessionOptions::on_resume`]: open runs it before it returns.
    pub fn on_resume<O: Outcome>(
        &self,
        name: &str,
        hook: impl Fn(&Resuming<'_>) -> O + Send + Sync + 'static,
    ) {
        self.core.hooks.on_resume(name, hook);
    }

    /// Runs flush hooks without a checkpoint, told [`Reason::MemoryPressure`]: for a program that has to be smaller now.
    pub fn flush(&self) -> Result<Vec<Flushed>, CheckpointError> {
        self.core.check_process()?;
        hooks::flush_now(&self.core, Reason::MemoryPressure)
    }

    fn background(&self) -> parking_lot::MappedMutexGuard<'_, Background> {
        parking_lot::MutexGuard::map(self.background.lock(), |background| {
            background.get_or_insert_with(|| Background::new(&self.core))
        })
    }
}
