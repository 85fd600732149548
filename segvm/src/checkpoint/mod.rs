//! A checkpoint: live migration into a snapshot.
//!
//! ```text
//!   rounds: scan + arm, copy, hash, store          the program runs
//!   shorter ones: scan + arm, copy
//!   ----------------------------------------------------------------
//!   close the gate, last scan, copy the residue    THE PAUSE: nothing is hashed, written or synced
//!   ----------------------------------------------------------------
//!   hash and store the residue; nodes bottom-up    the program runs
//!   sync the pack; append the record; sync it
//!   ---------------------------------------------------------------- durable
//!   write the most fragmented windows again
//! ```
//!
//! | room | for |
//! |---|---|
//! | `blocks` | dirty pages to stored blocks |
//! | `lay_out` | stored blocks to fewer pieces |
//! | `rounds` | what is done before the pause |
//! | `staging` | copies of pages that no block has yet |
//! | `error` | why it failed |
//!
//! A failure at any point leaves the previous checkpoint the newest, and what changed since then pending.

mod blocks;
mod error;
mod lay_out;
mod rounds;
mod staging;

use std::time::{Duration, Instant};

use segvm_blockcache::{CommitId, spans};
use segvm_os::PageRange;

use self::{
    blocks::{Sink, Source},
    lay_out::When,
};
use crate::{
    dirty::{Phase, merge, pages_in},
    gate::{Closing, Gate},
    hooks::Flushed,
    session::core::{Core, State},
};

pub(crate) use self::error::InSegment;
pub use self::error::{CheckpointError, Takeover};
pub(crate) use self::staging::Staging;

/// How rounds are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rounds {
    /// As many as shrink the residue: four at most that store, and shorter ones that copy pages aside.
    #[default]
    Auto,
    /// None: all that is dirty is copied in the pause. Where it is dirty is looked up before. For measuring, and for programs
    /// that are idle anyway.
    Off,
}

/// What a checkpoint did and what it cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Saved {
    /// The commit that holds the state; the one before where nothing had changed.
    pub commit: CommitId,
    /// Whether a new commit was made.
    pub changed: bool,
    /// How many checkpoints the image has, this one included.
    pub sequence: u64,
    /// How long the gate was closed.
    pub pause: Duration,
    /// From the call until the result was durable.
    pub took: Duration,
    /// Rounds before the pause that stored blocks.
    pub rounds: u32,
    /// Bytes of dirty pages copied in the pause.
    pub bytes_paused: u64,
    /// Blocks that had a dirty page.
    pub blocks_dirty: u64,
    /// Bytes of new blocks written.
    pub bytes_blocks: u64,
    /// How many bytes of old blocks may now be written again so that the image stays in few pieces.
    pub(crate) to_lay_out: u64,
    /// Bytes that reached the disk in all, nodes and directories included.
    pub bytes_written: u64,
    /// What each flush hook did, in order; none of it is part of `took`.
    pub flushed: Vec<Flushed>,
}

impl Saved {
    pub(crate) fn begin() -> Self {
        Self {
            commit: CommitId::from_bytes([0; 32]),
            changed: false,
            sequence: 0,
            pause: Duration::ZERO,
            took: Duration::ZERO,
            rounds: 0,
            bytes_paused: 0,
            blocks_dirty: 0,
            bytes_blocks: 0,
            to_lay_out: 0,
            bytes_written: 0,
            flushed: Vec::new(),
        }
    }
}

/// What kind of capture is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// The program goes on afterwards.
    Checkpoint(Rounds),
    /// The gate stays closed to everybody; the session ends.
    Suspend,
}

/// Captures every segment at one instant and makes the result durable.
///
/// The caller holds the state lock. In style `Suspend` it has closed the gate to everybody already.
pub(crate) fn run(
    core: &Core,
    state: &mut State,
    style: Style,
    progress: &dyn Fn(u64),
) -> Result<Saved, CheckpointError> {
    core.check_process()?;
    state.check_usable(core)?;
    state.check_writer(core)?;
    let begun = Instant::now();
    let result = capture(core, state, style, progress, begun);
    if let Err(error) = &result {
        state.roll_back(core, error);
        if let CheckpointError::Orphaned { by } = error {
            state.become_orphan(by);
        }
    }
    result
}

