//! Sessions without a lease: any number of them beside a writer.
//!
//! A pack that its writer still appends to can be mapped by nobody. What a commit needs of it is read in, as far as the
//! record says that it is durable, and its hashes are checked.

use segvm_blockcache::{CommitId, Marks, Store, StoreError};
use segvm_home::{DirHome, Home as _, ImageName, Record, Ref, Timestamp};

use super::{
    Session,
    cause::{Cause, Resumed},
    error::OpenError,
    line::Lacking,
};
use crate::{
    checkpoint::CheckpointError,
    gate::Closing,
    hooks,
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
        match store.read_along(mark) {
            Ok(()) => {}
            // A collection wrote again what was still needed of it; if not, the tree that needs it says so.
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
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
