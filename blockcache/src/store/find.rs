//! Which pack has an id, however many packs there are.
//!
//! A few packs are asked one after the other. Of more than that, most are in one table ([`Lookup`]): so that a block
//! that is nowhere, as every block of a first checkpoint is, costs one look instead of one for each pack.

use std::{convert::Infallible, sync::Arc};

use super::{Store, StoreError, copies::Asked, lookup::Lookup};
use crate::{
    disk::Disk,
    id::BlockId,
    pack::{format::Kind, sealed::SealedPack},
    unit::Place,
};

/// So many packs that are in no table are asked one after the other; with one more all of them get a new table.
const UNLISTED: usize = 16;
/// A pack of so many entries is asked itself: its index is mapped, and in a table it would take a lot of memory ...
const LARGE: u64 = 1 << 18;
/// ... but no more than so many packs, the largest.
const LARGE_PACKS: usize = 8;

/// How packs are asked, by their numbers in the store's list.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Has the packs before `covered` that are not in `directly`.
    table: Option<Lookup>,
    covered: usize,
    directly: Vec<usize>,
}

impl Asking {
    /// Makes a table of packs.
    ///
    /// - **Cost**: reads all their indexes but the largest; 6 bytes of memory an entry.
    fn of(disk: &dyn Disk, packs: &[Arc<SealedPack>]) -> Self {
        let mut large: Vec<usize> = (0..packs.len())
            .filter(|number| entries(packs, *number) >= LARGE)
            .collect();
        large.sort_by_key(|number| std::cmp::Reverse(entries(packs, *number)));
        large.truncate(LARGE_PACKS);
        let listed = (0..packs.len()).filter(|number| !large.contains(number));
        let room: u64 = listed.clone().map(|number| entries(packs, number)).sum();
        let table = usize::try_from(room).ok().and_then(Lookup::with_room);
        let Some(mut table) = table else {
            // As slow as without a table, and not asked for another one before there are more packs.
            return Self {
                table: None,
                covered: packs.len(),
                directly: (0..packs.len()).collect(),
            };
        };
        let mut directly = large.clone();
        for number in listed {
            let Some(pack) = packs.get(number) else {
                continue;
            };
            let mut all = true;
            let read = pack.each_id(disk, &mut |id| all &= table.insert(id, number));
            if read.is_err() || !all {
                // Damaged: asked each time, so that whoever needs it is told.
                directly.push(number);
            }
        }
        Self {
            table: Some(table),
            covered: packs.len(),
            directly,
        }
    }
}

fn entries(packs: &[Arc<SealedPack>], number: usize) -> u64 {
    packs.get(number).map_or(0, |pack| pack.entries())
}

/// The sealed packs at one instant, and how they are asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) packs: Arc<Vec<Arc<SealedPack>>>,
    pub(super) asking: Arc<Asking>,
}

impl Known {
    /// Whether too many packs are in no table.
    pub(super) fn needs_table(&self) -> bool {
        self.packs.len().saturating_sub(self.asking.covered) > UNLISTED
    }

    pub(super) fn with_table(&self, disk: &dyn Disk) -> Arc<Asking> {
        Arc::new(Asking::of(disk, &self.packs))
    }

    /// The packs that may have an id, the newest first; whoever has it is among them.
    pub(super) fn candidates(&self, id: &[u8; 32]) -> impl Iterator<Item = &Arc<SealedPack>> {
        let listed = self.asking.table.iter();
        let listed = listed.flat_map(|table| table.candidates(id));
        let mut numbers: Vec<usize> = listed.chain(self.asking.directly.iter().copied()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let unlisted = self.asking.covered..self.packs.len();
        numbers
            .into_iter()
            .chain(unlisted)
            .rev()
            .filter_map(|number| self.packs.get(number))
    }

    /// Finds an id; packs that are damaged are passed over.
    fn locate(
        &self,
        disk: &dyn Disk,
        kind: Kind,
        id: &[u8; 32],
    ) -> Option<(&Arc<SealedPack>, Place)> {
        let mut packs = self.candidates(id);
        packs.find_map(|pack| Some((pack, pack.find(disk, kind, id).ok()??)))
    }
}

impl Store {
    /// Where a block lies: in a sealed pack, or in a durable batch of a pack that this store object writes.
    ///
    /// A place to read from. What an image may *share* is said by [`PackWriter::locate`](crate::PackWriter::locate).
    /// A pack that is damaged is passed over here, and named by the read that needs it.
    ///
    /// - **Cost**: hardly depends on the number of packs; the first ever lists the packs and reads their indexes.
    pub fn locate(&self, id: &BlockId) -> Result<Option<Place>, StoreError> {
        let open = self.find_open(Kind::Block, id.as_bytes());
        let sealed = || {
            let known = self.known();
            let found = known.locate(&*self.disk, Kind::Block, id.as_bytes());
            found.map(|(_, place)| place)
        };
        Ok(open.or_else(sealed))
    }

    /// Where a block lies in a sealed pack that is going to be relied on for it.
    pub(crate) fn locate_to_share(&self, id: &BlockId) -> Option<Place> {
        let known = self.known();
        let (pack, place) = known.locate(&*self.disk, Kind::Block, id.as_bytes())?;
        self.note_reliance(pack);
        Some(place)
    }
}

/// Looks for many blocks, of which most lie in the pack that the one before lay in.
pub(super) struct Finder<'a> {
    store: &'a Store,
    known: Known,
    /// Where the last one was found.
    last: Option<Arc<SealedPack>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            known: store.known(),
            last: None,
        }
    }

    /// Where a block lies; looks again for packs that appeared since, and fails where a damaged pack may have what nobody else
    /// has.
    pub(super) fn block(&mut self, id: &BlockId) -> Result<Option<Place>, StoreError> {
        let id = id.as_bytes();
        let disk = &*self.store.disk;
        let find = |pack: &Arc<SealedPack>| pack.find(disk, Kind::Block, id).ok().flatten();
        if let Some(place) = self.last.as_ref().and_then(find) {
            return Ok(Some(place));
        }
        let found = self
            .known
            .candidates(id)
            .find_map(|pack| Some((pack.clone(), find(pack)?)));
        if let Some((pack, place)) = found {
            self.last = Some(pack);
            return Ok(Some(place));
        }
        match self.store.ask_all(Kind::Block, id, Ok::<_, Infallible>) {
            Asked::Good(place, _none_is_bad) => Ok(Some(place)),
            Asked::None(_, closed) => closed.map_or(Ok(None), Err),
        }
    }
}
