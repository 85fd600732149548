//! What a session knows about one of its segments.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use segvm_blockcache::{BlockId, BlockIndex, BlockSize, Layout, Place, Tree};
use segvm_home::{RangeKind, SegmentKind};
use segvm_os::{Kernel, KernelError, PageRange, Watch};

use super::Fingerprint;
use crate::{
    checkpoint::{CheckpointError, InSegment},
    dirty::Tracker,
    region::table::{Entry, Table},
};

/// The part of a segment that handles, heaps and the checkpoint all see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) kind: SegmentKind,
    pub(crate) block_size: BlockSize,
    /// What the program said that the bytes mean when it made the segment; a heap's roots have their own.
    pub(crate) fingerprint: Fingerprint,
    /// All of the address space that the segment may ever use.
    pub(crate) reservation: PageRange,
    /// What is not simply kept: changed with `growing` held, or with the gate closed to everybody.
    pub(crate) regions: Table,
    /// Bytes in use from the base: a multiple of the block size, at most the reservation's. It only grows (a restore
    /// may lower it, with the gate closed to everybody). Released after the memory is there; pairs with `len()`.
    len: AtomicUsize,
    /// Serialises growth, all of which is inside a write pass of the gate: a restore sets the length too. A leaf lock.
    growing: Mutex<()>,
    kernel: Arc<dyn Kernel>,
    watch: Arc<dyn Watch>,
}

impl Shared {
    pub(crate) fn new(
        kernel: Arc<dyn Kernel>,
        watch: Arc<dyn Watch>,
        name: String,
        kind: SegmentKind,
        block_size: BlockSize,
        fingerprint: Fingerprint,
        reservation: PageRange,
    ) -> Self {
        Self {
            name,
            kind,
            block_size,
            fingerprint,
            reservation,
            regions: Table::default(),
            len: AtomicUsize::new(0),
            growing: Mutex::new(()),
            kernel,
            watch,
        }
    }

    pub(crate) fn base(&self) -> usize {
        self.reservation.start()
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The readable and writable part.
    pub(crate) fn committed(&self) -> PageRange {
        self.part(0, self.len())
    }

    /// `len` bytes from `offset` on, cut to the reservation.
    pub(crate) fn part(&self, offset: usize, len: usize) -> PageRange {
        PageRange::covering(
            self.kernel.page_size(),
            self.base().saturating_add(offset),
            len,
        )
        .and_then(|range| range.intersect(self.reservation))
        .unwrap_or_else(|| {
            // An empty range at the base: nothing of the reservation was meant.
            PageRange::covering(self.kernel.page_size(), self.base(), 0).unwrap_or(self.reservation)
        })
    }

    /// What of `pages` a checkpoint may look at: none of a region's.
    pub(crate) fn kept(&self, pages: PageRange) -> Vec<PageRange> {
        crate::dirty::subtract(&[pages], &self.regions.ranges())
    }

    /// The pages of a block.
    pub(crate) fn block(&self, index: BlockIndex) -> PageRange {
        let offset = usize::try_from(self.block_size.offset(index)).unwrap_or(usize::MAX);
        self.part(offset, self.block_size.bytes())
    }

    /// The block that an address of this segment lies in.
    pub(crate) fn block_at(&self, address: usize) -> BlockIndex {
        self.block_size.index((address - self.base()) as u64)
    }

    /// Makes at least `len` bytes usable; new ones are zero. Never shrinks.
    ///
    /// - **Errors**: the kernel's; `Ok(false)` where the reservation is too small.
    pub(crate) fn grow(&self, len: usize) -> Result<bool, KernelError> {
        let _one_at_a_time = self.growing.lock();
        let have = self.len();
        if len <= have {
            return Ok(true);
        }
        let unit = self.block_size.bytes().max(self.kernel.page_size().bytes());
        let Some(wanted) = len
            .checked_next_multiple_of(unit)
            .filter(|&to| to <= self.reservation.len())
        else {
            return Ok(false);
        };
        // SAFETY: the range lies in this segment's reservation, past everything that is in use.
        unsafe { self.commit(self.part(have, wanted - have)) }?;
        self.len.store(wanted, Ordering::Release);
        Ok(true)
    }

    /// Makes new memory up to the end of a region that begins at or past the length; answers whether it does.
    pub(crate) fn grow_apart(&self, region: &Arc<Entry>) -> Result<bool, KernelError> {
        let _one_at_a_time = self.growing.lock();
        let have = self.len();
        let end = region.range.end() - self.base();
        if region.range.start() < self.base() + have {
            return Ok(false);
        }
        // SAFETY: the range lies in this segment's reservation, past everything that is in use.
        unsafe { self.commit(self.part(have, end - have)) }?;
        self.seclude(region)?;
        // Whoever sees the length sees the region.
        let noted = self.regions.push(Arc::clone(region));
        if noted {
            self.len.store(end, Ordering::Release);
        }
        Ok(noted)
    }

    /// Keeps a secret region's fresh memory out of core dumps and children.
    pub(crate) fn seclude(&self, region: &Entry) -> Result<(), KernelError> {
        if region.kind != RangeKind::Wipe {
            return Ok(());
        }
        // SAFETY: the region is committed memory of this segment. A child of a fork has no session, and no way to the bytes
        // but by an address that it was told not to use (docs on `Segment::as_ptr`).
        unsafe { self.kernel.seclude(region.range) }
    }

    /// Makes part of the reservation accessible: anonymous memory, registered from the beginning and armed nowhere.
    ///
    /// Two neighbours of one kind become one map only if one of them was never written: memory that is registered later, piece
    /// by piece as it grows and becomes warm, would keep a map for each step.
    ///
    /// # Safety
    /// The range lies in this segment's reservation, and nothing in it is in use.
    pub(crate) unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise; the reservation is the session's.
        unsafe { self.kernel.commit(range) }?;
        // SAFETY: as above.
        unsafe { self.watch.register(range) }
    }