fn capture(
    core: &Core,
    state: &mut State,
    style: Style,
    progress: &dyn Fn(u64),
    begun: Instant,
) -> Result<Saved, CheckpointError> {
    let mut saved = Saved::begin();
    let written_before = state.writer(core).bytes_written();
    match style {
        Style::Suspend => {
            state.instant = (core.world.now)();
            collect(state, Phase::Last);
            if fits_in_memory(pending_bytes(state) as u64) {
                state.writer(core).keep_in_memory();
            }
            store_pending(core, state, &mut saved, Source::Quiet, progress)?;
            lay_out_at_the_end(core, state, &mut saved)?;
        }
        Style::Checkpoint(how) => {
            let mut staging = std::mem::take(&mut state.staging);
            rounds::run(core, state, how, &mut staging, &mut saved, progress)?;
            pause(core, state, &mut staging, &mut saved)?;
            let _residue = spans::span!(DEBUG, "residue", bytes = pending_bytes(state));
            store_pending(core, state, &mut saved, Source::Staged(&staging), progress)?;
            staging.clear();
            state.staging = staging;
        }
    }
    let publishing = spans::span!(
        DEBUG,
        "publish",
        sequence = spans::Empty,
        commit = spans::Empty
    );
    let sealed = seal_trees(core, state)?;
    core.publish(state, sealed, &mut saved)?;
    spans::record!(
        publishing,
        sequence = saved.sequence,
        commit = spans::shown(saved.commit),
    );
    drop(publishing);
    for segment in &mut state.segments {
        segment.settle();
    }
    saved.took = begun.elapsed();
    let written = state.writer(core).bytes_written();
    state.save_extents_when_due(core, written.saturating_sub(written_before));
    saved.bytes_written = written.saturating_sub(written_before);
    saved.to_lay_out = saved.bytes_blocks.saturating_mul(2);
    Ok(saved)
}

/// Tells whether so much may lie in the page cache for a while beside the program: whoever resumes soon finds it there, and the
/// kernel writes it with more requests in flight than one thread's direct writes.
fn fits_in_memory(bytes: u64) -> bool {
    segvm_os::available_memory().is_some_and(|available| bytes <= available / 2)
}

/// Adds what was written since the last look to each segment's pending pages.
fn collect(state: &mut State, phase: Phase) {
    for segment in &mut state.segments {
        let committed = segment.shared.committed();
        segment.collected_len = committed.len() as u64;
        // After the length was read: whoever sees a region's end in it sees the region.
        let kept = segment.shared.kept(committed);
        let mut found = Vec::new();
        if segment.tracker.collect(&kept, phase, &mut found).is_err() {
            // A scan that failed may have armed pages without reporting them: everything is dirty.
            found = kept;
        }
        // Pages that an earlier, failed checkpoint left pending would be needed again if this one fails.
        segment.pending = merge(&segment.pending, &found);
        segment.collected = merge(&segment.collected, &segment.pending);
    }
}

fn pending_bytes(state: &State) -> usize {
    state
        .segments
        .iter()
        .map(|segment| pages_in(&segment.pending))
        .sum()
}

/// Closes the gate, takes the residue, opens it. Nothing else.
fn pause(
    core: &Core,
    state: &mut State,
    staging: &mut Staging,
    saved: &mut Saved,
) -> Result<(), CheckpointError> {
    staging.make_room(pending_bytes(state));
    let gate: &Gate = &core.gate;
    // Nothing is told to it before the gate is open again.
    let span = spans::span!(
        DEBUG,
        "pause",
        waited_us = spans::Empty,
        pause_us = spans::Empty,
        pages = spans::Empty,
        bytes = spans::Empty,
    );
    let asked = Instant::now();
    let closed = gate.close(Closing::Writers, core.gate_timeout)?;
    let begun = Instant::now();
    state.instant = (core.world.now)();
    // What was made during the rounds may be referred to by what is captured now.
    state.segments.append(&mut core.arrivals.lock());
    collect(state, Phase::Pause);
    let mut copied = Ok(());
    for segment in &state.segments {
        // SAFETY: pending pages lie in committed memory of this segment, and the gate is closed: by the contract of
        // raw access (docs on `Segment::as_ptr`) nobody writes now.
        copied = unsafe { staging.take(&*core.world.kernel, &segment.pending) };
        if copied.is_err() {
            break;
        }
    }
    saved.pause = begun.elapsed();
    drop(closed);
    saved.bytes_paused = pending_bytes(state) as u64;
    spans::record!(
        span,
        waited_us = spans::micros(begun - asked),
        pause_us = spans::micros(saved.pause),
        pages = saved.bytes_paused >> core.world.kernel.page_size().log2(),
        bytes = saved.bytes_paused,
    );
    copied?;
    staging.settle();
    for segment in &mut state.segments {
        let ahead = std::mem::take(&mut segment.ahead);
        segment.pending = merge(&segment.pending, &ahead);
    }
    Ok(())
}

