//! The image's line of commits: going back on it, and reading it.

use segvm_blockcache::{CommitId, spans};
use segvm_home::{Home as _, Record, SegmentRecord, Timestamp};

use super::{
    Session,
    cause::{Cause, Resumed},
    core::{Core, State},
    error::OpenError,
    open::check_machine,
    plan, reader, resume,
    segments::HEAP,
    verify::{self, Verify},
};
use crate::{
    checkpoint::CheckpointError,
    gate::Closing,
    hooks,
    region::{self, Unfilled},
};

/// What becomes of segments that a commit has and the session has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// Nothing: they are not part of the session.
    Leave,
    /// They become part of it.
    Attach,
}

impl Session {
    /// Goes back to an older checkpoint of the image; what changed since the newest one is given up.
    ///
    /// `reference` is what follows `@` in a name: `-1` for the one before the newest, a commit's first digits, a time (`2h`,
    /// `yesterday`, `2026-11-25T12:30:00Z`), or a tag.
    ///
    /// Segments have the lengths they had: see [`Segment::len`](crate::segment::Segment::len).
    ///
    /// - **Durable**: the image's line is as before until the next checkpoint, which notes where it was restored from. A
    ///   reader just reads another commit.
    /// - **Errors**: with the gate still held by a guard; or where a segment did not exist then.
    pub fn restore(&self, reference: &str) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        self.core.hooks.check_here()?;
        let span = spans::span!(
            INFO,
            "restore",
            image = %self.core.image(),
            to = reference,
            commit = spans::Empty,
            generation = spans::Empty,
        );
        let (commit, resumed, regions) = self.show_again(reference)?;
        spans::record!(
            span,
            commit = spans::shown(commit),
            generation = resumed.generation,
        );
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
        let record = core.home.resolve(&core.image(), &reference.parse()?, now)?;
        let _closed = core
            .gate
            .close_even_if_poisoned(Closing::Everybody, core.gate_timeout)?;
        // Only sealed packs can be mapped.
        state.seal()?;
        let regions = self.go_to(state, &record, Lacking::Leave)?;
        let resumed = Resumed::from(&record, Cause::Restore, state.generation, now);
        state.generation = resumed.generation;
        *core.resumed.lock() = Some(resumed);
        let commit = record.commit_id;
        if state.lease.is_some() {
            state.restored_from = Some(commit);
        } else {
            state.continues(core, record);
        }
        Ok((commit, resumed, regions))
    }

    /// Makes memory what a commit says; answers what has to be filled. The gate is closed to everybody.
    pub(super) fn go_to(
        &self,
        state: &mut State,
        record: &Record,
        lacking: Lacking,
    ) -> Result<Vec<Unfilled>, OpenError> {
        let core = &self.core;
        check_machine(&core.world, &core.image(), record)?;
        reader::read_along(&core.store, record)?;
        let mut then: Vec<&SegmentRecord> = Vec::with_capacity(state.segments.len());
        let of_commit = &record.commit.segments;
        for segment in &state.segments {
            let name = &segment.shared.name;
            let found = of_commit.iter().find(|then| then.name == *name);
            then.push(found.ok_or_else(|| OpenError::NoSegmentThen {
                segment: name.clone(),
                commit: record.commit_id,
            })?);
        }
        if lacking == Lacking::Attach {
            let known = core.segments.lock();
            then.extend(
                of_commit
                    .iter()
                    .filter(|new| !known.contains_key(&new.name)),
            );
        }
        let plans = plan::plan(&core.store, &then)?;
        if core.verify == Verify::All {
            verify::verify(&core.store, &then, &plans)?;
        }
        let mut shown = then.into_iter().zip(plans);
        let half_way = |state: &mut State, error: OpenError| {
            // Some segments show the old state and some the new: no checkpoint may mix them.
            state.broken = Some(format!(
                "going to commit {:.12} failed half-way: {error}",
                record.commit_id
            ));
            error
        };
        for at in 0..state.segments.len() {
            let (Some(segment), Some((then, plan))) = (state.segments.get_mut(at), shown.next())
            else {
                break;
            };
            if let Err(error) = resume::show(&core.world, &core.store, segment, then, plan) {
                return Err(half_way(state, error));
            }
        }
        for (new, plan) in shown {
            let attached = self.tracker().and_then(|tracker| {
                let owner = self.owner_of(&new.name);
                resume::attach(&core.world, &core.store, &owner, new, plan, tracker)
            });
            match attached {
                Ok(segment) => {
                    let shared = segment.shared.clone();
                    core.segments.lock().insert(shared.name.clone(), shared);
                    state.segments.push(segment);
                }
                Err(error) => return Err(half_way(state, error)),
            }
        }
        core.gate.clear_poison();
        for heap in core.heaps.lock().values() {
            heap.reopen().map_err(|source| OpenError::Heap {
                segment: HEAP.to_owned(),
                source,
            })?;
        }
        // While the gate is closed: nobody sees them before they are filled.
        let segments = state.segments.iter();
        Ok(segments
            .flat_map(|segment| region::unfilled(&segment.shared))
            .collect())
    }

    /// The image's checkpoints, newest first.
    ///
    /// - **Errors**: [`GateError::HeldHere`](crate::gate::GateError::HeldHere) inside a guard: it waits for a checkpoint that runs.
    pub fn log(&self) -> Result<Vec<Record>, OpenError> {
        self.core.check_process()?;
        self.core.gate.check_here(Closing::Writers)?;
        let slot = self.core.state.lock();
        let state = slot.as_ref().ok_or(CheckpointError::Closed)?;
        let log = match &state.lease {
            Some(lease) => lease.log(),
            None => self.core.home.log(&self.core.image())?,
        };
        Ok(log.collect::<Result<_, _>>()?)
    }
}

impl State {
    /// Takes note that memory is a commit's that this session did not make.
    pub(super) fn continues(&mut self, core: &Core, record: Record) {
        *core.newest.lock() = Some(record.commit_id);
        self.head = Some(record);
        self.restored_from = None;
    }
}
