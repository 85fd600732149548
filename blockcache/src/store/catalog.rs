//! All packs of a store at one instant, with what each holds: what a check and a collection work on.
//!
//! Other than the store's own lists, this knows packs that are unsealed and marked, and packs that are damaged in part.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::lookup::Lookup;
use crate::{
    disk::{Disk, DiskFile, Open},
    id::{NodeId, PackId},
    pack::{
        format::{Entry, Kind, MAX_NODE, zeroed},
        index::Index,
        sealed::Bytes,
    },
};

/// How many files stay open between reads of nodes.
const FILES: usize = 64;

/// A pack, and what can be found in it.
pub(crate) struct Held {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    /// Only such a pack can be mapped.
    pub(crate) sealed: bool,
    pub(crate) index: Index<Bytes>,
}

/// Where a catalog found something.
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    /// The pack's number in the catalog.
    pub(crate) pack: usize,
    /// The entry's position in the pack's index.
    pub(crate) position: usize,
    pub(crate) entry: Entry,
}

/// Packs by number, and a look-up over all of them.
pub(crate) struct Catalog {
    disk: Arc<dyn Disk>,
    packs: Vec<Held>,
    /// `None` where there was no memory for it: then every pack is asked.
    lookup: Option<Lookup>,
    /// A leaf in the order of locks; not held while a file is opened.
    files: Mutex<HashMap<usize, Arc<dyn DiskFile>>>,
}

impl Catalog {
    /// Takes packs whose indexes were checked as a whole: a part that fails later counts as empty.
    pub(crate) fn new(disk: Arc<dyn Disk>, packs: Vec<Held>) -> Self {
        let lookup = table(&packs);
        Self {
            disk,
            packs,
            lookup,
            files: Mutex::default(),
        }
    }

    pub(crate) fn packs(&self) -> &[Held] {
        &self.packs
    }

    pub(crate) fn pack(&self, number: usize) -> Option<&Held> {
        self.packs.get(number)
    }

    /// Every pack that has a block or node, in the order of their numbers.
    pub(crate) fn find(&self, kind: Kind, id: &[u8; 32]) -> Vec<Spot> {
        let mut numbers: Vec<usize> = match &self.lookup {
            Some(lookup) => lookup.candidates(id).collect(),
            None => (0..self.packs.len()).collect(),
        };
        numbers.sort_unstable();
        numbers.dedup();
        let spot = |pack: usize| {
            let found = self.packs.get(pack)?.index.find_at(kind, id).ok()??;
            Some(Spot {
                pack,
                position: found.0,
                entry: found.1,
            })
        };
        numbers.into_iter().filter_map(spot).collect()
    }

    /// Reads bytes of a pack.
    pub(crate) fn read(&self, pack: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file(pack)?.read_at(offset, out)
    }

    /// Reads a node and answers whether its bytes are what the id names; a file that ends before it has others.
    pub(crate) fn read_node(&self, id: NodeId, spot: &Spot) -> io::Result<Option<Vec<u8>>> {
        let len = spot.entry.stored().min(MAX_NODE) as usize;
        let mut bytes = zeroed(len).ok_or(io::ErrorKind::OutOfMemory)?;
        match self.read(spot.pack, spot.entry.offset(), &mut bytes) {
            Ok(()) => Ok((NodeId::of(&bytes) == id).then_some(bytes)),
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(source),
        }
    }

    fn file(&self, pack: usize) -> io::Result<Arc<dyn DiskFile>> {
        let held = self.packs.get(pack).ok_or(io::ErrorKind::NotFound)?;
        let known = self.files.lock().get(&pack).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let file = self.disk.open(&held.path, Open::Read)?;
        let mut files = self.files.lock();
        if files.len() >= FILES {
            // Whichever they are: a walk goes through few packs at a time.
            files.clear();
        }
        files.insert(pack, file.clone());
        Ok(file)
    }
}

fn table(packs: &[Held]) -> Option<Lookup> {
    let entries = packs.iter().map(|pack| pack.index.len());
    let mut lookup = Lookup::with_room(entries.sum())?;
    for (number, pack) in packs.iter().enumerate() {
        for first in 0..=255 {
            let Ok((_, entries)) = pack.index.bucket(first) else {
                continue;
            };
            for entry in entries {
                if !lookup.insert(entry.id(), number) {
                    return None;
                }
            }
        }
    }
    Some(lookup)
}

/// The packs in a directory by id, and the names of files that are none.
pub(crate) fn list_packs(disk: &dyn Disk, dir: &Path) -> io::Result<(Vec<PackId>, Vec<String>)> {
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    for name in disk.list(dir)? {
        match name
            .strip_suffix(".pack")
            .and_then(|id| id.parse::<PackId>().ok())
        {
            // One name for one id: another spelling is somebody else's file.
            Some(id) if format!("{id}.pack") == name => ids.push(id),
            _ => others.push(name),
        }
    }
    ids.sort_unstable();
    others.sort_unstable();
    Ok((ids, others))
}
