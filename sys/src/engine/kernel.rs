//! The [`Kernel`] that answers from the ledger, where the kernel below cannot tell what was written.
//!
//! Memory itself is [`RealKernel`]'s. What differs is arming (`arming`) and who knows what was written: not the page table but the
//! ledger, which is written by whoever lets a write through. Which pages are private is still the page table's to say.

use std::sync::Arc;

use rustix::io::Errno;

use super::{
    Without,
    arming::Arming,
    attendant::Attendant,
    books::{Books, Means},
    entries::Entries,
    fault, ledger,
    spans::Spans,
    watch::LedgerWatch,
};
use crate::{
    kernel::{Kernel, KernelError, Mappable, Query, Watch},
    page::{PageRange, PageSize, push_run},
    real::{Owner, RealKernel, failed},
    sigbus,
};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct LedgerKernel {
    arming: Arc<Arming>,
    entries: Entries,
    /// Whether the kernel below has `PAGEMAP_SCAN`.
    can_scan: bool,
}

impl LedgerKernel {
    /// Arms all memory by `mprotect`.
    pub(super) fn by_protection(without: Without) -> Result<Self, KernelError> {
        let mut made = Self::new(without, None)?;
        made.can_scan = !without.pagemap_scan && made.arming.below.can_scan();
        Ok(made)
    }

    /// Arms anonymous memory by userfaultfd, and what is mapped from files by `mprotect`.
    ///
    /// Asks `/proc/self/pagemap` alone, never `PAGEMAP_SCAN`: kernels that need this engine have none.
    pub(super) fn by_userfaultfd(without: Without) -> Result<Self, KernelError> {
        let page = RealKernel::new()?.page_size();
        let attendant = Attendant::start(page, without)?;
        Self::new(without, Some(attendant))
    }

    fn new(without: Without, attendant: Option<Attendant>) -> Result<Self, KernelError> {
        let below = RealKernel::new()?;
        sigbus::install().map_err(|source| KernelError::Unavailable {
            feature: "a handler of SIGSEGV",
            remedy: "allow the system call rt_sigaction in the container's seccomp profile",
            source,
        })?;
        fault::set_page(below.page_size());
        Ok(Self {
            arming: Arc::new(Arming {
                below,
                owner: Owner::this_process(),
                can_copy: !without.process_vm_readv,
                attendant,
                books: parking_lot::Mutex::default(),
            }),
            entries: Entries::open(),
            can_scan: false,
        })
    }

    /// Which pages are there, or private.
    fn look(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        if self.can_scan {
            return self.arming.below.scan(range, query, out);
        }
        self.entries.scan(self.page_size(), range, query, out)
    }

    /// Answers from the ledger.
    fn consult(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        let page = self.page_size();
        let books = self.arming.books.lock();
        if !books.watched.gaps(range).is_empty() {
            return Err(failed("scan", range, Errno::PERM));
        }
        self.arming.check(range)?;
        let (free, mut found) = books.without_held(range);
        let mut written = Vec::new();
        for run in &free {
            match query {
                Query::WrittenRearm => ledger::take_written(page, *run, &mut written),
                Query::ArmAll => ledger::arm(page, *run),
                _ => ledger::written(page, *run, &mut written),
            }
        }
        match query {
            Query::WrittenRearm => self.arming.protect(&books, range, &free, &written)?,
            Query::ArmAll => self.arming.protect(&books, range, &free, &free)?,
            _ => {}
        }
        drop(books);
        found.append(&mut written);
        if query == Query::ArmAll {
            self.look(range, Query::Private, &mut found)?;
        }
        found.sort_unstable();
        for run in merged(found) {
            push_run(out, run);
        }
        Ok(())
    }

    /// Forgets what lies in a range, which is about to be replaced, frozen for good or taken away.
    fn forget(&self, books: &mut Books, range: PageRange) {
        // Nobody uses it, says the caller: an error here leaves at worst a registration, which goes with the memory.
        let _goes_with_it = self.arming.discharge(books, range);
        books.forget(self.page_size(), range);
    }
}

/// Sorted runs with what they have in common taken once.
fn merged(runs: Vec<PageRange>) -> Vec<PageRange> {
    let mut out: Vec<PageRange> = Vec::with_capacity(runs.len());
    for run in runs {
        let seen = out.last().map_or(0, |last| last.end()).max(run.start());
        let len = run.end().saturating_sub(seen);
        if let Some(new) = PageRange::new(PageSize::MIN, seen, len) {
            push_run(&mut out, new);
        }
    }
    out
}

