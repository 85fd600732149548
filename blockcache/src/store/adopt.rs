//! Takes over what a dead writer left: its pack is sealed up to its mark.

use std::io;

use super::{Store, StoreError};
use crate::{
    disk::Open,
    pack::{
        PackMark,
        format::{FIRST_BATCH, PAGE_LEN},
        seal::seal,
        walk::walk,
    },
};

impl Store {
    /// Seals the pack of a writer that is dead, up to its mark; one that is sealed already stays as it is, and is
    /// synced by the next [`settle`](Self::settle).
    ///
    /// The caller knows that the writer is dead: it holds the lease of the image whose record carries the mark.
    ///
    /// - **Cost**: reads headers and directories, no block; writes an index of 48 bytes a block; one sync, without
    ///   which no other image could rely on the pack (see `pack::seal`).
    /// - **Errors**: [`StoreError::Missing`]; [`StoreError::Damaged`] where a batch before the mark is not whole.
    pub fn adopt(&self, mark: PackMark) -> Result<(), StoreError> {
        let (pack, path) = (mark.pack, self.pack_path(mark.pack));
        match self.sealed_pack(pack) {
            // Sealing it failed in this process: the same bytes are written and synced once more.
            Ok(_) if self.is_doubtful(pack) => {}
            Ok(sealed) if sealed.batches_end() >= mark.len => {
                self.note_reliance(&sealed);
                self.abandoned(pack);
                return Ok(());
            }
            Ok(_) => {
                return Err(StoreError::Damaged {
                    path,
                    offset: mark.len,
                    flaw: "the pack was sealed before the end of its durable part",
                });
            }
            // A seal is one sector, there or not: one that is damaged was whole, and is not written over.
            Err(StoreError::NotSealed { .. }) => {}
            Err(other) => return Err(other),
        }
        if mark.len < FIRST_BATCH || !mark.len.is_multiple_of(PAGE_LEN) {
            return Err(StoreError::Damaged {
                path,
                offset: mark.len,
                flaw: "no batch ends where the mark says",
            });
        }

        let file = self
            .disk
            .open(&path, Open::Write)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StoreError::Missing { path: path.clone() },
                _ => StoreError::io("open", &path, source),
            })?;
        let len = file
            .len()
            .map_err(|source| StoreError::io("look at the length", &path, source))?;
        if len < mark.len {
            return Err(StoreError::Damaged {
                path,
                offset: len,
                flaw: "the file ends before its durable part does",
            });
        }
        let walked = walk(file.as_mappable(), pack, mark.len)
            .map_err(|error| StoreError::sealed(error.into(), pack, path.clone()))?;
        // Through the page cache, unlike what a writer does: the resume that comes next looks into the index.
        seal(&*file, pack, mark.len, walked.batches, &walked.entries).map_err(|failure| {
            self.seal_failed(pack);
            failure.store_error(path)
        })?;
        self.sealed(pack);
        Ok(())
    }
}
