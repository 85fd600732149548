//! Copies what is needed out of packs that are mostly dead, and syncs it, before anything is deleted.

use std::sync::Arc;

use super::{
    GcError, Progress,
    inventory::Inventory,
    mark::Marked,
    plan::{Fate, Plan, entries},
};
use crate::{
    id::{BlockId, NodeId, PackId},
    pack::{
        PackError, PackWriter, WriterOptions,
        format::{Entry, Kind},
    },
    store::{
        Store,
        catalog::{Catalog, Spot},
    },
    tree::{NodeSink, NodeWriteError},
    unit::BlockSize,
};

/// A new pack is sealed when it is so long: as long as a large session's, and far from what memory holds of it.
const PACK: u64 = 4 << 30;

/// Writes again what the plan says, and answers with the packs that have it: sealed, and durable.
///
/// What was put in order of the segment lies in the order of offsets, and is put in it again: runs stay runs. A pack in
/// which a copy turns out to be damaged stays, and the plan is changed to say so.
pub(super) fn rewrite(
    store: &Arc<Store>,
    inventory: &Inventory,
    marked: &Marked,
    plan: &mut Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<PackId>, GcError> {
    let mut made = Vec::new();
    let mut writer = store.writer(WriterOptions::default());
    let catalog = &inventory.catalog;
    let bytes = |number: usize| marked.copies.get(number).map_or(0, |copies| copies.bytes);
    let again = |number: &usize| plan.fate(*number) == Fate::Rewrite;
    let again: Vec<usize> = (0..inventory.packs.len()).filter(again).collect();
    let total = again.iter().map(|number| bytes(*number)).sum();
    let mut done = 0;
    for number in again {
        let mut copied = |bytes| {
            done += bytes;
            progress(Progress::Rewriting { done, total });
        };
        match copy(catalog, marked, number, &mut writer, &mut copied) {
            Ok(true) => {}
            Ok(false) => plan.keep(number),
            Err(error) => {
                let unfinished = writer.pack();
                drop(writer);
                return Err(give_up(store, unfinished, error));
            }
        }
        if writer.bytes_written() >= PACK {
            made.extend(seal(store, writer)?);
            writer = store.writer(WriterOptions::default());
        }
    }
    made.extend(seal(store, writer)?);
    Ok(made)
}

fn seal(store: &Store, writer: PackWriter) -> Result<Option<PackId>, GcError> {
    let unfinished = writer.pack();
    writer
        .seal()
        .map_err(|error| give_up(store, unfinished, error))
}

/// Takes away a pack whose write or sync failed. Its seal may be seen and yet be lost with the power, and no record
/// marks it: a later collection must not rely on it.
fn give_up(store: &Store, unfinished: Option<PackId>, error: PackError) -> GcError {
    if let Some(pack) = unfinished {
        store.forget_packs(&[pack]);
        let _best_effort = store.disk().remove(&store.pack_path(pack));
    }
    GcError::Rewrite(error)
}

/// Copies what is needed of one pack; `false` where some of it is damaged.
fn copy(
    catalog: &Catalog,
    marked: &Marked,
    number: usize,
    writer: &mut PackWriter,
    copied: &mut dyn FnMut(u64),
) -> Result<bool, PackError> {
    let Some(pack) = catalog.pack(number) else {
        return Ok(false);
    };
    let needed = entries(pack).filter(|(position, _)| marked.has(number, *position));
    let mut needed: Vec<(usize, Entry)> = needed.map(|(at, entry)| (at, *entry)).collect();
    needed.sort_unstable_by_key(|(_, entry)| entry.offset());
    let mut whole = true;
    for (position, entry) in needed {
        let spot = Spot {
            pack: number,
            position,
            entry,
        };
        whole &= match entry.kind() {
            Some(Kind::Block) => copy_block(catalog, &spot, writer)?,
            Some(Kind::Node) => copy_node(catalog, &spot, writer)?,
            None => false,
        };
        copied(u64::from(entry.stored()));
    }
    Ok(whole)
}

fn copy_block(catalog: &Catalog, spot: &Spot, writer: &mut PackWriter) -> Result<bool, PackError> {
    let id = BlockId::from_bytes(*spot.entry.id());
    let Some(size) = BlockSize::new(spot.entry.stored() as usize) else {
        return Ok(false);
    };
    let room = writer.room(size, 1)?;
    let read = catalog.read(spot.pack, spot.entry.offset(), room);
    let good = read.is_ok() && BlockId::of(room) == id;
    writer.keep(&[good.then_some(id)])?;
    Ok(good)
}

fn copy_node(catalog: &Catalog, spot: &Spot, writer: &mut PackWriter) -> Result<bool, PackError> {
    let id = NodeId::from_bytes(*spot.entry.id());
    let Ok(Some(bytes)) = catalog.read_node(id, spot) else {
        return Ok(false);
    };
    writer.put_node(id, &bytes).map_err(pack_error)?;
    Ok(true)
}

/// What a pack writer says when it is asked as a sink.
fn pack_error(error: NodeWriteError) -> PackError {
    match error.source.downcast::<PackError>() {
        Ok(error) => *error,
        Err(other) => PackError::Io {
            op: "put a node",
            path: std::path::PathBuf::new(),
            offset: 0,
            source: std::io::Error::other(other),
        },
    }
}
