//! What is known of ranges beyond the two bits a page: who watches them, and where arming has to leave pages alone.

use super::{ledger, spans::Spans};
use crate::page::{PageRange, PageSize};

/// What protects pages from writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// `mprotect`: writers get a SIGSEGV, whose handler lets them through.
    Protection,
    /// userfaultfd: writers wait for the attendant. Registered wherever it is watched.
    Userfaultfd,
}

/// All under one lock, which is held during arming: never taken by a handler, and nobody who has it touches a page of ours.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Accessible memory of this kernel's, committed or mapped from a file, and by what it is armed.
    pub(super) accessible: Spans<Means>,
    /// By which watch a range is registered.
    pub(super) watched: Spans<u64>,
    /// What was made read-only by `set_writable`: a write to it is not let through.
    pub(super) frozen: Spans<()>,
    /// What system calls write into now, once for each that was said to: neither armed nor protected.
    pub(super) held: Vec<PageRange>,
    watches: u64,
}

impl Books {
    pub(super) fn next_watch(&mut self) -> u64 {
        self.watches += 1;
        self.watches
    }

    /// Pages of the range whose faults are ours to resolve: watched, accessible and not frozen.
    pub(super) fn ours(&self, range: PageRange) -> Vec<(PageRange, Means)> {
        let watched = self.watched.within(range).map(|(run, _)| run);
        let accessible = watched.flat_map(|run| self.accessible.within(run));
        let free = |(run, means)| {
            let gaps = self.frozen.gaps(run).into_iter();
            gaps.map(move |run| (run, means))
        };
        accessible.flat_map(free).collect()
    }

    /// Accessible memory of the range that is armed by userfaultfd where it is watched, frozen or not.
    pub(super) fn by_userfaultfd(&self, range: PageRange) -> Vec<PageRange> {
        let accessible = self.accessible.within(range);
        let by_it = accessible.filter(|(_, means)| *means == Means::Userfaultfd);
        by_it.map(|(run, _)| run).collect()
    }

    /// `range` without what is held, and what is held of it.
    pub(super) fn without_held(&self, range: PageRange) -> (Vec<PageRange>, Vec<PageRange>) {
        let mut held = Spans::default();
        for run in &self.held {
            held.set(*run, ());
        }
        let within = held.within(range).map(|(run, ())| run).collect();
        (held.gaps(range), within)
    }

    /// Forgets a range whose memory is about to be replaced.
    pub(super) fn forget(&mut self, page: PageSize, range: PageRange) {
        ledger::remove(page, range);
        ledger::forget(page, range);
        self.accessible.cut(range);
        self.watched.cut(range);
        self.frozen.cut(range);
    }
}
