//! The residue's copy: pages taken in the pause, kept until they are stored.

use segvm_os::{Kernel, KernelError, PageRange};

use crate::dirty::pages_in;

/// Kept between checkpoints, so that a pause finds memory that is already there: 3,072 pages of 4 KiB.
const KEPT: usize = 12 << 20;

/// Pages copied at one instant, with their addresses.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// Never shrinks below what was once touched, so that it does not fault again.
    bytes: Vec<u8>,
    /// Runs, each with the offset of its first byte in `bytes`; ascending once sorted.
    runs: Vec<(PageRange, usize)>,
    used: usize,
}

impl Staging {
    /// Gets memory ready before the pause.
    pub(crate) fn prepare(&mut self, expected: usize) {
        self.clear();
        let wanted = expected.saturating_mul(2).max(KEPT);
        if self.bytes.len() < wanted {
            // Writing zeros is what brings the pages in.
            self.bytes.resize(wanted, 0);
        }
    }

    /// Copies `runs` (ascending, merged) while nobody writes; called once for each segment, then [`sort`](Self::sort).
    ///
    /// # Safety
    /// Every page is readable, and no thread writes to it during the call.
    pub(crate) unsafe fn take(
        &mut self,
        kernel: &dyn Kernel,
        runs: &[PageRange],
    ) -> Result<(), KernelError> {
        let start = self.used;
        let end = start + pages_in(runs);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let Some(room) = self.bytes.get_mut(start..end) else {
            return Ok(());
        };
        // SAFETY: the caller's promise, word for word.
        unsafe { kernel.copy_quiet(runs, room) }?;
        let mut at = start;
        for &run in runs {
            self.runs.push((run, at));
            at += run.len();
        }
        self.used = end;
        Ok(())
    }

    /// Gets ready for [`pieces`](Self::pieces): segments were taken in the order of their names, not of their addresses.
    pub(crate) fn sort(&mut self) {
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
        self.runs.clear();
        self.used = 0;
        if self.bytes.len() > KEPT {
            self.bytes.truncate(KEPT);
            self.bytes.shrink_to_fit();
        }
    }
}
