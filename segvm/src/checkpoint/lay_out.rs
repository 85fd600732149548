//! Bounding fragmentation: windows that lie in many pieces are written again in one.
//!
//! Scattered writes cut the runs that resume maps. Writing a window again costs 2 MiB and wins until the program writes there
//! again, so the best moment is the end of a session, once; beside the program it is done only where a resume after a
//! kill would find more pieces than it may map.

use segvm_blockcache::{BlockId, BlockIndex, Place};

use super::{CheckpointError, InSegment as _, blocks::Sink};
use crate::segment::state::State;

/// A resume maps so many pieces in a millisecond: a session that ends with less is left as it is.
const FEW: usize = 1024;

/// Beside the program: a resume maps up to 3,072 pieces and reads the rest in, which costs it milliseconds.
const MANY: usize = 2048;

/// Beside the program: with writes scattered over so many windows, each is in 64 pieces on average however often it is written
/// again within the budget (two bytes for each that is dirty), and nothing is won.
const SCATTERED: usize = 96;

/// Windows in fewer pieces are good enough.
const PIECES: u64 = 9;

const WINDOW: u64 = crate::dirty::WINDOW as u64;

/// Bytes that a session may write again when it ends, and never more than it has written so far: a short one ends shortly.
pub(super) const AT_THE_END: u64 = 256 << 20;

/// When windows are written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// While the program runs, from what is stored.
    Beside,
    /// While the session ends, from memory: nobody writes to it any more, and each block is what was stored if its hash says so.
    End,
}

/// Tells whether it pays to write windows of this segment again.
pub(crate) fn pays(segment: &State, when: When) -> bool {
    let pieces = segment.layout.len();
    match when {
        When::Beside => pieces > MANY,
        When::End => pieces > FEW,
    }
}

impl Sink<'_> {
    /// Writes whole windows again where they lie in the most pieces, and takes what was written off the `budget`.
    pub(crate) fn lay_out_again(
        &mut self,
        segment: &mut State,
        when: When,
        budget: &mut u64,
    ) -> Result<(), CheckpointError> {
        let size = segment.shared.block_size;
        if size.bytes() as u64 >= WINDOW || *budget < WINDOW || !pays(segment, when) {
            return Ok(());
        }
        let most = usize::try_from(*budget / WINDOW).unwrap_or(usize::MAX);
        let worst = segment
            .layout
            .windows_worst(WINDOW, most.max(SCATTERED + 1), PIECES);
        if when == When::Beside && worst.len() > SCATTERED {
            return Ok(());
        }
        let name = segment.shared.name.clone();
        // What is laid out again may have been put a moment ago.
        self.writer.flush()?;
        for window in worst.into_iter().take(most) {
            let mut present: Vec<(BlockIndex, BlockId, Place)> = Vec::new();
            for n in 0..WINDOW / size.bytes() as u64 {
                let index = window.first.plus(n);
                let id = segment.tree.get(self.store, index).of(&name)?;
                if let Some((id, place)) = id.zip(segment.layout.get(index)) {
                    present.push((index, id, place));
                }
            }
            let mut rest = present.as_slice();
            while !rest.is_empty() {
                let room = self.writer.room(size, rest.len())?;
                let (batch, later) =
                    rest.split_at(rest.len().min(room.len() / size.bytes()).max(1));
                let blocks = batch.iter().zip(room.chunks_exact_mut(size.bytes()));
                for (&(index, id, place), bytes) in blocks {
                    if when == When::End {
                        let block = [segment.shared.block(index)];
                        // SAFETY: the block is committed memory of this segment, and at the end the gate is closed to
                        // everybody until the capture is done.
                        unsafe { self.kernel.copy_quiet(&block, bytes) }?;
                        if BlockId::of(bytes) == id {
                            continue;
                        }
                    }
                    self.store.read_best(&id, place, bytes)?;
                }
                let ids: Vec<_> = batch.iter().map(|(_, id, _)| Some(*id)).collect();
                let places = self.writer.keep(&ids)?;
                for ((index, id, _), place) in batch.iter().zip(&places) {
                    if let Some(place) = place {
                        segment.move_block(*index, *id, *place);
                    }
                }
                let bytes = (batch.len() * size.bytes()) as u64;
                *budget = budget.saturating_sub(bytes);
                rest = later;
            }
            if *budget < WINDOW {
                break;
            }
        }
        Ok(())
    }
}
