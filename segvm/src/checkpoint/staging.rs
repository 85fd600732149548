//! Pages copied out of memory, ahead of the pause and in it, kept until they are stored.

use segvm_os::{Kernel, KernelError, PageRange};

use crate::dirty::{merge, pages_in, subtract};

/// Kept between checkpoints, so that the next finds memory that is already there: 3,072 pages of 4 KiB.
const KEPT: usize = 12 << 20;

/// Room for what is dirtied between the last look and the pause.
const MARGIN: usize = 1 << 20;

/// A run of pages, and where its bytes lie in the staging area.
type Run = (PageRange, usize);

/// Pages with their addresses, as they were at one instant.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// Never shrinks below what was once touched, so that it does not fault again.
    bytes: Vec<u8>,
    used: usize,
    /// One list for each copy, the oldest first; the last is the one being made.
    copies: Vec<Vec<Run>>,
    /// The newest copy of each page, ascending, once [`settled`](Self::settle).
    runs: Vec<Run>,
}

impl Staging {
    /// Gets memory ready before the pause for `expected` bytes more, and for as many again that may be dirtied meanwhile.
    pub(crate) fn make_room(&mut self, expected: usize) {
        let wanted = self.used + expected.saturating_mul(2).saturating_add(MARGIN);
        if self.bytes.len() < wanted {
            // Writing zeros is what brings the pages in.
            self.bytes.resize(wanted, 0);
        }
    }

    /// Copies `runs` (ascending, merged) while the program may write to them; once for each segment, then
    /// [`end_of_copy`](Self::end_of_copy). They were armed before: one that is dirty later is copied again.
    pub(crate) fn copy_ahead(
        &mut self,
        kernel: &dyn Kernel,
        runs: &[PageRange],
    ) -> Result<(), KernelError> {
        kernel.copy_racing(runs, self.room(runs))?;
        self.note(runs);
        Ok(())
    }

    /// Copies `runs` (ascending, merged) while nobody writes; once for each segment, then [`settle`](Self::settle).
    ///
    /// # Safety
    /// Every page is readable, and no thread writes to it during the call.
    pub(crate) unsafe fn take(
        &mut self,
        kernel: &dyn Kernel,
        runs: &[PageRange],
    ) -> Result<(), KernelError> {
        // SAFETY: the caller's promise, word for word.
        unsafe { kernel.copy_quiet(runs, self.room(runs)) }?;
        self.note(runs);
        Ok(())
    }

    fn room(&mut self, runs: &[PageRange]) -> &mut [u8] {
        let end = self.used + pages_in(runs);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).unwrap_or_default()
    }

    /// Takes note that `runs` lie in the room just filled.
    fn note(&mut self, runs: &[PageRange]) {
        if self.copies.is_empty() {
            self.copies.push(Vec::new());
        }
        for &run in runs {
            if let Some(copy) = self.copies.last_mut() {
                copy.push((run, self.used));
            }
            self.used += run.len();
        }
    }

    /// What is copied from now on is newer.
    pub(crate) fn end_of_copy(&mut self) {
        self.copies.push(Vec::new());
    }

    /// Gets ready for [`pieces`](Self::pieces): of pages that were copied more than once, the newest copy counts. Segments
    /// were copied in the order of their names, not of their addresses.
    pub(crate) fn settle(&mut self) {
        let mut newer: Vec<PageRange> = Vec::new();
        while let Some(mut copy) = self.copies.pop() {
            copy.sort_by_key(|(run, _)| run.start());
            for &(run, at) in &copy {
                let first = newer.partition_point(|newer| newer.end() <= run.start());
                let last = newer.partition_point(|newer| newer.start() < run.end());
                let kept = subtract(&[run], newer.get(first..last).unwrap_or_default());
                let piece = |kept: PageRange| (kept, at + (kept.start() - run.start()));
                self.runs.extend(kept.into_iter().map(piece));
            }
            let copied: Vec<PageRange> = copy.iter().map(|(run, _)| *run).collect();
            newer = merge(&newer, &copied);
        }
        self.runs.sort_by_key(|(run, _)| run.start());
    }

    /// The staged pages of `range`, in order, as (address range, bytes).
    pub(crate) fn pieces(&self, range: PageRange) -> impl Iterator<Item = (PageRange, &[u8])> {
        let first = self
            .runs
            .partition_point(|(run, _)| run.end() <= range.start());
        self.runs.iter().skip(first).map_while(move |&(run, at)| {
            let both = run.intersect(range)?;
            let at = at + (both.start() - run.start());
            Some((both, self.bytes.get(at..at + both.len())?))
        })
    }

    /// Forgets the pages; gives memory beyond what is kept back to the system.
    pub(crate) fn clear(&mut self) {
        self.copies.clear();
        self.runs.clear();
        self.used = 0;
        if self.bytes.len() > KEPT {
            self.bytes.truncate(KEPT);
            self.bytes.shrink_to_fit();
        }
    }
}
