//! What a session is made of, shared by its handles, its heap and its checkpoint thread.
//!
//! Lock order: the turn of `hooks`, `state`, then `arrivals`, `segments`, `heaps`; none of the latter three is held across I/O or a wait.
//! Whoever holds a pass of the gate never waits for `state`: a checkpoint holds it while it waits at the gate.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use segvm_blockcache::{CommitId, Marks, PackWriter, Store, TreeId, WriterOptions};
use segvm_home::{
    BRANCHED_FROM, Commit, DirHome, Holder, ImageName, Record, SegmentRecord, Timestamp,
    WriterLease,
    lease::{Checkout, Token},
};

use super::{cause::Resumed, verify::Verify};
use crate::{
    checkpoint::{CheckpointError, Saved, Staging, Takeover},
    dirty::Maps,
    gate::Gate,
    hooks::Hooks,
    region::Slots,
    root::HeapShared,
    segment::state::{Shared, State as SegmentState},
    world::World,
};

/// The unchanging part of a session, and the locks around the rest.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) world: World,
    pub(crate) store: Arc<Store>,
    pub(crate) home: DirHome,
    /// Another one after [`branch_here`](crate::Session::branch_here). A leaf lock.
    pub(super) image: Mutex<ImageName>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) gate_timeout: Duration,
    pub(crate) hooks: Hooks,
    pub(super) verify: Verify,
    pub(crate) holder: Holder,
    /// The process that opened the session; in any other, everything answers Forked and nothing is touched.
    pub(crate) owner: u32,
    /// The newest checkpoint; apart from `state`, so that it can be told while one runs.
    pub(crate) newest: Mutex<Option<CommitId>>,
    /// How memory came to its content; apart from `state` as well.
    pub(crate) resumed: Mutex<Option<Resumed>>,
    /// `None` once the session is closed.
    pub(crate) state: Mutex<Option<State>>,
    /// Segments made since the last checkpoint began, waiting to become part of `state`.
    pub(crate) arrivals: Mutex<Vec<SegmentState>>,
    /// By name, all segments of the session.
    pub(crate) segments: Mutex<BTreeMap<String, Arc<Shared>>>,
    /// By name of their segment, the heaps that were asked for.
    pub(crate) heaps: Mutex<BTreeMap<String, Arc<HeapShared>>>,
    /// How many maps all segments have together.
    pub(crate) maps: Arc<Maps>,
    /// Places for secrets. A leaf but for the gate, which whoever holds it has a pass of.
    pub(crate) secrets: Mutex<Slots>,
}

/// The part of a session that a checkpoint works on.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) head: Option<Record>,
    pub(crate) segments: Vec<SegmentState>,
    /// The pack that this session appends to; made with the first checkpoint, sealed by suspend.
    pub(crate) writer: Option<PackWriter>,
    /// Packs that nobody sealed yet and that the image's commits may need: what was durable in them counts. Of this session,
    /// ended by a failure; and of sessions that were stolen from and live.
    pub(crate) orphans: Marks,
    pub(crate) staging: Staging,
    /// Bytes written since the extent maps were saved last.
    pub(crate) extents_owed: u64,
    /// Trees whose extent maps this session saved: superseded ones are removed.
    pub(crate) extents_saved: Vec<TreeId>,
    pub(crate) generation: u64,
    /// When the last capture's instant was.
    pub(crate) instant: SystemTime,
    /// Why no checkpoint can be made any more: memory and what is known of it have parted.
    pub(crate) broken: Option<String>,
    /// Set by restore: the next commit notes it.
    pub(crate) restored_from: Option<CommitId>,
    /// Set while a session without a lease commits.
    pub(super) unleased: bool,
    /// The image that the next commit, the first of a new one, is branched off.
    pub(super) branched_from: Option<ImageName>,
    /// Who took the image over; set with the first commit that was refused for it.
    pub(super) orphaned: Option<Box<Takeover>>,
    /// The last field, as fields are dropped in order: whoever takes the lease next seals this session's pack, so the
    /// writer's thread must have ended. `None` for readers and orphans.
    pub(super) lease: Option<WriterLease>,
}

impl Core {
    pub(crate) fn image(&self) -> ImageName {
        self.image.lock().clone()
    }

    /// A writer that has not made its pack yet.
    pub(crate) fn new_writer(&self) -> PackWriter {
        self.store.writer(WriterOptions::default())
    }

    pub(crate) fn check_process(&self) -> Result<(), CheckpointError> {
        if std::process::id() == self.owner {
            Ok(())
        } else {
            Err(CheckpointError::Forked { owner: self.owner })
        }
    }