    /// Says how long the segment is after its memory was mapped anew.
    pub(crate) fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Release);
    }
}

/// How one block was before this checkpoint touched it.
#[derive(Debug)]
pub(crate) struct Was {
    index: BlockIndex,
    id: Option<BlockId>,
    place: Option<Place>,
}

/// The part that only whoever holds the session's state lock sees.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tracker: Tracker,
    /// What the store holds of this segment, as of the blocks captured so far.
    pub(crate) tree: Tree,
    /// Where it lies.
    pub(crate) layout: Layout,
    /// How long the segment was when it was last collected: growth after that belongs to the next checkpoint.
    pub(crate) collected_len: u64,
    /// Pages that changed since the last durable checkpoint and that no block captured in this one covers yet.
    pub(crate) pending: Vec<PageRange>,
    /// Pages copied ahead of the pause: those not pending again by then are stored as they were copied.
    pub(crate) ahead: Vec<PageRange>,
    /// Every page that this checkpoint collected: pending again if it fails.
    pub(crate) collected: Vec<PageRange>,
    /// What to put back if it fails, newest last.
    pub(crate) undo: Vec<Was>,
}

impl State {
    /// Makes the tree as long as the segment was when it was collected.
    pub(crate) fn fit_tree(
        &mut self,
        nodes: &dyn segvm_blockcache::NodeSource,
    ) -> Result<(), CheckpointError> {
        let len = self.collected_len;
        if self.tree.len() == len {
            return Ok(());
        }
        self.tree.set_len(nodes, len).of(&self.shared.name)
    }

    /// Notes a block's new content, remembering what it was.
    pub(crate) fn set_block(
        &mut self,
        nodes: &dyn segvm_blockcache::NodeSource,
        index: BlockIndex,
        new: Option<(BlockId, Place)>,
    ) -> Result<(), segvm_blockcache::TreeError> {
        let was = Was {
            index,
            id: self.tree.get(nodes, index)?,
            place: self.layout.get(index),
        };
        self.tree.set(nodes, index, new.map(|(id, _)| id))?;
        self.undo.push(was);
        self.layout.set(index, new.map(|(_, place)| place));
        Ok(())
    }

    /// Notes that a block with the same content lies elsewhere now.
    pub(crate) fn move_block(&mut self, index: BlockIndex, id: BlockId, place: Place) {
        self.undo.push(Was {
            index,
            id: Some(id),
            place: self.layout.get(index),
        });
        self.layout.set(index, Some(place));
    }

    /// Puts back what a failed checkpoint changed; its pages are pending again.
    ///
    /// - **Errors**: where a node that was read before cannot be read again; the segment's state is then opened anew
    ///   from the last checkpoint by the caller.
    pub(crate) fn roll_back(
        &mut self,
        nodes: &dyn segvm_blockcache::NodeSource,
    ) -> Result<(), segvm_blockcache::TreeError> {
        // Outside a checkpoint nothing is collected, and what an earlier one left pending stays so.
        let collected = std::mem::take(&mut self.collected);
        self.ahead.clear();
        self.pending = crate::dirty::merge(&self.pending, &collected);
        while let Some(was) = self.undo.pop() {
            self.tree.set(nodes, was.index, was.id)?;
            self.layout.set(was.index, was.place);
        }
        Ok(())
    }

    /// Puts moved blocks back to where they lay before, outside a checkpoint: the pack that they were moved to has failed.
    pub(crate) fn move_back(&mut self) {
        while let Some(was) = self.undo.pop() {
            self.layout.set(was.index, was.place);
        }
    }

    /// Forgets what would have been needed to roll back.
    pub(crate) fn settle(&mut self) {
        self.undo.clear();
        self.collected.clear();
    }
}
