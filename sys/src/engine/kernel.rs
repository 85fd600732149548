//! The [`Kernel`] that answers from the ledger, where the kernel below cannot tell what was written.
//!
//! Memory itself is [`RealKernel`]'s. What differs is arming (`mprotect` instead of userfaultfd) and who knows what was written:
//! not the page table but the ledger, which the signal handler writes. Which pages are private is still the page table's to say.

use std::{ptr, sync::Arc};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};

use super::{Without, books::Books, entries::Entries, fault, ledger, pipe};
use crate::{
    kernel::{Kernel, KernelError, Mappable, Query, Watch},
    page::{PageRange, PageSize, push_run},
    real::{Owner, RealKernel, failed, set_writable},
    sigbus,
};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct LedgerKernel {
    below: RealKernel,
    owner: Owner,
    entries: Entries,
    /// Whether the kernel below has `PAGEMAP_SCAN`.
    can_scan: bool,
    /// Whether it has `process_vm_readv`.
    can_copy: bool,
    books: Arc<Mutex<Books>>,
}

impl LedgerKernel {
    pub(super) fn new(without: Without) -> Result<Self, KernelError> {
        let below = RealKernel::new()?;
        sigbus::install().map_err(|source| KernelError::Unavailable {
            feature: "a handler of SIGSEGV",
            remedy: "allow the system call rt_sigaction in the container's seccomp profile",
            source,
        })?;
        fault::set_page(below.page_size());
        let can_scan = !without.pagemap_scan && below.can_scan();
        Ok(Self {
            below,
            owner: Owner::this_process(),
            entries: Entries::open(),
            can_scan,
            can_copy: !without.process_vm_readv,
            books: Arc::default(),
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
            return self.below.scan(range, query, out);
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
        let books = self.books.lock();
        if !books.watched.gaps(range).is_empty() {
            return Err(failed("scan", range, Errno::PERM));
        }
        let (free, held) = books.without_held(range);
        let mut found = held;
        for run in &free {
            match query {
                Query::WrittenRearm => ledger::take_written(page, *run, &mut found),
                Query::ArmAll => ledger::arm(page, *run),
                _ => ledger::written(page, *run, &mut found),
            }
        }
        if query != Query::Written {
            protect(page, &books, range, &free)?;
        }
        drop(books);
        if query == Query::ArmAll {
            self.look(range, Query::Private, &mut found)?;
        }
        found.sort_unstable();
        for run in merged(found) {
            push_run(out, run);
        }
        Ok(())
    }
}

/// Fewer pages than this cannot be split into many maps.
const FEW_PAGES: usize = 64;

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

/// Puts the protection back on what is ours of `runs`.
///
/// What the kernel refuses to split maps for counts as written from now on: dearer, and right. On another error all of `range`
/// does.
fn protect(
    page: PageSize,
    books: &Books,
    range: PageRange,
    runs: &[PageRange],
) -> Result<(), KernelError> {
    for run in runs.iter().flat_map(|run| books.ours(*run)) {
        // SAFETY: the pages are ours: whoever writes to them is let through by the handler.
        match unsafe { set_writable(run, false) } {
            Err(KernelError::Call { source, .. })
                if source.kind() == std::io::ErrorKind::OutOfMemory =>
            {
                ledger::forget(page, run);
            }
            Err(error) => {
                ledger::forget(page, range);
                return Err(error);
            }
            Ok(()) => {}
        }
    }
    Ok(())
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
        self.below.page_size()
    }

    fn reserve(&self, range: PageRange) -> Result<(), KernelError> {
        if !ledger::reaches(range) {
            return Err(failed("mmap", range, Errno::NOMEM));
        }
        self.below.reserve(range)
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        self.books.lock().forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.release(range) }
    }

    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        let mut books = self.books.lock();
        books.forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.commit(range) }?;
        books.accessible.set(range, ());
        // SAFETY: memory of the caller's that nobody uses yet.
        unsafe { keep_mergeable(self.page_size(), range) };
        Ok(())
    }

    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        self.books.lock().forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.fence(range) }
    }

    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        if !offset.is_multiple_of(self.page_size().bytes() as u64) {
            // Before anything is forgotten: what lies there stays as it is.
            return Err(failed("mmap", range, Errno::INVAL));
        }
        let mut books = self.books.lock();
        books.forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.map_file(range, file, offset) }?;
        books.accessible.set(range, ());
        // SAFETY: memory of the caller's that nobody uses yet; the file is long enough for it.
        unsafe { keep_mergeable(self.page_size(), range) };
        Ok(())
    }

    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's. What is armed is let through by the handler.
        unsafe { self.below.fill(at, bytes) }
    }

    fn populate_read(&self, range: PageRange) -> Result<(), KernelError> {
        self.below.populate_read(range)
    }

    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError> {
        self.owner.check()?;
        let page = self.page_size();
        let mut books = self.books.lock();
        if !writable {
            books.frozen.set(range, ());
            ledger::remove(page, range);
            // SAFETY: the caller's promise is the callee's.
            return unsafe { self.below.set_writable(range, false) };
        }
        books.frozen.cut(range);
        let ours = books.ours(range);
        let mut writable = books.watched.gaps(range);
        for run in &ours {
            ledger::add(page, *run);
            // What is armed stays protected.
            ledger::written(page, *run, &mut writable);
        }
        for run in writable {
            // SAFETY: the caller's promise is the callee's.
            unsafe { self.below.set_writable(run, true) }?;
        }
        Ok(())
    }

    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        ledger::forget(self.page_size(), range);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.discard(range) }
    }

    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.seclude(range) }
    }

    fn watch(&self) -> Result<Box<dyn Watch>, KernelError> {
        self.owner.check()?;
        let number = self.books.lock().next_watch();
        Ok(Box::new(LedgerWatch {
            page: self.page_size(),
            owner: self.owner,
            books: Arc::clone(&self.books),
            number,
        }))
    }

    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        match query {
            _ if range.is_empty() => Ok(()),
            Query::Touched | Query::Private => self.look(range, query, out),
            // Protection of part of a huge page splits it; no answer depends on it.
            Query::Huge => Ok(()),
            Query::ArmAll | Query::Written | Query::WrittenRearm => self.consult(range, query, out),
        }
    }

    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        self.owner.check()?;
        if self.can_copy {
            match self.below.copy_racing(ranges, out) {
                Err(KernelError::Unavailable { .. }) => {}
                done => return done,
            }
        }
        pipe::copy_racing(ranges, out)
    }

    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.below.copy_quiet(ranges, out) }
    }

    fn begin_kernel_write(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        let mut books = self.books.lock();
        ledger::forget(self.page_size(), range);
        for run in books.ours(range) {
            // SAFETY: pages that are ours are meant to be writable, and count as written now.
            unsafe { set_writable(run, true) }?;
        }
        books.held.push(range);
        Ok(())
    }

    fn end_kernel_write(&self, range: PageRange) {
        let mut books = self.books.lock();
        if let Some(at) = books.held.iter().position(|held| *held == range) {
            books.held.swap_remove(at);
        }
    }
}

