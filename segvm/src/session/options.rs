//! How an image is opened.

use std::{env, path::PathBuf, time::Duration};

use segvm_os::Engine;

use super::{Access, Opening, Session, error::OpenError, verify::Verify};
use crate::{
    hooks::{Flush, HookList, Outcome, Resuming},
    migrate::Migration,
    region::Refill,
    world::World,
};

/// Options for opening an image; [`Session::open`] is the one with defaults.
///
/// ```no_run
/// # fn main() -> Result<(), segvm::Error> {
/// let session = segvm::SessionOptions::new().store("/var/lib/app/state").open("app")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    store: Option<PathBuf>,
    gate_timeout: Option<Duration>,
    engine: Option<Engine>,
    world: Option<World>,
    any_program: bool,
    hooks: HookList,
    access: Access,
    verify: Verify,
    migrations: Vec<Migration>,
}

impl SessionOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the image in this directory instead of `$SEGVM_HOME`, else `$XDG_DATA_HOME/segvm`, else
    /// `~/.local/share/segvm`.
    #[must_use]
    pub fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.store = Some(directory.into());
        self
    }

    /// How long a checkpoint waits for guards to be dropped before it fails and names who holds them (10 s).
    #[must_use]
    pub fn gate_timeout(mut self, timeout: Duration) -> Self {
        self.gate_timeout = Some(timeout);
        self
    }

    /// Opens the image although another program made its newest checkpoint. Without this it is refused.
    #[must_use]
    pub fn any_program(mut self) -> Self {
        self.any_program = true;
        self
    }

    /// Has `hook` run before every checkpoint and suspend, after those given earlier: see [`Session::on_flush`].
    #[must_use]
    pub fn on_flush<O: Outcome>(
        mut self,
        name: &str,
        hook: impl Fn(&mut Flush<'_>) -> O + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_flush(name, hook);
        self
    }

    /// Has `hook` run before [`open`](Self::open) returns, if there is a commit to go on from; before those given earlier. Also
    /// after a restore, and after a checkpoint or suspend that failed when its flush hooks had begun.
    ///
    /// The place for new random state, new connections, and for looking at the clock again. A hook that panics, errs or overruns
    /// its limit fails the open with its name.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), segvm::Error> {
    /// let session = segvm::SessionOptions::new()
    ///     .on_resume("random", |resumed| {
    ///         let seed = resumed.session.root::<u64>("seed")?;
    ///         *seed.write() ^= resumed.generation;
    ///         Ok::<_, segvm::Error>(())
    ///     })
    ///     .open("app")?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_resume<O: Outcome>(
        mut self,
        name: &str,
        hook: impl Fn(&Resuming<'_>) -> O + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_resume(name, hook);
        self
    }

    /// Has `callback` fill the regions of that segment that are [`Regenerate`](crate::Attribute::Regenerate): before open, restore, or
    /// the call that made or discarded the region returns.
    ///
    /// It is given a buffer of zeros at a time, and told which bytes it stands for. Without it, opening an image that has such a region
    /// fails: zeros would be taken for content.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), segvm::Error> {
    /// let session = segvm::SessionOptions::new()
    ///     .regenerate("squares", |refill, buffer| {
    ///         for (n, place) in (refill.offset / 8..).zip(buffer.chunks_exact_mut(8)) {
    ///             place.copy_from_slice(&((n * n) as u64).to_le_bytes());
    ///         }
    ///     })
    ///     .open("app")?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn regenerate<O: Outcome>(
        mut self,
        segment: &str,
        callback: impl Fn(&Refill<'_>, &mut [u8]) -> O + Send + Sync + 'static,
    ) -> Self {
        self.hooks.regenerate(segment, callback);
        self
    }

    /// How long each hook may run before it fails what it runs for (10 s).
    #[must_use]
    pub fn hook_limit(mut self, limit: Duration) -> Self {
        self.hooks.set_limit(limit);
        self
    }

    /// Finds out what was written by this engine, instead of the one that `SEGVM_ENGINE` names or the best one here.
    ///
    /// - **Errors**: opening is refused, naming the engine and what it lacks, where it does not work.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Opens the image for reading: beside its writer and any number of other readers, at its newest commit or, with
    /// `image@reference`, at an older one.
    ///
    /// Memory is private and writable; what changes there vanishes at the end, unless [`Session::branch_here`] makes an image
    /// of it. [`Session::follow`] goes on to the newest commit.
    ///
    /// - **Cost**: as opening for writing. But what a writer that lives appended since it opened the image is read in, and its
    ///   hashes are checked: its pack cannot be mapped yet.
    #[must_use]
    pub fn reader(mut self) -> Self {
        self.access = Access::Read;
        self
    }

    /// Opens the image for writing although another process may have it open: that one commits to it no more, and is told so
    /// at its next checkpoint ([`CheckpointError::Orphaned`](crate::CheckpointError::Orphaned)).
    ///
    /// What it changed since its last checkpoint is not in what is opened: it may [branch](Session::branch_here).
    #[must_use]
    pub fn steal(mut self) -> Self {
        self.access = Access::Steal;
        self
    }

    /// Has what the store holds checked before it is shown: [`Verify::All`] costs reading and hashing all of it.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Brings a root that is of an older type to the one that this program has, before [`open`](Self::open) returns and before any
    /// resume hook runs. Where it is of that type already, nothing happens.
    ///
    /// More than one is for more than one root, or for more than one step of one root (of the first version, the second, the third), in
    /// any order. All of them make one commit; the one before gets a tag, `before-migration-` and the first digits of its id, so that
    /// it can be gone back to. A reader sees the new types and commits nothing.
    ///
    /// - **Cost**: as the migration, and a checkpoint; the old and the new value are there at once.
    /// - **Durable**: when open returns, yes. On `Err`, and after a crash at any instant before, the image is as it was.
    #[must_use]
    pub fn migration(mut self, migration: Migration) -> Self {
        self.migrations.push(migration);
        self
    }

    /// Runs the session on other memory and files: for simulations.
    #[must_use]
    pub fn world(mut self, world: World) -> Self {
        self.world = Some(world);
        self
    }

    /// Opens the image, or makes it, as its writer; or as it was said.
    ///
    /// `image` is a name; of a [reader](Self::reader), `name@reference` is a commit: `-1` for the one before the newest, a commit's
    /// first digits, a time (`2h`, `yesterday`, `2026-11-25T12:30:00Z`), or a tag.
    ///
    /// - **Cost**: O(segments + runs that they lie in); the content is not read.
    /// - **Errors**: [`OpenError::Lease`] at once if another writer has it, naming its pid, host, program and since when.
    pub fn open(&self, image: &str) -> Result<Session, OpenError> {
        let world = match (&self.world, self.engine) {
            (Some(world), _) => world.clone(),
            (None, Some(engine)) => World::real_with(engine)?,
            (None, None) => World::real()?,
        };
        let store = match &self.store {
            Some(store) => store.clone(),
            None => default_store().ok_or(OpenError::NoStore)?,
        };
        let opening = Opening {
            gate_timeout: self.gate_timeout.unwrap_or(Duration::from_secs(10)),
            any_program: self.any_program,
            hooks: self.hooks.clone(),
            access: self.access,
            verify: self.verify,
            migrations: self.migrations.clone(),
        };
        Session::open_in(world, store, image, opening)
    }
}

/// Where images are kept unless told otherwise.
#[must_use]
pub fn default_store() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SEGVM_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("segvm")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/segvm")))
}
