//! Which packs a store has.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{Store, StoreError, find::Known};
use crate::{
    disk::DiskFile,
    id::PackId,
    pack::{
        format::Kind,
        open::OpenPack,
        sealed::{SealedError, SealedPack},
    },
    unit::Place,
};

/// How many sealed packs stay open for those who read or map them next.
const FILES: usize = 64;

/// What this store object knows of its packs.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Packs with a writer in this process.
    open: Vec<Arc<OpenPack>>,
    /// Packs that were sealed when they were looked at; the newest last, as far as that is known. Only added to, but
    /// for a collection.
    sealed: Known,
    /// Their numbers in that list.
    numbers: HashMap<PackId, usize>,
    /// How often packs were taken out of it: numbers from before mean nothing.
    forgotten: u64,
    /// Packs whose seal was written but not synced, as far as anybody knows: an adoption writes it again.
    doubtful: Vec<PackId>,
    /// Packs that somebody else sealed and that something is about to rely on: whoever sealed them may have died before
    /// the sync.
    unsettled: Vec<PackId>,
    /// One of them, whose sync failed.
    settle_failed: Option<PackId>,
    /// Whether `sealed` was filled from the directory.
    listed: bool,
    /// The sealed packs that were used last, open; the newest at the back, at most [`FILES`].
    files: VecDeque<(PackId, Arc<dyn DiskFile>)>,
}

impl Packs {
    /// Adds sealed packs that are not known yet.
    fn add(&mut self, new: impl IntoIterator<Item = Arc<SealedPack>>) {
        let sealed = Arc::make_mut(&mut self.sealed.packs);
        for pack in new {
            if let Entry::Vacant(number) = self.numbers.entry(pack.id) {
                number.insert(sealed.len());
                sealed.push(pack);
            }
        }
    }

    fn get(&self, id: PackId) -> Option<Arc<SealedPack>> {
        let number = self.numbers.get(&id)?;
        self.sealed.packs.get(*number).cloned()
    }
}

impl Store {
    pub(super) fn find_open(&self, kind: Kind, id: &[u8; 32]) -> Option<Place> {
        let packs = self.packs.read();
        packs.open.iter().find_map(|pack| pack.find(kind, id))
    }

    /// The sealed packs, listing them the first time, and making a table of them when there are many.
    pub(super) fn known(&self) -> Known {
        let look = || {
            let packs = self.packs.read();
            (packs.listed, packs.sealed.clone(), packs.forgotten)
        };
        let (listed, mut known, mut forgotten) = look();
        if !listed {
            let _named_by_the_read_that_needs_it = self.list_packs();
            (_, known, forgotten) = look();
        }
        if !known.needs_table() {
            return known;
        }
        let Some(_one_is_enough) = self.tabling.try_lock() else {
            return known;
        };
        let asking = known.with_table(&*self.disk);
        let mut packs = self.packs.write();
        if packs.forgotten == forgotten {
            packs.sealed.asking = asking;
        }
        packs.sealed.clone()
    }