/// Ranges that are armed by `mprotect`.
#[derive(Debug)]
struct LedgerWatch {
    page: PageSize,
    owner: Owner,
    books: Arc<Mutex<Books>>,
    number: u64,
}

impl LedgerWatch {
    /// Lets every write through without a note.
    ///
    /// The pages stay ours: a write may have faulted before this, and its handler begin after.
    fn disarm(&self, books: &mut Books, range: PageRange) -> Result<(), KernelError> {
        let ours = books.ours(range);
        books.watched.cut(range);
        ledger::forget(self.page, range);
        for run in ours {
            // SAFETY: pages that are ours are meant to be writable.
            unsafe { set_writable(run, true) }?;
        }
        Ok(())
    }
}

impl Watch for LedgerWatch {
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        let mut books = self.books.lock();
        if books.watched.within(range).any(|(_, by)| by != self.number) {
            return Err(failed("register", range, Errno::BUSY));
        }
        books.watched.set(range, self.number);
        for run in books.ours(range) {
            ledger::add(self.page, run);
        }
        Ok(())
    }

    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        let mut books = self.books.lock();
        if books.watched.within(range).any(|(_, by)| by != self.number) {
            return Err(failed("unregister", range, Errno::INVAL));
        }
        self.disarm(&mut books, range)
    }

    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError> {
        self.owner.check()?;
        let books = self.books.lock();
        if !books.watched.all(range, self.number) {
            return Err(failed("arm", range, Errno::NOENT));
        }
        let (free, _held) = books.without_held(range);
        for run in &free {
            ledger::arm(self.page, *run);
        }
        protect(self.page, &books, range, &free)
    }

    unsafe fn install(&self, _at: usize, _bytes: &[u8]) -> Result<(), KernelError> {
        self.owner.check()?;
        Err(KernelError::Unavailable {
            feature: "installing pages behind the program's back",
            remedy: "an engine with userfaultfd (wp-async: Linux 6.7 or newer), or all bytes fetched before use",
            source: Errno::NOSYS.into(),
        })
    }
}

impl Drop for LedgerWatch {
    fn drop(&mut self) {
        if self.owner.check().is_err() {
            // A forked child: its pages, its handler and its ledger are copies, and go on working.
            return;
        }
        let mut books = self.books.lock();
        let all = books.watched.of(self.number);
        for range in all {
            // Pages that stay protected would fault for no reason. There is nobody to tell.
            let _best_effort = self.disarm(&mut books, range);
        }
    }
}
