//! New images that start at a commit of this one, or at what is in memory.

use segvm_blockcache::{CommitId, Marks, StoreError, spans};
use segvm_home::{BRANCHED_FROM, Commit, Home as _, ImageName, Record, Timestamp, WriterLease};

use super::{
    Session,
    cause::{Cause, Resumed, next_generation},
    core::{Core, State},
    error::OpenError,
};
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Saved, Style, Takeover},
    gate::Closing,
    hooks::{self, Reason},
};

impl Session {
    /// Makes a new image that starts at the commit that memory continues: a writer's newest checkpoint.
    ///
    /// - **Cost**: one commit; blocks are shared.
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`OpenError::Exists`] if there is an image of that name, [`OpenError::NothingSaved`] before the first
    ///   checkpoint.
    pub fn branch(&self, name: &str) -> Result<CommitId, OpenError> {
        self.branch_at(name, |_, state| Ok(state.head.clone()))
    }

    /// Makes a new image that starts at any commit of this one: `reference` is as for [`restore`](Session::restore).
    ///
    /// - **Cost**, **Durable**, **Errors**: as [`branch`](Session::branch), and [`OpenError::Unsealed`] where the commit lies in a
    ///   pack that a writer elsewhere still appends to.
    pub fn branch_from(&self, reference: &str, name: &str) -> Result<CommitId, OpenError> {
        let at = reference.parse()?;
        self.branch_at(name, |core, _| {
            let now = Timestamp::from((core.world.now)());
            Ok(Some(core.home.resolve(&core.image(), &at, now)?))
        })
    }

    fn branch_at(
        &self,
        name: &str,
        at: impl FnOnce(&Core, &State) -> Result<Option<Record>, OpenError>,
    ) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        let _span = spans::span!(INFO, "branch", image = %core.image(), new = name);
        let name: ImageName = name.parse()?;
        core.gate.check_here(Closing::Writers)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        // The new image must not need a pack that only this session can finish.
        state.seal()?;
        let Some(record) = at(core, state)? else {
            return Err(OpenError::NothingSaved {
                image: core.image().to_string(),
            });
        };
        for &mark in Marks::decode(&record.mark)?.list() {
            // Nor one that only another session can: whoever opens an image completes what it marks.
            let ours = state.orphans.list().iter().any(|own| own.pack == mark.pack);
            let along = core.store.packs_along().contains(&mark.pack);
            match core.store.rely_on(mark.pack) {
                // It was sealed once, and a collection wrote elsewhere what is needed of it.
                Ok(()) | Err(StoreError::Missing { .. }) => {}
                Err(StoreError::NotSealed { .. }) if ours && !along => {}
                Err(StoreError::NotSealed { pack }) => {
                    return Err(OpenError::Unsealed {
                        image: core.image().to_string(),
                        commit: record.commit_id,
                        pack,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Nor a seal that is seen, and that the next power cut takes.
        core.store.settle()?;
        let mut lease = core.acquire_new(&name)?;
        let now = Timestamp::from((core.world.now)());
        let from = core.image();
        let commit = Commit {
            parents: vec![record.commit_id],
            time: now,
            host: core.holder.host.clone(),
            program: core.holder.program.clone(),
            generation: next_generation(state.generation, now),
            attributes: [(BRANCHED_FROM.to_owned(), from.as_str().as_bytes().to_vec())].into(),
            ..record.commit
        };
        Ok(lease
            .publish(&commit, &core.own_marks(state).encode())
            .map_err(CheckpointError::from)?)
    }

    /// Saves what is in memory now as a new image, and goes on as its writer. For a session that lost its image to somebody else,
    /// a reader that wants to keep what it changed, or a writer that wants to try something.
    ///
    /// The image that it had stays as it was at its last checkpoint, and can be opened by others. Automatic checkpoints go on.
    ///
    /// - **Cost**: a checkpoint.
    /// - **Durable**: on `Ok`, yes. On `Err` the session is what it was.
    /// - **Errors**: [`OpenError::Exists`] if there is an image of that name; what a checkpoint fails with. A resume hook that fails
    ///   is [`OpenError::Hook`], and then the branch is made all the same: [`image`](Session::image) tells.
    pub fn branch_here(&self, name: &str) -> Result<Saved, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        let name: ImageName = name.parse()?;
        core.gate.check_here(Closing::Writers)?;
        core.hooks.check_here()?;
        let _span = spans::span!(INFO, "branch", image = %core.image(), new = %name);
        let lease = core.acquire_new(&name)?;
        let saved = hooks::around(core, Reason::Checkpoint, || self.save_as(&name, lease))?;
        if let Some(background) = self.background.lock().as_ref() {
            background.go_on();
        }
        if let Some(resumed) = self.resumed() {
            hooks::resume(core, resumed)?;
        }
        Ok(saved)
    }

    /// The checkpoint that is the first of another image; the session is its writer afterwards.
    fn save_as(&self, name: &ImageName, lease: WriterLease) -> Result<Saved, CheckpointError> {
        let core = &self.core;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        state.check_usable(core)?;
        state.seal()?;
        let now = Timestamp::from((core.world.now)());
        let was = state.turn_to(lease, core, now);
        let saved = match checkpoint::run(core, state, Style::Checkpoint(Rounds::Auto), &|_| ()) {
            Ok(saved) => saved,
            Err(error) => {
                state.turn_back(was);
                return Err(error);
            }
        };
        *core.image.lock() = name.clone();
        for segment in &state.segments {
            let owner = self.owner_of(&segment.shared.name);
            let range = segment.shared.reservation;
            core.world.ranges.pass_on(range, &owner);
        }
        let head = state.head.as_ref();
        *core.resumed.lock() = head.map(|head| Resumed {
            generation: state.generation,
            ..Resumed::from(head, Cause::Branch, 0, now)
        });
        drop(slot);
        // Only now, with nothing of this session's left to write in the image that it had.
        drop(was);
        Ok(saved)
    }
}

/// What a session was before it turned to another image.
#[derive(Debug)]
struct Was {
    lease: Option<WriterLease>,
    orphaned: Option<Box<Takeover>>,
    orphans: Marks,
    generation: u64,
}

impl State {
    fn turn_to(&mut self, lease: WriterLease, core: &Core, now: Timestamp) -> Was {
        let own = core.own_marks(self);
        let was = Was {
            lease: self.lease.replace(lease),
            orphaned: self.orphaned.take(),
            orphans: std::mem::replace(&mut self.orphans, own),
            generation: self.generation,
        };
        self.branched_from = Some(core.image());
        self.generation = next_generation(self.generation, now);
        was
    }

    fn turn_back(&mut self, was: Was) {
        self.lease = was.lease;
        self.orphaned = was.orphaned;
        self.orphans = was.orphans;
        self.generation = was.generation;
        self.branched_from = None;
    }
}

impl Core {
    /// The lease of an image that is not there yet.
    fn acquire_new(&self, name: &ImageName) -> Result<WriterLease, OpenError> {
        let lease = self.home.acquire(name, self.holder.clone())?;
        if lease.head().is_some() {
            return Err(OpenError::Exists {
                image: name.to_string(),
            });
        }
        Ok(lease)
    }

    /// The unsealed packs that this session itself left: what another image of its may need. Never those that somebody
    /// else still appends to.
    fn own_marks(&self, state: &State) -> Marks {
        let mut marks = state.orphans.clone();
        for pack in self.store.packs_along() {
            marks.clear(pack);
        }
        marks
    }
}
