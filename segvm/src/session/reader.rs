//! Sessions without a lease: any number of them beside a writer.
//!
//! A pack that its writer still appends to can be mapped by nobody. What a commit needs of it is read in, as far as the
//! record says that it is durable, and its hashes are checked.

use segvm_blockcache::{CommitId, Marks, Store};
use segvm_home::{DirHome, Home as _, ImageName, Record, Ref, Timestamp};

use super::{
    Session,
    cause::{Cause, Resumed},
    error::OpenError,
    line::Lacking,
};
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Saved, Style},
    gate::Closing,
    hooks::{self, Reason},
    region::{self, Unfilled},
};

/// The commit that is meant: the newest where none is said.
pub(super) fn find(
    home: &DirHome,
    image: &ImageName,
    at: Option<&Ref>,
    now: Timestamp,
) -> Result<Record, OpenError> {
    if let Some(at) = at {
        return Ok(home.resolve(image, at, now)?);
    }
    let newest = home.image(image)?.and_then(|state| state.head);
    newest.ok_or_else(|| OpenError::NoImage {
        image: image.to_string(),
    })
}

/// Makes readable what a commit's record marks, whoever may still append to it.
pub(super) fn read_along(store: &Store, record: &Record) -> Result<(), OpenError> {
    for &mark in Marks::decode(&record.mark)?.list() {
        store.read_along(mark)?;
    }
    Ok(())
}

impl Session {
    /// Goes on to the image's newest commit; what changed in a reader's memory is given up. Segments that are new come with
    /// it.
    ///
    /// - **Cost**: as opening.
    /// - **Errors**: [`OpenError::NotReader`] for the image's writer; with the gate still held by a guard;
    ///   [`OpenError::NoSegmentThen`] where a segment of this session is not in the image.
    pub fn follow(&self) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        self.core.hooks.check_here()?;
        let (commit, resumed, regions) = self.show_newest()?;
        region::fill_all(&self.core, regions)?;
        hooks::resume(&self.core, resumed)?;
        Ok(commit)
    }

    /// Makes what is in memory the image's newest commit although this session has no lease, if nobody has the image for writing
    /// and it has no commit that is newer than the one which memory continues. The session stays a reader. For a writer it is
    /// a [`checkpoint`](Session::checkpoint).
    ///
    /// - **Cost**: a checkpoint, and a pack that is sealed: this is for a change now and then.
    /// - **Durable**: on `Ok`, yes. On `Err` the image is what it was, and so is memory.
    /// - **Errors**: [`CheckpointError::Publish`] says who has the image ([`PublishError::Held`](segvm_home::PublishError::Held)), or
    ///   that it has moved on ([`PublishError::Moved`](segvm_home::PublishError::Moved)): then
    ///   [`branch_here`](Session::branch_here) keeps what changed.
    pub fn commit(&self) -> Result<Saved, CheckpointError> {
        let core = &self.core;
        core.check_process()?;
        core.gate.check_here(Closing::Writers)?;
        core.hooks.check_here()?;
        hooks::around(core, Reason::Checkpoint, || {
            let mut slot = core.state.lock();
            let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
            // Who was stolen from is told so, whoever has the image by now.
            if state.orphaned.is_some() {
                return Err(state.no_lease(core));
            }
            state.unleased = state.lease.is_none();
            let style = Style::Checkpoint(Rounds::Auto);
            let saved = checkpoint::run(core, state, style, &|_| ());
            state.unleased = false;
            saved
        })
    }

    fn show_newest(&self) -> Result<(CommitId, Resumed, Vec<Unfilled>), OpenError> {
        let core = &self.core;
        core.gate.check_here(Closing::Everybody)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        state.check_usable(core)?;
        let image = core.image();
        if state.lease.is_some() {
            return Err(OpenError::NotReader {
                image: image.to_string(),
            });
        }
        let now = Timestamp::from((core.world.now)());
        let record = find(&core.home, &image, None, now)?;
        let _closed = core
            .gate
            .close_even_if_poisoned(Closing::Everybody, core.gate_timeout)?;
        let regions = self.go_to(state, &record, Lacking::Attach)?;
        let resumed = Resumed::from(&record, Cause::Clone, state.generation, now);
        state.generation = resumed.generation;
        *core.resumed.lock() = Some(resumed);
        let commit = record.commit_id;
        state.continues(core, record);
        Ok((commit, resumed, regions))
    }
}