impl Kernel for LedgerKernel {
    fn page_size(&self) -> PageSize {
        self.arming.below.page_size()
    }

    fn reserve(&self, range: PageRange) -> Result<(), KernelError> {
        if !ledger::reaches(range) {
            return Err(failed("mmap", range, Errno::NOMEM));
        }
        self.arming.below.reserve(range)
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        self.forget(&mut self.arming.books.lock(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.release(range) }
    }

    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let mut books = self.arming.books.lock();
        self.forget(&mut books, range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.commit(range) }?;
        let means = self.arming.means_for_anonymous();
        books.accessible.set(range, means);
        // SAFETY: memory of the caller's that nobody uses yet.
        unsafe { self.arming.prepare(range, means) };
        Ok(())
    }

    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        self.forget(&mut self.arming.books.lock(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.fence(range) }
    }

    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        if !offset.is_multiple_of(self.page_size().bytes() as u64) {
            // Before anything is forgotten: what lies there stays as it is.
            return Err(failed("mmap", range, Errno::INVAL));
        }
        let mut books = self.arming.books.lock();
        self.forget(&mut books, range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.map_file(range, file, offset) }?;
        // Private maps of files are refused by userfaultfd without WP_ASYNC.
        books.accessible.set(range, Means::Protection);
        // SAFETY: memory of the caller's that nobody uses yet; the file is long enough for it.
        unsafe { self.arming.prepare(range, Means::Protection) };
        Ok(())
    }

    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's. What is armed is let through by the handler.
        unsafe { self.arming.below.fill(at, bytes) }
    }

    fn populate_read(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.below.populate_read(range)
    }

    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let page = self.page_size();
        let mut books = self.arming.books.lock();
        if !writable {
            books.frozen.set(range, ());
            ledger::remove(page, range);
            // SAFETY: the caller's promise is the callee's.
            return unsafe { self.arming.below.set_writable(range, false) };
        }
        books.frozen.cut(range);
        let mut writable = books.watched.gaps(range);
        for (run, means) in books.ours(range) {
            ledger::add(page, run);
            let mut written = Vec::new();
            ledger::written(page, run, &mut written);
            match means {
                // What is armed stays protected.
                Means::Protection => writable.append(&mut written),
                Means::Userfaultfd => {
                    // It may have been armed while it was frozen, and is not protected by the page table then.
                    let mut not_armed = Spans::default();
                    for piece in written {
                        not_armed.set(piece, ());
                    }
                    self.arming
                        .protect(&books, run, &[run], &not_armed.gaps(run))?;
                    writable.push(run);
                }
            }
        }
        for run in writable {
            // SAFETY: the caller's promise is the callee's.
            unsafe { self.arming.below.set_writable(run, true) }?;
        }
        Ok(())
    }

    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        // Held, so that no arming comes between: what is armed has to be there.
        let _books = self.arming.books.lock();
        ledger::forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.discard(range) }
    }

    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.seclude(range) }
    }

    fn watch(&self) -> Result<Box<dyn Watch>, KernelError> {
        self.arming.owner.check()?;
        let number = self.arming.books.lock().next_watch();
        Ok(Box::new(LedgerWatch {
            arming: Arc::clone(&self.arming),
            number,
        }))
    }

    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        match query {
            _ if range.is_empty() => Ok(()),
            Query::Touched | Query::Private => self.look(range, query, out),
            // Protection of part of a huge page splits it; no answer depends on it.
            Query::Huge => Ok(()),
            Query::ArmAll | Query::Written | Query::WrittenRearm => self.consult(range, query, out),
        }
    }

    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        self.arming.copy_racing(ranges, out)
    }

    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.arming.below.copy_quiet(ranges, out) }
    }

    fn begin_kernel_write(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let mut books = self.arming.books.lock();
        ledger::forget(self.page_size(), range);
        self.arming.let_go(&books, range)?;
        books.held.push(range);
        Ok(())
    }

    fn end_kernel_write(&self, range: PageRange) {
        let mut books = self.arming.books.lock();
        if let Some(at) = books.held.iter().position(|held| *held == range) {
            books.held.swap_remove(at);
        }
    }
}
