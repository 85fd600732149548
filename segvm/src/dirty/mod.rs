//! Which pages of a segment were written since the last capture: the kernel counts, this room asks.
//!
//! A range is *cold* or *warm*. Cold: a plain private mapping, with the kernel's fault-around at work; a page is dirty
//! if it is private. Warm: registered and armed throughout; a page is dirty if it was written since it was armed. A
//! window (2 MiB) becomes warm when it was touched, in the rounds, outside any pause; or in the pause, when it was written
//! there for the first time. It never goes back. A window that a huge page of its pack shows stays cold until it is written:
//! asking about it costs one entry.
//!
//! Exactness rests on the order of calls (docs/design/tracking.md): *register, then one scan that arms everything and reports
//! what is private*. An error from any scan means: the whole range is dirty.

mod maps;
mod runs;

use std::sync::Arc;

use segvm_os::{Kernel, KernelError, PageRange, Query, Watch};

pub(crate) use maps::{MOST_PIECES, Maps, Share};
pub(crate) use runs::{intersect, merge, pages_in, subtract};

/// What becomes warm together: what one page of page-table entries describes on 4 KiB-page machines.
pub(crate) const WINDOW: usize = 2 << 20;

/// About so many separate warm runs a segment; past it, small gaps are warmed too: each run is a query, and may split a
/// mapping. How many there may be at most is the session's to say ([`Share`]).
const MAX_WARM_RUNS: usize = 512;

/// Warming a gap costs page tables, a 512th of its length: wider ones are left cold, whatever the number of runs.
const WIDEST_GAP: usize = 64 << 20;

/// When a collection happens: while the program runs, or while it is held at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Warms everything that was touched, written or not, so that the pause finds little that is cold and in small pages.
    Round,
    /// Warms only what was written, and populates nothing.
    Pause,
    /// The last look: nothing is armed or warmed. What it finds is found again if the session goes on after all.
    Last,
}

/// The dirt of one segment.
#[derive(Debug)]
pub(crate) struct Tracker {
    kernel: Arc<dyn Kernel>,
    watch: Arc<dyn Watch>,
    /// Ascending, merged, whole windows clipped to the segment; all of it registered and armed.
    warm: Vec<PageRange>,
    /// Reused between collections, so that the one in the pause allocates little.
    found: Vec<PageRange>,
    /// What this segment has of the session's maps: agrees with `warm` after each change.
    share: Share,
}

impl Tracker {
    pub(crate) fn new(kernel: Arc<dyn Kernel>, watch: Arc<dyn Watch>, share: Share) -> Self {
        Self {
            kernel,
            watch,
            warm: Vec::new(),
            found: Vec::new(),
            share,
        }
    }

