//! The [`Watch`] of engines that keep a ledger.

use std::sync::Arc;

use rustix::io::Errno;

use super::{
    arming::Arming,
    books::{Books, Means},
    ledger,
};
use crate::{
    kernel::{KernelError, Watch},
    page::PageRange,
    real::{failed, set_writable},
};

/// Ranges that are armed by a [`LedgerKernel`](super::kernel::LedgerKernel).
#[derive(Debug)]
pub(super) struct LedgerWatch {
    pub(super) arming: Arc<Arming>,
    pub(super) number: u64,
}

impl LedgerWatch {
    /// Lets every write through without a note.
    ///
    /// The pages stay ours: a write may have faulted before this, and its handler begin after.
    fn disarm(&self, books: &mut Books, range: PageRange) -> Result<(), KernelError> {
        let ours = books.ours(range);
        let discharged = self.arming.discharge(books, range);
        books.watched.cut(range);
        ledger::forget(self.arming.page(), range);
        for (run, _) in ours
            .into_iter()
            .filter(|(_, means)| *means == Means::Protection)
        {
            // SAFETY: pages that are ours are meant to be writable.
            unsafe { set_writable(run, true) }?;
        }
        discharged
    }
}

impl Watch for LedgerWatch {
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let mut books = self.arming.books.lock();
        if books.watched.within(range).any(|(_, by)| by != self.number) {
            return Err(failed("register", range, Errno::BUSY));
        }
        self.arming.enlist(&books, range)?;
        books.watched.set(range, self.number);
        for (run, _) in books.ours(range) {
            ledger::add(self.arming.page(), run);
        }
        Ok(())
    }

    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let mut books = self.arming.books.lock();
        if books.watched.within(range).any(|(_, by)| by != self.number) {
            return Err(failed("unregister", range, Errno::INVAL));
        }
        self.disarm(&mut books, range)
    }

    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        let books = self.arming.books.lock();
        if !books.watched.all(range, self.number) {
            return Err(failed("arm", range, Errno::NOENT));
        }
        let (free, _held) = books.without_held(range);
        for run in &free {
            ledger::arm(self.arming.page(), *run);
        }
        self.arming.protect(&books, range, &free, &free)
    }

    unsafe fn install(&self, _at: usize, _bytes: &[u8]) -> Result<(), KernelError> {
        self.arming.owner.check()?;
        Err(KernelError::Unavailable {
            feature: "installing pages behind the program's back",
            remedy: "the engine wp-async (Linux 6.7 or newer), or all bytes fetched before use",
            source: Errno::NOSYS.into(),
        })
    }
}

impl Drop for LedgerWatch {
    fn drop(&mut self) {
        if self.arming.owner.check().is_err() {
            // A forked child: its pages, its handler and its ledger are copies, and go on working.
            return;
        }
        let mut books = self.arming.books.lock();
        let all = books.watched.of(self.number);
        for range in all {
            // Pages that stay protected would fault for no reason. There is nobody to tell.
            let _best_effort = self.disarm(&mut books, range);
        }
    }
}