    /// Looks for sealed packs that are not known yet; answers the first that is damaged.
    pub(super) fn list_packs(&self) -> Result<Option<StoreError>, StoreError> {
        let names = self
            .disk
            .list(&self.packs_dir)
            .map_err(|source| StoreError::io("list", &self.packs_dir, source))?;
        let mut ids: Vec<PackId> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".pack")?.parse().ok())
            .collect();
        // The directory's order means nothing: a fixed one makes runs repeatable.
        ids.sort_unstable();
        let packs = self.packs.read();
        ids.retain(|id| !packs.numbers.contains_key(id));
        drop(packs);
        let (mut found, mut damaged) = (Vec::new(), None);
        for id in ids {
            match SealedPack::open(&*self.disk, &self.pack_path(id), id) {
                Ok((pack, _closed_again)) => found.push(Arc::new(pack)),
                Err(SealedError::NotSealed) => {}
                Err(error) => {
                    let path = self.pack_path(id);
                    damaged.get_or_insert(StoreError::sealed(error, id, path));
                }
            }
        }
        let mut packs = self.packs.write();
        packs.add(found);
        packs.listed = true;
        Ok(damaged)
    }

    /// Adds a sealed pack; where another thread was first, its object is the one.
    fn add(&self, pack: Arc<SealedPack>) -> Arc<SealedPack> {
        let mut packs = self.packs.write();
        packs.add([pack.clone()]);
        packs.get(pack.id).unwrap_or(pack)
    }

    /// The file of a sealed pack, to be mapped; the caller keeps it as long as it needs it.
    ///
    /// - **Cost**: the first time an open, a read of two pages and a look at the length; the files used last stay open.
    /// - **Errors**: [`StoreError::NotSealed`], [`StoreError::Missing`], [`StoreError::Damaged`].
    pub fn sealed_file(&self, pack: PackId) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut packs = self.packs.write();
        let files = &mut packs.files;
        if let Some(at) = files.iter().rposition(|(id, _)| *id == pack)
            && let Some((_, file)) = files.remove(at)
        {
            files.push_back((pack, file.clone()));
            return Ok(file);
        }
        drop(packs);
        let sealed = self.sealed_pack(pack)?;
        // The check just opened it, unless the pack was known before.
        let packs = self.packs.read();
        let checked = packs.files.iter().rfind(|(id, _)| *id == pack);
        let checked = checked.map(|(_, file)| file.clone());
        drop(packs);
        if let Some(file) = checked {
            return Ok(file);
        }
        let file = sealed
            .file(&*self.disk)
            .map_err(|error| StoreError::sealed(error, pack, sealed.path.clone()))?;
        self.keep_file(pack, file.clone());
        Ok(file)
    }

    fn keep_file(&self, pack: PackId, file: Arc<dyn DiskFile>) {
        let files = &mut self.packs.write().files;
        files.push_back((pack, file));
        if files.len() > FILES {
            files.pop_front();
        }
    }

    /// Tells whether a pack is there, whole and sealed.
    #[must_use]
    pub fn has_sealed(&self, pack: PackId) -> bool {
        self.sealed_pack(pack).is_ok()
    }

    pub(super) fn sealed_pack(&self, id: PackId) -> Result<Arc<SealedPack>, StoreError> {
        let known = self.packs.read().get(id);
        if let Some(pack) = known {
            return Ok(pack);
        }
        let path = self.pack_path(id);
        match SealedPack::open(&*self.disk, &path, id) {
            Ok((pack, file)) => {
                self.keep_file(id, file);
                Ok(self.add(Arc::new(pack)))
            }
            Err(error) => Err(StoreError::sealed(error, id, path)),
        }
    }

    pub(super) fn open_pack(&self, id: PackId) -> Option<Arc<OpenPack>> {
        let packs = self.packs.read();
        packs.open.iter().find(|pack| pack.id == id).cloned()
    }

    /// A writer of this process made a pack.
    pub(crate) fn opened(&self, pack: Arc<OpenPack>) {
        self.packs.write().open.push(pack);
    }

    /// Sealing a pack failed: its seal may be seen and yet be lost in a power cut.
    pub(crate) fn seal_failed(&self, id: PackId) {
        self.packs.write().doubtful.push(id);
    }

    /// Passes where a pack is there, whole and sealed, and notes that a record is going to need it without marking it.
    ///
    /// - **Errors**: [`StoreError::NotSealed`], [`StoreError::Missing`], [`StoreError::Damaged`].
    pub fn rely_on(&self, pack: PackId) -> Result<(), StoreError> {
        self.note_reliance(&*self.sealed_pack(pack)?);
        Ok(())
    }

    pub(super) fn note_reliance(&self, pack: &SealedPack) {
        if pack.is_relied_on.swap(true, Ordering::Relaxed) {
            return;
        }
        self.packs.write().unsettled.push(pack.id);
    }

    /// Makes the seals durable that were found here and are relied on: of packs that were adopted, read along, or shared. Comes
    /// before every record that needs them and does not mark them. [`PackWriter::sync`](crate::PackWriter::sync) does it too.
    ///
    /// Not done when they are found: that is on the way to a resume, and this waits for the disk.
    ///
    /// - **Cost**: a look; once for each such pack a sync of a file that is most often clean.
    /// - **Errors**: the store object is of no use to writers from then on, as the kernel tells of a lost write once.
    pub fn settle(&self) -> Result<(), StoreError> {
        let packs = self.packs.read();
        if packs.unsettled.is_empty() && packs.settle_failed.is_none() {
            return Ok(());
        }
        let (unsettled, failed) = (packs.unsettled.clone(), packs.settle_failed);
        drop(packs);
        let error = |id, source| StoreError::io("sync", self.pack_path(id), source);
        if let Some(id) = failed {
            // The kernel tells of a lost write once: a second sync that succeeds would prove nothing.
            return Err(error(id, io::Error::other("an earlier sync failed")));
        }
        for id in unsettled {
            let synced = self.sealed_file(id)?.sync();
            let mut packs = self.packs.write();
            packs.unsettled.retain(|pack| *pack != id);
            if let Err(source) = synced {
                packs.settle_failed = Some(id);
                return Err(error(id, source));
            }
        }
        Ok(())
    }

    pub(super) fn is_doubtful(&self, id: PackId) -> bool {
        self.packs.read().doubtful.contains(&id)
    }

    /// A pack was sealed by this process, durably.
    pub(crate) fn sealed(&self, id: PackId) {
        self.packs.write().doubtful.retain(|pack| *pack != id);
        // Opened before it leaves the other list, so that its blocks are found all the time. A failure here is found
        // again, and named, by the read that needs the pack.
        if let Ok(durable) = self.sealed_pack(id) {
            durable.is_relied_on.store(true, Ordering::Relaxed);
        }
        self.abandoned(id);
    }

    /// A pack of this process has no writer any more and nothing that is worth finding.
    pub(crate) fn abandoned(&self, id: PackId) {
        self.packs.write().open.retain(|pack| pack.id != id);
    }

    /// Packs are about to be deleted: nobody is sent there any more.
    pub(crate) fn forget_packs(&self, ids: &[PackId]) {
        let mut packs = self.packs.write();
        let gone = |id: &PackId| ids.contains(id);
        let left: Vec<_> = packs
            .sealed
            .packs
            .iter()
            .filter(|pack| !gone(&pack.id))
            .cloned()
            .collect();
        packs.sealed = Known::default();
        packs.numbers.clear();
        packs.forgotten += 1;
        packs.add(left);
        packs.files.retain(|(id, _)| !gone(id));
        packs.doubtful.retain(|id| !gone(id));
        packs.unsettled.retain(|id| !gone(id));
    }
}
