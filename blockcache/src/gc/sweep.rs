//! Deletes what the plan says, when everything that is needed is durable elsewhere.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use super::{
    Progress,
    inventory::{Inventory, Map},
    mark::Marked,
    plan::{Fate, Plan, map_goes},
};
use crate::{
    disk::Open,
    id::{PackId, TreeId},
    pack::format::len64,
    store::{Store, StoreError},
};

/// Deletes.
///
/// 1. Packs that keep what others have too are synced: whoever sealed one may have died before its sync.
/// 2. Extent maps go that nobody needs, or that show what goes: a resume that finds one maps by it without looking
///    twice.
/// 3. Their directory is synced, so that no map comes back after a power cut.
/// 4. Packs go; then their directory is synced.
/// 5. The maps of 2 that a root needs are made again. They are a cache: where that fails, the next resume does it.
pub(super) fn sweep(
    store: &Arc<Store>,
    inventory: &Inventory,
    marked: &Marked,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let doomed = plan.doomed(inventory);
    if !doomed.is_empty() {
        sync_kept(store, inventory, marked, plan)?;
    }
    let goes = |map: &&Map| map_goes(map, &doomed);
    let maps: Vec<&Map> = inventory.maps.iter().filter(goes).collect();
    for path in maps.iter().map(|map| &map.path).chain(&inventory.drafts) {
        remove(store, path)?;
    }
    if !maps.is_empty() {
        sync(store, store.extents_dir())?;
    }
    remove_packs(store, &doomed, progress)?;
    for tree in maps.iter().filter_map(|map| map.tree) {
        let _made_by_whoever_needs_it = make_map(store, tree);
    }
    Ok(())
}

fn sync_kept(
    store: &Store,
    inventory: &Inventory,
    marked: &Marked,
    plan: &Plan,
) -> Result<(), StoreError> {
    for (number, copies) in marked.copies.iter().enumerate() {
        let held = inventory.catalog.pack(number);
        let Some(held) = held.filter(|held| held.sealed && copies.count > 0) else {
            continue;
        };
        if plan.fate(number) == Fate::Stays {
            let file = store.disk().open(&held.path, Open::Read);
            file.and_then(|file| file.sync())
                .map_err(|source| StoreError::io("sync", &held.path, source))?;
        }
    }
    Ok(())
}

fn remove_packs(
    store: &Arc<Store>,
    doomed: &HashSet<PackId>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    if doomed.is_empty() {
        return Ok(());
    }
    // In the order of their ids, so that runs can be repeated.
    let mut packs: Vec<PackId> = doomed.iter().copied().collect();
    packs.sort_unstable();
    store.forget_packs(&packs);
    let total = len64(packs.len());
    for (done, pack) in (1..).zip(packs) {
        remove(store, &store.pack_path(pack))?;
        progress(Progress::Removing { done, total });
    }
    sync(store, store.packs_dir())
}

fn make_map(store: &Arc<Store>, tree: TreeId) -> Option<()> {
    let layout = store.rebuild_extents(tree).ok()?;
    store.save_extents(tree, &layout).ok()
}

fn remove(store: &Store, path: &Path) -> Result<(), StoreError> {
    match store.disk().remove(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, source))
        }
        _ => Ok(()),
    }
}

fn sync(store: &Store, directory: &Path) -> Result<(), StoreError> {
    let synced = store.disk().sync_dir(directory);
    synced.map_err(|source| StoreError::io("sync of the directory", directory, source))
}