/// Stores what is pending in every segment.
fn store_pending(
    core: &Core,
    state: &mut State,
    saved: &mut Saved,
    source: Source<'_>,
    progress: &dyn Fn(u64),
) -> Result<(), CheckpointError> {
    let State {
        segments, writer, ..
    } = state;
    let mut sink = Sink::new(core, writer, saved, progress);
    for segment in segments {
        let pages: Vec<PageRange> = std::mem::take(&mut segment.pending);
        let span = spans::span!(
            DEBUG,
            "store",
            segment = &*segment.shared.name,
            bytes_dirty = pages_in(&pages),
            blocks_dirty = spans::Empty,
            bytes_blocks = spans::Empty,
        );
        let before = (sink.saved.blocks_dirty, sink.saved.bytes_blocks);
        segment.fit_tree(&*core.store)?;
        sink.store(segment, &pages, source)?;
        spans::record!(
            span,
            blocks_dirty = sink.saved.blocks_dirty - before.0,
            bytes_blocks = sink.saved.bytes_blocks - before.1,
        );
    }
    Ok(())
}

/// Tells whether any segment lies in so many pieces that it pays to mend it.
pub(crate) fn is_fragmented(core: &Core) -> bool {
    let state = core.state.lock();
    let segments = state.iter().flat_map(|state| &state.segments);
    segments
        .into_iter()
        .any(|segment| lay_out::pays(segment, When::Beside))
}

/// Bounds fragmentation: writes the most fragmented windows again, about `budget` bytes; answers how many it wrote.
///
/// Happens after a checkpoint is durable, and nothing depends on it: what is written here becomes durable with the next
/// checkpoint, and a failure costs maps at the next resume.
pub(crate) fn lay_out_again(core: &Core, state: &mut State, budget: u64) -> u64 {
    let may_write = state.check_writer(core).and_then(|()| core.check_process());
    if state.broken.is_some() || may_write.is_err() {
        return 0;
    }
    let mut left = budget;
    let mut saved = Saved::begin();
    let State {
        segments, writer, ..
    } = state;
    let mut sink = Sink::new(core, writer, &mut saved, &|_| ());
    let mut result = Ok(());
    for segment in segments {
        result = sink.lay_out_again(segment, When::Beside, &mut left);
        if result.is_err() {
            break;
        }
    }
    // What was moved can be undone until a checkpoint has made it durable: if that one fails, nothing lies there.
    if let Err(error) = result {
        state.roll_back(core, &error);
        return 0;
    }
    budget - left
}

/// Mends what scattered writes left in many pieces, so that the next session begins without a wait.
fn lay_out_at_the_end(
    core: &Core,
    state: &mut State,
    saved: &mut Saved,
) -> Result<(), CheckpointError> {
    let State {
        segments, writer, ..
    } = state;
    let mut sink = Sink::new(core, writer, saved, &|_| ());
    let mut budget = lay_out::AT_THE_END.min(sink.writer.bytes_written());
    for segment in segments {
        sink.lay_out_again(segment, When::End, &mut budget)?;
    }
    Ok(())
}

/// Writes the changed nodes of every tree, bottom-up.
fn seal_trees(
    core: &Core,
    state: &mut State,
) -> Result<Vec<segvm_blockcache::TreeId>, CheckpointError> {
    let State {
        segments, writer, ..
    } = state;
    let writer = writer.get_or_insert_with(|| core.new_writer());
    let mut sealed = Vec::with_capacity(segments.len());
    for segment in segments {
        let name = segment.shared.name.clone();
        segment.fit_tree(&*core.store)?;
        let tree = segment.tree.seal(writer);
        sealed.push(tree.map_err(|source| CheckpointError::Nodes {
            segment: name,
            source,
        })?);
    }
    Ok(sealed)
}
