//! How pages are protected and let go again: by `mprotect`, or by userfaultfd where that can be.

use std::ptr;

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};

use super::{
    attendant::Attendant,
    books::{Books, Means},
    ledger, pipe,
};
use crate::{
    kernel::{Kernel, KernelError},
    page::{PageRange, PageSize, push_run},
    real::{Owner, RealKernel, failed, set_writable},
};

/// Pages between two that are protected again which it is cheaper to protect with them than to make another call for: they are
/// clean and protected already, or their writers fault once more.
const BRIDGED_PAGES: usize = 16;

/// Fewer pages than this cannot be split into many maps.
const FEW_PAGES: usize = 64;

/// Bytes read at a time to bring pages in on kernels that cannot be asked to.
const TOUCHED: usize = 256 << 10;

/// What a kernel and its watches share.
#[derive(Debug)]
pub(super) struct Arming {
    pub(super) below: RealKernel,
    pub(super) owner: Owner,
    /// Whether the kernel below has `process_vm_readv`.
    pub(super) can_copy: bool,
    /// Where anonymous memory is protected by userfaultfd.
    pub(super) attendant: Option<Attendant>,
    /// Never taken by who lets writes through.
    pub(super) books: Mutex<Books>,
}

impl Arming {
    pub(super) fn page(&self) -> PageSize {
        self.below.page_size()
    }

    pub(super) fn means_for_anonymous(&self) -> Means {
        match self.attendant {
            Some(_) => Means::Userfaultfd,
            None => Means::Protection,
        }
    }

    /// Makes sure that what userfaultfd protects is protected: without its descriptor everything would look clean for ever.
    pub(super) fn check(&self, range: PageRange) -> Result<(), KernelError> {
        let (Some(attendant), Some(first)) =
            (&self.attendant, range.windows(self.page().bytes()).next())
        else {
            return Ok(());
        };
        // Answered by a userfaultfd alone, and of no consequence.
        attendant.uffd(first)?.wake(first)
    }

    /// Makes fresh memory such that arming it later costs as little as it can.
    ///
    /// # Safety
    /// The range is accessible memory of the caller's, fresh, and nobody else uses it.
    pub(super) unsafe fn prepare(&self, range: PageRange, means: Means) {
        match &self.attendant {
            Some(attendant) if means == Means::Userfaultfd => {
                if attendant.mistrusts_huge_zeros() {
                    // SAFETY: the caller's promise.
                    unsafe { advise(range, Advice::LinuxNoHugepage) };
                }
                // A page that was merged with an equal one elsewhere has forgotten that it was protected.
                // SAFETY: the caller's promise.
                unsafe { advise(range, Advice::LinuxUnmergeable) };
            }
            // SAFETY: the caller's promise is the callee's.
            _ => unsafe { keep_mergeable(self.page(), range) },
        }
    }

