//! From batch to batch of one pack, whatever is wrong with some of them.

use std::ops::Range;

use crate::{
    disk::DiskFile,
    id::PackId,
    pack::{
        format::{Batch, Entry, FIRST_BATCH, PAGE, PAGE_LEN},
        walk::{WalkError, read_directory},
    },
};

/// What a walk meets.
pub(super) enum Step {
    /// A batch and all that is in it.
    Good(Batch, Vec<Entry>),
    /// A batch whose directory is damaged or cannot be read.
    BadDirectory(Batch, WalkError),
    /// No batch header where one should be; the range ends at the next one, or where the batches do.
    BadHeader(Range<u64>, WalkError),
}

impl Step {
    /// Where the next batch begins.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Good(batch, _) | Self::BadDirectory(batch, _) => batch.end(),
            Self::BadHeader(range, _) => range.end,
        }
    }
}

/// The batches of a pack.
pub(super) struct Batches<'a> {
    pub(super) file: &'a dyn DiskFile,
    pub(super) pack: PackId,
    /// Where they end, or the file does.
    pub(super) end: u64,
    /// Whether they may end before: at the first page that is no batch header.
    pub(super) may_end_before: bool,
}

impl Batches<'_> {
    /// Visits each batch in order; answers where the last one ended, and its number plus one.
    ///
    /// A damaged header does not say where its batch ends: then the next page is looked for that is a whole header of
    /// this pack, of a later batch, at its own place. No block's content imitates one by accident.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(Step)) -> (u64, u64) {
        let (mut offset, mut sequence) = (FIRST_BATCH, 0);
        while offset.saturating_add(PAGE_LEN) <= self.end {
            match self.header(offset, sequence) {
                Ok(batch) => {
                    let mut entries = Vec::new();
                    let read = read_directory(self.file.as_mappable(), &batch, &mut entries);
                    (offset, sequence) = (batch.end(), sequence + 1);
                    visit(match read {
                        Ok(()) => Step::Good(batch, entries),
                        Err(error) => Step::BadDirectory(batch, error),
                    });
                }
                Err(WalkError::Damaged { .. }) if self.may_end_before => break,
                Err(error) => {
                    let (next, later) = self.next_header(offset, sequence);
                    visit(Step::BadHeader(offset..next, error));
                    (offset, sequence) = (next, later);
                }
            }
        }
        (offset, sequence)
    }

    fn header(&self, offset: u64, sequence: u64) -> Result<Batch, WalkError> {
        let page = self.page(offset)?;
        let damaged = |flaw| WalkError::Damaged { offset, flaw };
        let batch = Batch::decode(&page, self.pack, sequence, offset).map_err(damaged)?;
        if batch.end() > self.end {
            return Err(damaged("a batch ends behind where the batches do"));
        }
        Ok(batch)
    }

    fn page(&self, offset: u64) -> Result<[u8; PAGE], WalkError> {
        let mut page = [0; PAGE];
        match self.file.read_at(offset, &mut page) {
            Ok(()) => Ok(page),
            Err(source) => Err(WalkError::Io { offset, source }),
        }
    }

    fn next_header(&self, damaged: u64, sequence: u64) -> (u64, u64) {
        let mut offset = damaged + PAGE_LEN;
        while offset.saturating_add(PAGE_LEN) <= self.end {
            if let Ok(page) = self.page(offset)
                && let Some(later) = sequence_of(&page).filter(|later| *later > sequence)
                && Batch::decode(&page, self.pack, later, offset).is_ok()
            {
                return (offset, later);
            }
            offset += PAGE_LEN;
        }
        (self.end, sequence + 1)
    }
}

/// What a page would have for its sequence number.
fn sequence_of(page: &[u8; PAGE]) -> Option<u64> {
    let field = page.get(24..)?.first_chunk()?;
    Some(u64::from_le_bytes(*field))
}