    /// Makes the captured trees the newest checkpoint. Durability, in order:
    ///
    /// 1. sync the pack: blocks, nodes, directory, header (without a lease: seal it);
    /// 2. append the record, which carries the commit and the mark up to where the pack is durable;
    /// 3. sync the record's file.
    ///
    /// A crash before 3 has ended leaves the previous checkpoint or this one, complete.
    pub(crate) fn publish(
        &self,
        state: &mut State,
        trees: Vec<TreeId>,
        saved: &mut Saved,
    ) -> Result<(), CheckpointError> {
        if state.unleased {
            // Whoever is the image's next writer seals what its records mark, and this session may live then.
            state.seal()?;
            self.store.settle()?;
        } else {
            state.writer(self).sync()?;
        }
        let mut records: Vec<SegmentRecord> = state
            .segments
            .iter()
            .zip(&trees)
            .map(|(segment, &tree)| record_of(segment, tree))
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(head) = &state.head
            && head.commit.segments == records
            && state.restored_from.is_none()
            && state.branched_from.is_none()
        {
            saved.commit = head.commit_id;
            saved.sequence = head.seq + 1;
            // It is told as durable, and whoever made it may have been killed before the sync.
            if let Some(lease) = &mut state.lease {
                lease.confirm()?;
            }
            return Ok(());
        }
        let commit = Commit {
            parents: state.head.iter().map(|head| head.commit_id).collect(),
            time: Timestamp::from(state.instant),
            host: self.holder.host.clone(),
            program: self.holder.program.clone(),
            generation: state.generation,
            page_size_log2: u8::try_from(self.world.kernel.page_size().log2()).unwrap_or(u8::MAX),
            pointer_width: u8::try_from(usize::BITS / 8).unwrap_or(u8::MAX),
            segments: records,
            attributes: state.notes(),
        };
        let marks = state.marks(self)?;
        let head = match &mut state.lease {
            Some(lease) => {
                lease.publish(&commit, &marks.encode())?;
                lease.head().cloned()
            }
            None => self.commit_unleased(state, &commit, &marks)?,
        };
        let commit_id = head.as_ref().map_or(saved.commit, |head| head.commit_id);
        saved.sequence = head.as_ref().map_or(0, |head| head.seq + 1);
        *self.newest.lock() = Some(commit_id);
        state.head = head;
        state.restored_from = None;
        state.branched_from = None;
        saved.commit = commit_id;
        saved.changed = true;
        Ok(())
    }

    /// Adds a commit without a lease: see [`Session::commit`](crate::Session::commit).
    fn commit_unleased(
        &self,
        state: &State,
        commit: &Commit,
        marks: &Marks,
    ) -> Result<Option<Record>, CheckpointError> {
        if !state.unleased {
            return Err(state.no_lease(self));
        }
        let image = self.image();
        let checkout = Checkout {
            token: None,
            base: state.head.as_ref().map(|head| head.commit_id),
        };
        let made = self
            .home
            .commit(&image, checkout, commit, &marks.encode())?;
        // Somebody may have followed it by now: the commit is found all the same.
        let mut log = self.home.log(&image).ok().into_iter().flatten();
        let found = log.find_map(|record| record.ok().filter(|record| record.commit_id == made));
        Ok(Some(found.unwrap_or_else(|| Record {
            seq: state.head.as_ref().map_or(0, |head| head.seq + 1),
            commit_id: made,
            commit: commit.clone(),
            mark: marks.encode(),
            token: Token::NONE,
        })))
    }
}

fn record_of(segment: &SegmentState, tree: TreeId) -> SegmentRecord {
    let shared = &segment.shared;
    SegmentRecord {
        name: shared.name.clone(),
        tree,
        len: segment.tree.len(),
        block_size: shared.block_size,
        base: shared.base() as u64,
        reserved: shared.reservation.len() as u64,
        kind: shared.kind,
        fingerprint: *shared.fingerprint.as_bytes(),
        ranges: shared.regions.records(shared.base(), segment.tree.len()),
    }
}

