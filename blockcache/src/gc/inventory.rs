//! All packs and extent maps of a store, and which of them are needed whatever is in them.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

use super::Progress;
use crate::{
    disk::Open,
    id::{PackId, TreeId},
    pack::{
        format::len64,
        sealed::{SealedError, SealedPack, index_of},
        walk::walk,
    },
    root::{ImageMark, TreeRoot},
    store::{
        Store, StoreError,
        catalog::{Catalog, Held, list_packs},
    },
};

/// A pack in which something can be found.
pub(super) struct Known {
    pub(super) id: PackId,
    /// The length of its file.
    pub(super) len: u64,
    /// A record relies on it.
    pub(super) marked: bool,
    /// An extent map of a root shows it.
    pub(super) mapped: bool,
}

/// A file in the directory of extent maps.
pub(super) struct Map {
    pub(super) path: PathBuf,
    /// The root whose map it is; none where nobody needs it.
    pub(super) tree: Option<TreeId>,
    /// What it shows.
    pub(super) packs: HashSet<PackId>,
}

/// What there is.
pub(super) struct Inventory {
    /// Packs in the order in which they are wanted: of what several have, the first is to keep it.
    pub(super) catalog: Catalog,
    /// The same packs, by the same numbers.
    pub(super) packs: Vec<Known>,
    /// Packs of which nothing is needed, with their lengths: neither sealed nor marked.
    pub(super) orphans: Vec<(PackId, u64)>,
    /// Packs that cannot be read.
    pub(super) damaged: Vec<(PackId, u64)>,
    pub(super) maps: Vec<Map>,
    pub(super) drafts: Vec<PathBuf>,
}

/// What a pack turned out to be.
enum Found {
    Held(Held),
    Orphan,
    Damaged,
}

impl Inventory {
    pub(super) fn take(
        store: &Store,
        roots: &[TreeRoot],
        marks: &[ImageMark],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        let (maps, drafts) = list_maps(store, roots)?;
        let mapped: HashSet<PackId> = maps.iter().flat_map(|map| &map.packs).copied().collect();
        let mut marked: HashMap<PackId, u64> = HashMap::new();
        for mark in marks {
            let len = marked.entry(mark.mark.pack).or_default();
            *len = mark.mark.len.max(*len);
        }

        let dir = store.packs_dir();
        let (ids, _not_ours) = list_packs(&**store.disk(), dir)
            .map_err(|source| StoreError::io("list", dir, source))?;
        let (mut orphans, mut damaged) = (Vec::new(), Vec::new());
        let mut found = Vec::new();
        let total = len64(ids.len());
        for (done, id) in (1..).zip(ids) {
            let len = file_len(store, id)?;
            match look(store, id, marked.get(&id).copied()) {
                Found::Held(held) => {
                    let known = Known {
                        id,
                        len,
                        marked: marked.contains_key(&id),
                        mapped: mapped.contains(&id),
                    };
                    found.push((held, known));
                }
                Found::Orphan => orphans.push((id, len)),
                Found::Damaged => damaged.push((id, len)),
            }
            progress(Progress::Looking { done, total });
        }
        // An unsealed pack serves the image that marks it and no other, so it keeps only what nobody else has; and the
        // seal of a marked one may be seen and yet not be durable. Then what a map shows, then what is long: so that
        // short packs are the ones that go.
        found.sort_by(|(a_held, a), (b_held, b)| {
            let key =
                |held: &Held, pack: &Known| (held.sealed, !pack.marked, pack.mapped, pack.len);
            key(b_held, b).cmp(&key(a_held, a)).then(a.id.cmp(&b.id))
        });
        let (held, packs) = found.into_iter().unzip();
        Ok(Self {
            catalog: Catalog::new(store.disk().clone(), held),
            packs,
            orphans,
            damaged,
            maps,
            drafts,
        })
    }
}

fn file_len(store: &Store, id: PackId) -> Result<u64, StoreError> {
    let path = store.pack_path(id);
    let file = store.disk().open(&path, Open::Read);
    file.and_then(|file| file.len())
        .map_err(|source| StoreError::io("look at the length", path, source))
}

fn look(store: &Store, id: PackId, mark: Option<u64>) -> Found {
    let disk = &**store.disk();
    let path = store.pack_path(id);
    let held = |sealed, index| {
        Found::Held(Held {
            id,
            path: path.clone(),
            sealed,
            index,
        })
    };
    match SealedPack::open(disk, &path, id) {
        Ok((pack, file)) => match pack.whole_index(&*file) {
            Ok(index) => held(true, index),
            Err(_a_check_says_more) => Found::Damaged,
        },
        Err(SealedError::NotSealed) => {
            let Some(end) = mark else {
                return Found::Orphan;
            };
            let file = disk.open(&path, Open::Read);
            let walked = file
                .ok()
                .and_then(|file| walk(file.as_mappable(), id, end).ok());
            match walked.and_then(|walked| index_of(&walked.entries, end).ok()) {
                Some(index) => held(false, index),
                None => Found::Damaged,
            }
        }
        Err(_a_check_says_more) => Found::Damaged,
    }
}

/// Maps and drafts; what is neither is nobody's to remove.
fn list_maps(store: &Store, roots: &[TreeRoot]) -> Result<(Vec<Map>, Vec<PathBuf>), StoreError> {
    let needed: HashSet<TreeId> = roots.iter().map(|root| root.tree).collect();
    let dir = store.extents_dir();
    let mut names = match store.disk().list(dir) {
        Ok(names) => names,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(StoreError::io("list", dir, source)),
    };
    names.sort_unstable();
    let (mut maps, mut drafts) = (Vec::new(), Vec::new());
    for name in names {
        let path = dir.join(&name);
        let Some((tree, ending)) = name.split_once('.') else {
            continue;
        };
        let Ok(tree) = tree.parse::<TreeId>() else {
            continue;
        };
        if ending == "ext" {
            let layout = store.load_extents(tree).filter(|_| needed.contains(&tree));
            maps.push(Map {
                path,
                tree: layout.is_some().then_some(tree),
                packs: layout
                    .map_or_else(HashSet::new, |layout| layout.packs().into_iter().collect()),
            });
        } else if ending.parse::<u32>().is_ok() {
            drafts.push(path);
        }
    }
    Ok((maps, drafts))
}
