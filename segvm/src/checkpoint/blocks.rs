//! From dirty pages to stored blocks: fill, hash, skip what is known, keep the rest.
//!
//! A block is captured whole. Its dirty pages come from where the phase says; its clean neighbours come from live
//! memory *and are checked afterwards*: a page that is armed and still not written after the copy held these very bytes at
//! the pause. One that was written meanwhile comes from the block's stored form, which is exact, because the page was
//! clean at the pause (docs/design/neighbours.md).

use segvm_blockcache::{BlockId, BlockIndex, PackWriter, Place, Store};
use segvm_os::{Kernel, PageRange, push_run};

use super::{CheckpointError, InSegment, Saved, staging::Staging};
use crate::{
    dirty::{intersect, merge, subtract},
    segment::state::State,
    session::core::Core,
};

/// Blocks handled at a time: what fits in one I/O buffer.
const BATCH_BYTES: usize = 1 << 20;

/// A run of duplicates shorter than this is stored again: sharing it would cost a mapping at every resume
/// (docs/design/sharing.md).
const SHARE_BYTES: u64 = 128 << 10;

/// Where the bytes of dirty pages come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// Memory that the program may be writing to: what it writes meanwhile is dirty again.
    Racing,
    /// Memory that nobody writes to until this is done.
    Quiet,
    /// Pages copied ahead of the pause and in it.
    Staged(&'a Staging),
}

/// What storing needs beside the segment.
pub(crate) struct Sink<'a> {
    pub(crate) kernel: &'a dyn Kernel,
    pub(crate) store: &'a Store,
    pub(crate) writer: &'a mut PackWriter,
    pub(crate) saved: &'a mut Saved,
    /// Told the bytes handled, for progress.
    pub(crate) progress: &'a dyn Fn(u64),
}

/// The blocks that `pages` touch, ascending, each once.
fn blocks_of(segment: &State, pages: &[PageRange]) -> Vec<BlockIndex> {
    let mut blocks: Vec<BlockIndex> = Vec::new();
    for run in pages {
        let first = segment.shared.block_at(run.start()).0;
        let last = segment.shared.block_at(run.end() - 1).0;
        let from = blocks.last().map_or(first, |seen| first.max(seen.0 + 1));
        blocks.extend((from..=last).map(BlockIndex));
    }
    blocks
}

/// Where the first of `blocks` lies, and how many bytes follow each other from there on, up to what is worth knowing.
fn run_at_front(segment: &State, blocks: &[BlockIndex]) -> (u64, u64) {
    let size = segment.shared.block_size;
    let Some(&first) = blocks.first() else {
        return (0, 0);
    };
    let enough = usize::try_from(PackWriter::LONG_RUN / size.bytes() as u64).unwrap_or(1);
    // The blocks ascend, each once: a run is as long as its ends are apart.
    let follows = |n: usize| {
        blocks
            .get(n - 1)
            .is_some_and(|block| block.0 - first.0 + 1 == n as u64)
    };
    let run = if follows(enough) {
        PackWriter::LONG_RUN
    } else {
        0
    };
    (segment.shared.block(first).start() as u64, run)
}

