//! A pack that its writer still appends to, as its readers in this process see it.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{
    format::Kind,
    io::{Output, Readable},
    table::Table,
};
use crate::{id::PackId, unit::Place};

/// Shared by the writer and the store.
#[derive(Debug)]
pub(crate) struct OpenPack {
    pub(crate) id: PackId,
    pub(crate) output: Arc<Output>,
    /// After the store's lists of packs in the lock order; nothing is called while it is held.
    pub(crate) table: RwLock<Table>,
}

impl OpenPack {
    /// Where a durable block or node lies.
    pub(crate) fn find(&self, kind: Kind, id: &[u8; 32]) -> Option<Place> {
        let table = self.table.read();
        table.find(kind, id).map(|entry| entry.place(self.id))
    }

    /// Waits for what is on its way to the file.
    pub(crate) fn wait(&self, place: &Place) -> Readable {
        self.output
            .wait_written(place.offset.saturating_add(u64::from(place.stored)))
    }
}
