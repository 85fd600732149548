//! The image's line of commits: going back on it, branching off it, reading it.

use segvm_blockcache::CommitId;
use segvm_home::{Commit, Home as _, ImageName, Record, Timestamp};

use super::{
    Session,
    cause::{Cause, Resumed, next_generation},
    error::OpenError,
    open::check_machine,
    plan, resume,
    segments::HEAP,
};
use crate::{
    checkpoint::CheckpointError,
    gate::Closing,
    hooks,
    region::{self, Unfilled},
};

impl Session {
    /// Goes back to an older checkpoint of the image; what changed since the newest one is given up.
    ///
    /// `reference` is what follows `@` in a name: `-1` for the one before the newest, or a commit's first digits.
    ///
    /// Segments have the lengths they had: see [`Segment::len`](crate::segment::Segment::len).
    ///
    /// - **Durable**: the image's line is as before until the next checkpoint, which notes where it was restored from.
    /// - **Errors**: with the gate still held by a guard; or where a segment did not exist then.
    pub fn restore(&self, reference: &str) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        self.core.hooks.check_here()?;
        let (commit, resumed, regions) = self.show_again(reference)?;
        region::fill_all(&self.core, regions)?;
        hooks::resume(&self.core, resumed)?;
        Ok(commit)
    }

    /// Makes memory what it was; answers which commit that is, how it came to it, and what has to be filled.
    fn show_again(&self, reference: &str) -> Result<(CommitId, Resumed, Vec<Unfilled>), OpenError> {
        let core = &self.core;
        core.gate.check_here(Closing::Everybody)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        state.check_usable(core)?;
        let now = Timestamp::from((core.world.now)());
        let record = core.home.resolve(&core.image, &reference.parse()?, now)?;
        check_machine(&core.world, &core.image, &record)?;
        let _closed = core
            .gate
            .close_even_if_poisoned(Closing::Everybody, core.gate_timeout)?;
        // Only sealed packs can be mapped.
        state.seal()?;
        let mut then = Vec::with_capacity(state.segments.len());
        for segment in &state.segments {
            let name = &segment.shared.name;
            let record_then = record
                .commit
                .segments
                .iter()
                .find(|then| then.name == *name);
            then.push(record_then.ok_or_else(|| OpenError::NoSegmentThen {
                segment: name.clone(),
                commit: record.commit_id,
            })?);
        }
        let plans = plan::plan(&core.store, &then)?;
        for ((segment, then), plan) in state.segments.iter_mut().zip(then).zip(plans) {
            if let Err(error) = resume::show(&core.world, &core.store, segment, then, plan) {
                // Some segments show the old state and some the new: no checkpoint may mix them.
                state.broken = Some(format!(
                    "restore to {:.12} failed half-way: {error}",
                    record.commit_id
                ));
                return Err(error);
            }
        }
        core.gate.clear_poison();
        let resumed = Resumed::from(&record, Cause::Restore, state.generation, now);
        state.generation = resumed.generation;
        *core.resumed.lock() = Some(resumed);
        state.restored_from = Some(record.commit_id);
        for heap in core.heaps.lock().values() {
            heap.reopen().map_err(|source| OpenError::Heap {
                segment: HEAP.to_owned(),
                source,
            })?;
        }
        // While the gate is closed: nobody sees them before they are filled.
        let segments = state.segments.iter();
        let regions = segments
            .flat_map(|segment| region::unfilled(&segment.shared))
            .collect();
        Ok((record.commit_id, resumed, regions))
    }

    /// Makes a new image that starts at the newest checkpoint of this one.
    ///
    /// - **Cost**: one commit; blocks are shared.
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`OpenError::Exists`] if there is an image of that name, [`OpenError::NothingSaved`] before the first
    ///   checkpoint.
    pub fn branch(&self, name: &str) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        let name: ImageName = name.parse()?;
        core.gate.check_here(Closing::Writers)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        // The new image must not need a pack that only this session can finish.
        state.seal()?;
        let Some(head) = state.head.clone() else {
            return Err(OpenError::NothingSaved {
                image: core.image.to_string(),
            });
        };
        let mut lease = core.home.acquire(&name, core.holder.clone())?;
        if lease.head().is_some() {
            return Err(OpenError::Exists {
                image: name.to_string(),
            });
        }
        let now = Timestamp::from((core.world.now)());
        let commit = Commit {
            parents: vec![head.commit_id],
            time: now,
            host: core.holder.host.clone(),
            program: core.holder.program.clone(),
            generation: next_generation(state.generation, now),
            attributes: [(
                "branched-from".to_owned(),
                core.image.as_str().as_bytes().to_vec(),
            )]
            .into(),
            ..head.commit
        };
        Ok(lease
            .publish(&commit, &state.orphans.encode())
            .map_err(CheckpointError::from)?)
    }

    /// The image's checkpoints, newest first.
    ///
    /// - **Errors**: [`GateError::HeldHere`](crate::gate::GateError::HeldHere) inside a guard: it waits for a checkpoint that runs.
    pub fn log(&self) -> Result<Vec<Record>, OpenError> {
        self.core.check_process()?;
        self.core.gate.check_here(Closing::Writers)?;
        let slot = self.core.state.lock();
        let state = slot.as_ref().ok_or(CheckpointError::Closed)?;
        Ok(state.lease.log().collect::<Result<_, _>>()?)
    }
}
