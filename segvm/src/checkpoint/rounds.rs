//! Rounds: what is dirty is copied while the program runs, so that little is left for the pause.
//!
//! A round that *stores* writes whole blocks and is as slow as the disk; a program that dirties a page in each of many blocks
//! dirties the next ones as fast. A round that *copies ahead* puts the pages beside, at the speed of memory, to be stored after
//! the pause: what is dirtied meanwhile is little. So a long list is stored, which keeps memory small, and a short one is
//! copied ahead.
//!
//! What was copied ahead and is not dirty at the pause held these very bytes then: it was armed before it was copied, and what a device
//! was still reading into it then had arrived ([`Gate::settle`](crate::gate::Gate)).

use std::time::Duration;

use segvm_blockcache::spans;

use super::{
    CheckpointError, Rounds, Saved, Staging, blocks::Source, collect, pending_bytes, store_pending,
};
use crate::{
    dirty::{Phase, merge},
    session::core::{Core, State},
};

/// The first round stores its blocks if more than this is dirty.
const WORTH_STORING: usize = 4 << 20;

/// Later ones copy ahead what is less than this.
const FITS_BESIDE: usize = 32 << 20;

/// So little is left to the pause: 256 pages of 4 KiB.
const SMALL: usize = 1 << 20;

/// A program that dirties memory faster than rounds store it is not chased for ever.
const MAX_ROUNDS: u32 = 4;

/// Where a pass is out for longer, rounds are no use: what was found is left to the pause, which waits for the pass anyway.
const LONGEST_PASS: Duration = Duration::from_millis(50);

/// Stores or copies ahead until little is dirty or it stops shrinking.
pub(super) fn run(
    core: &Core,
    state: &mut State,
    how: Rounds,
    staging: &mut Staging,
    saved: &mut Saved,
    progress: &dyn Fn(u64),
) -> Result<(), CheckpointError> {
    let mut before = usize::MAX;
    loop {
        // Without rounds too: what is cold and was touched becomes warm outside the pause.
        let scan = spans::span!(DEBUG, "scan", bytes = spans::Empty);
        collect(state, Phase::Round);
        let dirty = pending_bytes(state);
        spans::record!(scan, bytes = dirty);
        drop(scan);
        let enough = if saved.rounds == 0 {
            WORTH_STORING
        } else {
            FITS_BESIDE
        };
        if how == Rounds::Off || dirty <= enough || dirty > before / 2 || saved.rounds == MAX_ROUNDS
        {
            break;
        }
        if !core.gate.settle(LONGEST_PASS) {
            return Ok(());
        }
        before = dirty;
        saved.rounds += 1;
        let _round = spans::span!(DEBUG, "round", round = saved.rounds, bytes = dirty);
        store_pending(core, state, saved, Source::Racing, progress)?;
    }
    if how == Rounds::Off {
        return Ok(());
    }
    copy_ahead(core, state, staging)
}

/// Copies pending pages beside, again and again, while at least half of them stay clean meanwhile.
fn copy_ahead(
    core: &Core,
    state: &mut State,
    staging: &mut Staging,
) -> Result<(), CheckpointError> {
    let mut before = usize::MAX;
    loop {
        let dirty = pending_bytes(state);
        if dirty <= SMALL || dirty > before / 2 || !core.gate.settle(LONGEST_PASS) {
            return Ok(());
        }
        before = dirty;
        let _copying = spans::span!(DEBUG, "copy_ahead", bytes = dirty);
        for segment in &mut state.segments {
            staging.copy_ahead(&*core.world.kernel, &segment.pending)?;
            let copied = std::mem::take(&mut segment.pending);
            segment.ahead = merge(&segment.ahead, &copied);
        }
        staging.end_of_copy();
        collect(state, Phase::Round);
    }
}
