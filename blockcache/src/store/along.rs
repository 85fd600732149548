//! Packs that another process may still append to, read as far as a record says that they are durable.
//!
//! What lies before a mark never changes, whoever is alive. It can be read, its hash checked; it can be neither mapped nor
//! shared by another image's blocks, as the pack's end is its writer's business.

use std::{path::PathBuf, sync::Arc};

use super::{Store, StoreError};
use crate::{
    disk::{DiskFile, Open},
    extent::Layout,
    id::PackId,
    pack::{
        PackMark,
        format::{FIRST_BATCH, Kind, PAGE_LEN},
        table::Table,
        walk::walk,
    },
    unit::Place,
};

/// The durable part of a pack, as far as it was known when it was looked at.
#[derive(Debug)]
pub(super) struct Along {
    mark: PackMark,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    table: Table,
}

impl Along {
    fn covers(&self, place: &Place) -> bool {
        let end = place.offset.checked_add(u64::from(place.stored));
        place.pack == self.mark.pack && end.is_some_and(|end| end <= self.mark.len)
    }
}

impl Store {
    /// Makes readable what `mark` says is durable of a pack whose writer may live; nothing is written. A sealed pack is
    /// left as it is, and one that is missing is fine: a collection wrote again what was still needed of it; if not, whoever
    /// needs that says so.
    ///
    /// - **Cost**: reads headers and directories, no block; memory of some 60 bytes a block. Once for each mark.
    /// - **Errors**: [`StoreError::Damaged`] where a batch before the mark is not whole.
    pub fn read_along(&self, mark: PackMark) -> Result<(), StoreError> {
        let (pack, path) = (mark.pack, self.pack_path(mark.pack));
        if self.open_pack(pack).is_some() {
            return Ok(());
        }
        match self.sealed_pack(pack) {
            Ok(sealed) => {
                // Completed: it can be mapped, and what comes after may rely on it.
                self.note_reliance(&sealed);
                self.along.write().retain(|along| along.mark.pack != pack);
                return Ok(());
            }
            Err(StoreError::Missing { .. }) => return Ok(()),
            Err(StoreError::NotSealed { .. }) => {}
            Err(other) => return Err(other),
        }
        let known = |along: &Arc<Along>| along.mark.pack == pack && along.mark.len >= mark.len;
        if self.along.read().iter().any(known) {
            return Ok(());
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
            .open(&path, Open::Read)
            .map_err(|source| StoreError::io("open", &path, source))?;
        let walked = match walk(file.as_mappable(), pack, mark.len) {
            Ok(walked) => walked,
            // Sealed a moment ago, while the header was looked at.
            Err(_changed) if self.has_sealed(pack) => return Ok(()),
            Err(error) => return Err(StoreError::sealed(error.into(), pack, path)),
        };
        let mut table = Table::default();
        for entry in walked.entries {
            table.push(entry);
        }
        table.publish();
        let found = Arc::new(Along {
            mark,
            path,
            file,
            table,
        });
        let mut along = self.along.write();
        along.retain(|old| old.mark.pack != pack);
        along.push(found);
        Ok(())
    }

    /// The packs that are only read along: what lies there can be neither mapped nor shared.
    #[must_use]
    pub fn packs_along(&self) -> Vec<PackId> {
        let along = self.along.read();
        along.iter().map(|along| along.mark.pack).collect()
    }

    /// Tells whether everything that a layout names can be read here: in sealed packs, or in the durable part of one that is
    /// read along.
    ///
    /// An extent map says where a tree lay for whoever saved it: in a pack that it may still append to, or behind what its
    /// image's record came to mark.
    #[must_use]
    pub fn has_all_of(&self, layout: &Layout) -> bool {
        let size = layout.block_size().bytes() as u64;
        let mut last: Option<(PackId, u64)> = None;
        layout.runs().all(|run| {
            let ends = match last.filter(|(pack, _)| *pack == run.pack) {
                Some((_, ends)) => ends,
                None => self.readable_end(run.pack),
            };
            last = Some((run.pack, ends));
            let len = run.blocks.checked_mul(size);
            let end = len.and_then(|len| run.offset.checked_add(len));
            end.is_some_and(|end| end <= ends)
        })
    }

    /// Up to where a pack of somebody else can be read; 0 where it cannot.
    fn readable_end(&self, pack: PackId) -> u64 {
        if let Ok(sealed) = self.sealed_pack(pack) {
            return sealed.batches_end();
        }
        let along = self.along.read();
        let found = along.iter().find(|along| along.mark.pack == pack);
        found.map_or(0, |along| along.mark.len)
    }

    pub(super) fn find_along(&self, kind: Kind, id: &[u8; 32]) -> Option<Place> {
        let along = self.along.read();
        along.iter().find_map(|along| {
            let entry = along.table.find(kind, id);
            entry.map(|entry| entry.place(along.mark.pack))
        })
    }

    /// The pack that is read along and has this place in its durable part.
    pub(super) fn along_of(&self, place: &Place) -> Option<Arc<Along>> {
        let along = self.along.read();
        along.iter().find(|along| along.covers(place)).cloned()
    }
}