    /// Protects what is ours of `free`, all of which lies in `range` and counts as clean from now on, but for what is written
    /// meanwhile; `again` is the part of it that may not be protected now.
    ///
    /// What the kernel refuses to split maps for counts as written from now on: dearer, and right. On another error all of
    /// `range` does.
    pub(super) fn protect(
        &self,
        books: &Books,
        range: PageRange,
        free: &[PageRange],
        again: &[PageRange],
    ) -> Result<(), KernelError> {
        for (run, means) in free.iter().flat_map(|run| books.ours(*run)) {
            let protected = match means {
                // All of it, so that maps which writes have split become one again.
                Means::Protection => {
                    // SAFETY: the pages are ours: whoever writes to them is let through by the handler.
                    unsafe { set_writable(run, false) }
                }
                Means::Userfaultfd => self.protect_by_userfaultfd(run, again),
            };
            match protected {
                Err(KernelError::Call { source, .. })
                    if means == Means::Protection
                        && source.kind() == std::io::ErrorKind::OutOfMemory =>
                {
                    ledger::forget(self.page(), run);
                }
                Err(error) => {
                    ledger::forget(self.page(), range);
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Protects what of `again` lies in `run`. The protection is the page table's, and holds only for pages that are there: so
    /// they are brought in for reading first, and stay (what is swapped out keeps it).
    fn protect_by_userfaultfd(
        &self,
        run: PageRange,
        again: &[PageRange],
    ) -> Result<(), KernelError> {
        let Some(attendant) = &self.attendant else {
            return Err(failed("userfaultfd", run, Errno::BADF));
        };
        let uffd = attendant.uffd(run)?;
        for piece in bridged(self.page(), run, again) {
            self.bring_in(piece)?;
            // SAFETY: the pages are ours: whoever writes to them is let through by the attendant.
            unsafe { uffd.protect(piece) }?;
        }
        Ok(())
    }

    /// Brings pages in for reading.
    fn bring_in(&self, range: PageRange) -> Result<(), KernelError> {
        match self.below.populate_read(range) {
            // Before Linux 5.14: whoever reads them brings them in.
            Err(KernelError::Call { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::INVAL) =>
            {
                let mut unused = vec![0; TOUCHED.min(range.len())];
                range.windows(TOUCHED).try_for_each(|piece| {
                    let unused = unused.get_mut(..piece.len()).unwrap_or_default();
                    self.copy_racing(&[piece], unused)
                })
            }
            done => done,
        }
    }

    pub(super) fn copy_racing(
        &self,
        ranges: &[PageRange],
        out: &mut [u8],
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        if self.can_copy {
            match self.below.copy_racing(ranges, out) {
                Err(KernelError::Unavailable { .. }) => {}
                done => return done,
            }
        }
        pipe::copy_racing(ranges, out)
    }

    /// Lifts the protection from what is ours of a range, which counts as written already.
    pub(super) fn let_go(&self, books: &Books, range: PageRange) -> Result<(), KernelError> {
        for (run, means) in books.ours(range) {
            match (means, &self.attendant) {
                (Means::Userfaultfd, Some(attendant)) => {
                    // SAFETY: registered with it, since it is ours.
                    unsafe { attendant.uffd(run)?.lift(run) }?;
                }
                // SAFETY: pages that are ours are meant to be writable.
                _ => unsafe { set_writable(run, true) }?,
            }
        }
        Ok(())
    }

    /// Registers what userfaultfd is to protect of a range that is about to be watched.
    pub(super) fn enlist(&self, books: &Books, range: PageRange) -> Result<(), KernelError> {
        let Some(attendant) = &self.attendant else {
            return Ok(());
        };
        for run in books.by_userfaultfd(range) {
            // SAFETY: accessible memory of the caller's; the attendant lives as long as this.
            unsafe { attendant.uffd(run)?.register(run) }?;
        }
        Ok(())
    }

    /// Ends that, where the range was watched. The kernel wakes nobody by itself here: whoever waits has sent a message, and is woken
    /// by the attendant, which finds that nothing is registered.
    ///
    /// Tries all of it, and answers the first error.
    pub(super) fn discharge(&self, books: &Books, range: PageRange) -> Result<(), KernelError> {
        let Some(attendant) = &self.attendant else {
            return Ok(());
        };
        let watched = books.watched.within(range).map(|(run, _)| run);
        let mut done = Ok(());
        for run in watched.flat_map(|run| books.by_userfaultfd(run)) {
            let ended = attendant.uffd(run).and_then(|uffd| {
                // SAFETY: memory of the caller's, registered when it was watched.
                unsafe { uffd.unregister(run) }
            });
            done = done.and(ended);
        }
        done
    }
}

/// What of `again` (ascending) lies in `run`, with small gaps closed.
fn bridged(page: PageSize, run: PageRange, again: &[PageRange]) -> Vec<PageRange> {
    let first = again.partition_point(|piece| piece.end() <= run.start());
    let pieces = again
        .iter()
        .skip(first)
        .map_while(|piece| piece.intersect(run));
    let mut out: Vec<PageRange> = Vec::new();
    for piece in pieces {
        let gap = out
            .last()
            .and_then(|last| PageRange::new(page, last.end(), piece.start() - last.end()))
            .filter(|gap| gap.len() <= BRIDGED_PAGES * page.bytes());
        if let Some(gap) = gap {
            push_run(&mut out, gap);
        }
        push_run(&mut out, piece);
    }
    out
}

/// # Safety
/// The range is memory of the caller's; the advice takes no content away.
unsafe fn advise(range: PageRange, advice: Advice) {
    if !range.is_empty() {
        let at = ptr::with_exposed_provenance_mut(range.start());
        // SAFETY: the caller's promise. A kernel that knows nothing of the advice does not do either what it forbids.
        let _unknown = unsafe { madvise(at, range.len(), advice) };
    }
}

/// Makes maps that this one will be split into by protection merge again once their protection is the same.
///
/// The kernel gives a map what its private pages hang on (its `anon_vma`) with the first of them. Pieces that got theirs apart,
/// because each was written for the first time when it was split off already, are never merged: 20,000 scattered writes left
/// 4,100 maps for ever. So one page is made private, and discarded, while the map is whole.
///
/// # Safety
/// The range is accessible memory of the caller's, fresh, and nobody else uses it.
unsafe fn keep_mergeable(page: PageSize, range: PageRange) {
    if range.len() < FEW_PAGES * page.bytes() {
        return;
    }
    let at: *mut u8 = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: faults the page in as a write would, without changing it; a file that cannot be read is an error here, and stays
    // for whoever touches it.
    match unsafe { madvise(at.cast(), page.bytes(), Advice::LinuxPopulateWrite) } {
        Ok(()) => {}
        // Before Linux 5.14.
        Err(Errno::INVAL) => {
            // SAFETY: the first byte of readable memory.
            let byte = unsafe { at.read_volatile() };
            // SAFETY: the same byte again, in memory that nobody else uses.
            unsafe { at.write_volatile(byte) };
        }
        Err(_unreadable) => return,
    }
    // SAFETY: what was there comes back: zeros, or the file's bytes. Where it is refused (locked memory), the page stays
    // private, which makes it count as written.
    let _stays = unsafe { madvise(at.cast(), page.bytes(), Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(start: usize, len: usize) -> PageRange {
        PageRange::new(PageSize::MIN, start << 12, len << 12).unwrap()
    }

    #[test]
    fn small_gaps_are_closed_and_wide_ones_are_not() {
        let again = [
            pages(1, 2),
            pages(9, 3),
            pages(12 + BRIDGED_PAGES, 1),
            pages(14 + 2 * BRIDGED_PAGES, 1),
            pages(90, 5),
        ];
        let closed = |run| bridged(PageSize::MIN, run, &again);
        let (first, second) = (
            pages(1, 12 + BRIDGED_PAGES),
            pages(14 + 2 * BRIDGED_PAGES, 1),
        );
        assert_eq!(closed(pages(0, 100)), [first, second, pages(90, 5)]);
        assert_eq!(closed(pages(2, 9)), [pages(2, 9)]);
        assert_eq!(closed(pages(3, 4)), []);
        assert_eq!(closed(pages(92, 1)), [pages(92, 1)]);
    }
}