impl<'a> Sink<'a> {
    /// Puts blocks in the session's pack: its `writer`, begun if there is none.
    pub(crate) fn new(
        core: &'a Core,
        writer: &'a mut Option<PackWriter>,
        saved: &'a mut Saved,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        Self {
            kernel: &*core.world.kernel,
            store: &core.store,
            writer: writer.get_or_insert_with(|| core.new_writer()),
            saved,
            progress,
        }
    }

    /// Stores the blocks that `pages` of the segment touch.
    pub(crate) fn store(
        &mut self,
        segment: &mut State,
        pages: &[PageRange],
        source: Source<'_>,
    ) -> Result<(), CheckpointError> {
        let size = segment.shared.block_size;
        let blocks = blocks_of(segment, pages);
        let mut rest = blocks.as_slice();
        let mut scratch = Vec::new();
        // A neighbour may have to come from a block that a round has just put.
        self.writer.flush()?;
        while !rest.is_empty() {
            let wanted = rest.len().min((BATCH_BYTES / size.bytes()).max(1));
            let (address, run) = run_at_front(segment, rest);
            self.writer.align(size, address, run)?;
            let room = self.writer.room(size, wanted)?;
            let (batch, later) = rest.split_at(wanted.min(room.len() / size.bytes()).max(1));
            let Some(room) = room.get_mut(..batch.len() * size.bytes()) else {
                break;
            };
            let ranges: Vec<PageRange> = batch
                .iter()
                .map(|&index| segment.shared.block(index))
                .collect();
            match source {
                Source::Racing => self.kernel.copy_racing(&ranges, room)?,
                // SAFETY: the ranges are committed memory of this segment, and `Quiet` says that the gate is
                // closed to everybody until the store is done.
                Source::Quiet => unsafe { self.kernel.copy_quiet(&ranges, room) }?,
                Source::Staged(staging) => {
                    fill_staged(
                        self.kernel,
                        self.store,
                        segment,
                        &ranges,
                        staging,
                        &mut scratch,
                        room,
                    )?;
                }
            }
            let ids: Vec<Option<BlockId>> = room
                .chunks_exact(size.bytes())
                .map(|block| (!is_zero(block)).then(|| BlockId::of(block)))
                .collect();
            self.keep(segment, batch, &ids)?;
            (self.progress)((batch.len() * size.bytes()) as u64);
            rest = later;
        }
        Ok(())
    }

    /// Decides what becomes of the blocks in the room just filled, and notes it in tree and layout.
    fn keep(
        &mut self,
        segment: &mut State,
        batch: &[BlockIndex],
        ids: &[Option<BlockId>],
    ) -> Result<(), CheckpointError> {
        let name = segment.shared.name.clone();
        let mut known = Vec::with_capacity(batch.len());
        let mut shared: Vec<Option<Place>> = Vec::with_capacity(batch.len());
        for (&index, &id) in batch.iter().zip(ids) {
            let same = segment.tree.get(self.store, index).of(&name)? == id;
            known.push(same);
            shared.push(match id {
                Some(id) if !same => self.writer.locate(&id),
                _ => None,
            });
        }
        share_long_runs(batch, &mut shared, segment.shared.block_size.bytes() as u64);
        let to_keep: Vec<Option<BlockId>> = ids
            .iter()
            .zip(&known)
            .zip(&shared)
            .map(|((&id, &same), share)| id.filter(|_| !same && share.is_none()))
            .collect();
        let places = self.writer.keep(&to_keep)?;
        let block_bytes = segment.shared.block_size.bytes() as u64;
        for ((((&index, &id), &same), &share), &kept) in
            batch.iter().zip(ids).zip(&known).zip(&shared).zip(&places)
        {
            self.saved.blocks_dirty += 1;
            if same {
                continue;
            }
            if kept.is_some() {
                self.saved.bytes_blocks += block_bytes;
            }
            let new = id.zip(kept.or(share));
            segment.set_block(self.store, index, new).of(&name)?;
        }
        Ok(())
    }
}