    /// What this segment's memory is registered with.
    pub(crate) fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.watch)
    }

    /// Takes note that the content is shown in so many pieces.
    pub(crate) fn set_pieces(&mut self, pieces: usize) {
        self.share.set_pieces(pieces);
    }

    /// Takes note that `range` was filled with clean content: from now on a write to it is dirt, what is there is not.
    ///
    /// # Safety
    /// The range belongs to this segment, is committed, and no thread writes to it during the call.
    pub(crate) unsafe fn adopt_clean(&mut self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise; the range is this segment's own.
        unsafe { self.watch.register(range) }?;
        // SAFETY: as above. Arming erases dirt, and the caller says that what is there counts as clean.
        unsafe { self.watch.arm(range) }?;
        self.note_warm(range);
        Ok(())
    }

    fn note_warm(&mut self, range: PageRange) {
        self.warm = merge(&self.warm, &[range]);
        self.share.set_warm(self.warm.len());
    }

    /// Appends the pages of `kept` (ascending, merged, committed) that were written since the last collection, and arms them again.
    ///
    /// - **Cost**: warm ranges 0.3 ms/GiB; cold ones 0.8 ms/GiB where little is populated, 4 to 8 ms/GiB where all is.
    /// - **Errors**: the pages reported so far stay in `out`; the caller must take all of `kept` for dirty.
    pub(crate) fn collect(
        &mut self,
        kept: &[PageRange],
        phase: Phase,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        self.found.clear();
        if phase == Phase::Last {
            return kept.iter().try_for_each(|&part| self.peek(part, out));
        }
        for run in intersect(&self.warm, kept) {
            self.kernel
                .scan(run, Query::WrittenRearm, &mut self.found)?;
        }
        let query = match phase {
            Phase::Round => Query::Touched,
            Phase::Pause | Phase::Last => Query::Private,
        };
        let mut touched = Vec::new();
        for cold in subtract(kept, &self.warm) {
            self.kernel.scan(cold, query, &mut touched)?;
        }
        if !touched.is_empty() {
            let (windows, stays_cold) = self.windows_of(&touched, kept);
            if phase == Phase::Round {
                // Registered ranges lose fault-around, so what is not in yet is brought in first. A failure costs
                // speed alone.
                for gap in self.absent(&windows, &touched) {
                    let _slower = self.kernel.populate_read(gap);
                }
            }
            for &run in &windows {
                // What was touched lies in small pages.
                let small = touched.iter().any(|touched| touched.contains(run));
                self.warm_up(run, small)?;
            }
            for run in stays_cold {
                self.kernel.scan(run, Query::Private, &mut self.found)?;
            }
        }
        self.found.sort_unstable();
        *out = merge(out, &self.found);
        Ok(())
    }

    /// Tells which pages of `range` were written since the last collection, without arming them again.
    pub(crate) fn peek(
        &self,
        range: PageRange,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        for run in intersect(&self.warm, &[range]) {
            self.kernel.scan(run, Query::Written, out)?;
        }
        for cold in subtract(&[range], &self.warm) {
            self.kernel.scan(cold, Query::Private, out)?;
        }
        Ok(())
    }

    /// The windows that `touched` lies in, clipped, less what is warm already; and what of `touched` there is no room to warm.
    ///
    /// The latter is found private at every look from now on, also where it did not change: more work, and no map.
    fn windows_of(
        &self,
        touched: &[PageRange],
        kept: &[PageRange],
    ) -> (Vec<PageRange>, Vec<PageRange>) {
        let page = self.kernel.page_size();
        let widened: Vec<_> = touched
            .iter()
            .filter_map(|run| runs::widen(*run, WINDOW, page))
            .collect();
        let widened = intersect(&merge(&[], &widened), kept);
        let mut all = merge(&self.warm, &widened);
        let most = self.share.most_warm();
        let many = most.min(MAX_WARM_RUNS);
        if all.len() > many {
            all = runs::bridge(&all, many / 2, WIDEST_GAP, page);
        }
        let mut spare = all.len().saturating_sub(most);
        all.retain(|run| {
            let leave = spare > 0 && !self.is_partly_warm(*run);
            spare -= usize::from(leave);
            !leave
        });
        let new = intersect(&subtract(&all, &self.warm), kept);
        (new, subtract(touched, &all))
    }

    fn is_partly_warm(&self, run: PageRange) -> bool {
        let next = self.warm.partition_point(|warm| warm.end() <= run.start());
        self.warm
            .get(next)
            .is_some_and(|warm| warm.start() < run.end())
    }

    /// What is missing of the touched ones among `windows`: bridged gaps, untouched or shown by huge pages, stay as they are.
    fn absent(&self, windows: &[PageRange], touched: &[PageRange]) -> Vec<PageRange> {
        let page = self.kernel.page_size();
        let own: Vec<_> = touched
            .iter()
            .filter_map(|run| runs::widen(*run, WINDOW, page))
            .collect();
        subtract(&intersect(windows, &merge(&[], &own)), touched)
    }

    /// Cold to warm, exactly: register, then one scan that arms every page and reports the private ones.
    fn warm_up(&mut self, run: PageRange, small: bool) -> Result<(), KernelError> {
        // SAFETY: `run` lies in this segment's committed range, which its session reserved.
        unsafe { self.watch.register(run) }?;
        let page = self.kernel.page_size();
        let mut huge = Vec::new();
        if !small {
            // Without the answer, a write to a huge page makes 2 MiB of dirt: dearer, not wrong.
            let _dearer = self.kernel.scan(run, Query::Huge, &mut huge);
        }
        for piece in huge.iter().flat_map(|huge| huge.windows(WINDOW)) {
            // Arming one page of a huge one splits it.
            if let Some(first) = PageRange::new(page, piece.start(), page.bytes()) {
                self.kernel.scan(first, Query::ArmAll, &mut self.found)?;
            }
        }
        self.kernel.scan(run, Query::ArmAll, &mut self.found)?;
        self.note_warm(run);
        Ok(())
    }

    /// Forgets everything: the range was mapped anew, or is about to be given up.
    ///
    /// # Safety
    /// The segment's range is still reserved by this session.
    pub(crate) unsafe fn reset(&mut self) -> Result<(), KernelError> {
        self.share.set_warm(0);
        for run in std::mem::take(&mut self.warm) {
            // SAFETY: every warm run lies in this segment's range; the caller says it is still ours.
            unsafe { self.watch.unregister(run) }?;
        }
        Ok(())
    }
}