impl State {
    pub(crate) fn check_usable(&mut self, core: &Core) -> Result<(), CheckpointError> {
        self.segments.append(&mut core.arrivals.lock());
        match &self.broken {
            Some(reason) => Err(CheckpointError::Broken {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Only who has a lease checkpoints, or who is about to ask the home for a commit without one.
    pub(crate) fn check_writer(&self, core: &Core) -> Result<(), CheckpointError> {
        if self.lease.is_some() || self.unleased {
            return Ok(());
        }
        Err(self.no_lease(core))
    }

    /// The marks of the next record: of every pack that is not sealed and that the image's commits may need.
    fn marks(&mut self, core: &Core) -> Result<Marks, CheckpointError> {
        let mut marks = self.orphans.clone();
        let own = self.writer.as_ref().and_then(PackWriter::mark);
        let mut fits = own.is_none_or(|mark| marks.set(mark));
        if self.unleased
            && let Some(head) = &self.head
        {
            // What a dead writer left is for the next one with a lease to complete.
            let head = Marks::decode(&head.mark).map_err(|error| CheckpointError::Broken {
                reason: error.to_string(),
            })?;
            for mark in head
                .list()
                .iter()
                .filter(|mark| !core.store.has_sealed(mark.pack))
            {
                fits &= marks.set(*mark);
            }
        }
        if fits {
            return Ok(marks);
        }
        Err(CheckpointError::Broken {
            reason: "too many packs of this session could not be sealed".into(),
        })
    }

    pub(super) fn no_lease(&self, core: &Core) -> CheckpointError {
        match &self.orphaned {
            Some(by) => CheckpointError::Orphaned { by: by.clone() },
            None => CheckpointError::ReadOnly {
                image: core.image().to_string(),
            },
        }
    }

    /// The image went on without this session. Nothing more is written to its pack: sealed, it can be mapped by everybody,
    /// and with the lock given up nobody takes this session for a writer any more.
    pub(crate) fn become_orphan(&mut self, by: &Takeover) {
        // A pack that cannot be sealed is read as far as its mark says, by the thief too.
        let _stays_marked = self.seal();
        self.orphaned = Some(Box::new(by.clone()));
        self.lease = None;
    }

    /// What the next commit says of where it comes from.
    fn notes(&self) -> BTreeMap<String, Vec<u8>> {
        let restored = self.restored_from.as_ref();
        let restored =
            restored.map(|commit| ("restored-from".to_owned(), commit.as_bytes().to_vec()));
        let branched = self.branched_from.as_ref().filter(|_| self.head.is_some());
        let branched =
            branched.map(|image| (BRANCHED_FROM.to_owned(), image.as_str().as_bytes().to_vec()));
        restored.into_iter().chain(branched).collect()
    }

    /// The pack writer; a new one where there is none.
    pub(crate) fn writer(&mut self, core: &Core) -> &mut PackWriter {
        self.writer.get_or_insert_with(|| core.new_writer())
    }

    /// Takes a failed checkpoint back, so that the next one includes what it would have saved.
    pub(crate) fn roll_back(&mut self, core: &Core, error: &CheckpointError) {
        // A writer whose write or sync failed takes no more. Its pack counts up to the last mark.
        if matches!(
            error,
            CheckpointError::Pack(_) | CheckpointError::Tree { .. }
        ) && let Some(dead) = self.writer.take()
            && let Some(mark) = dead.mark()
        {
            drop(dead);
            if core.store.adopt(mark).is_err() && !self.orphans.set(mark) {
                self.broken = Some(error.to_string());
            }
        }
        for segment in &mut self.segments {
            if let Err(error) = segment.roll_back(&*core.store) {
                self.broken = Some(error.to_string());
            }
        }
    }

    /// Seals the session's pack, so that it can be mapped; never in the middle of a checkpoint. What was durable before stays so
    /// if this fails.
    pub(crate) fn seal(&mut self) -> Result<(), CheckpointError> {
        if let Some(writer) = self.writer.take() {
            let mark = writer.mark();
            if let Err(error) = writer.seal() {
                if let Some(mark) = mark
                    && !self.orphans.set(mark)
                {
                    self.broken = Some(error.to_string());
                }
                for segment in &mut self.segments {
                    segment.move_back();
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Saves the extent maps once eight times their size was written: a bounded part of the checkpoint's own cost.
    pub(crate) fn save_extents_when_due(&mut self, core: &Core, written: u64) {
        self.extents_owed += written;
        let size: u64 = self
            .segments
            .iter()
            .map(|segment| 32 * segment.layout.len() as u64)
            .sum();
        if self.extents_owed >= 8 * size {
            self.save_extents(core);
        }
    }

    /// Saves the extent maps of the newest checkpoint. They are a cache: a failure costs the next resume time only.
    pub(crate) fn save_extents(&mut self, core: &Core) {
        self.extents_owed = 0;
        let mut saved = Vec::new();
        for segment in &self.segments {
            if let Some(tree) = segment.tree.id()
                && core.store.save_extents(tree, &segment.layout).is_ok()
            {
                saved.push(tree);
            }
        }
        for old in std::mem::replace(&mut self.extents_saved, saved) {
            if !self.extents_saved.contains(&old) {
                // A map that stays behind is only a few pages of disk.
                let _stays = core.store.forget_extents(old);
            }
        }
    }
}