/// Fills blocks of the residue: dirty pages from the staging area, clean neighbours as the module head says.
fn fill_staged(
    kernel: &dyn Kernel,
    store: &Store,
    segment: &mut State,
    ranges: &[PageRange],
    staging: &Staging,
    scratch: &mut Vec<u8>,
    room: &mut [u8],
) -> Result<(), CheckpointError> {
    let size = segment.shared.block_size.bytes();
    let mut clean: Vec<PageRange> = Vec::new();
    for (&block, bytes) in ranges.iter().zip(room.chunks_exact_mut(size)) {
        let mut staged: Vec<PageRange> = Vec::new();
        for (piece, content) in staging.pieces(block) {
            let at = piece.start() - block.start();
            put(bytes, at, content);
            push_run(&mut staged, piece);
        }
        for piece in subtract(&[block], &staged) {
            clean.push(piece);
        }
    }
    let (Some(first), Some(last)) = (clean.first(), clean.last()) else {
        return Ok(());
    };
    let span = segment.shared.part(
        first.start() - segment.shared.base(),
        last.end() - first.start(),
    );
    scratch.resize(clean.iter().map(|piece| piece.len()).sum(), 0);
    kernel.copy_racing(&clean, scratch)?;
    // Only now: what is still clean after the copy was clean while it was made.
    let mut written = Vec::new();
    let spoiled = match segment.tracker.peek(span, &mut written) {
        Ok(()) => intersect(&merge(&[], &clean), &merge(&[], &written)),
        Err(_unknown) => merge(&[], &clean),
    };
    let mut at = 0;
    let mut blocks = ranges.iter().zip(room.chunks_exact_mut(size)).peekable();
    for piece in &clean {
        while blocks
            .next_if(|(block, _)| block.end() <= piece.start())
            .is_some()
        {}
        if let (Some((block, bytes)), Some(content)) =
            (blocks.peek_mut(), scratch.get(at..at + piece.len()))
        {
            let into = piece.start() - block.start();
            put(bytes, into, content);
        }
        at += piece.len();
    }
    if spoiled.is_empty() {
        return Ok(());
    }
    let mut stored = vec![0; size];
    for (&block, bytes) in ranges.iter().zip(room.chunks_exact_mut(size)) {
        let pages = intersect(&spoiled, &[block]);
        if pages.is_empty() {
            continue;
        }
        read_stored(store, segment, block, &mut stored)?;
        for page in pages {
            let at = page.start() - block.start();
            if let Some(content) = stored.get(at..at + page.len()) {
                put(bytes, at, content);
            }
        }
    }
    Ok(())
}

/// The block as it was captured last: zeros where it is a hole.
fn read_stored(
    store: &Store,
    segment: &mut State,
    block: PageRange,
    into: &mut [u8],
) -> Result<(), CheckpointError> {
    let index = segment.shared.block_at(block.start());
    let name = segment.shared.name.clone();
    match segment
        .tree
        .get(store, index)
        .of(&name)?
        .zip(segment.layout.get(index))
    {
        Some((id, place)) => store.read_best(&id, place, into)?,
        None => into.fill(0),
    }
    Ok(())
}

/// Drops duplicates that do not lie, together with their neighbours, in one run of at least [`SHARE_BYTES`].
fn share_long_runs(batch: &[BlockIndex], shared: &mut [Option<Place>], block_bytes: u64) {
    let follows = |at: usize| {
        let (Some(Some(here)), Some(Some(before))) =
            (shared.get(at), shared.get(at.wrapping_sub(1)))
        else {
            return false;
        };
        here.pack == before.pack
            && here.offset == before.offset + block_bytes
            && batch.get(at).map(|b| b.0) == batch.get(at - 1).map(|b| b.0 + 1)
    };
    let mut starts: Vec<usize> = (0..shared.len()).filter(|&at| !follows(at)).collect();
    starts.push(shared.len());
    for run in starts.windows(2) {
        let &[from, to] = run else { continue };
        if ((to - from) as u64) * block_bytes < SHARE_BYTES.max(block_bytes)
            && let Some(run) = shared.get_mut(from..to)
        {
            run.fill(None);
        }
    }
}

/// Copies a piece to its place in its block. Pieces are cut to their block, so one that does not fit is a mistake here.
#[expect(
    clippy::indexing_slicing,
    reason = "a wrong piece must stop the checkpoint, not be left out"
)]
fn put(block: &mut [u8], at: usize, piece: &[u8]) {
    block[at..at + piece.len()].copy_from_slice(piece);
}

/// Tells whether a block is all zero. Most are not, and say so in their first words.
fn is_zero(block: &[u8]) -> bool {
    block
        .chunks(64)
        .all(|line| line.iter().fold(0, |seen, byte| seen | byte) == 0)
}
