//! Which packs stay, which go, and which are written again.

use std::collections::HashSet;

use super::{
    Options, Removed, Report, Why,
    inventory::{Inventory, Known, Map},
    mark::{Copies, Marked},
};
use crate::{
    id::PackId,
    pack::format::{Entry, Kind, PAGE_LEN, len64},
    store::catalog::{Catalog, Held, Spot},
};

/// Header, seal, batch header, and what directory, nodes and index lack of whole pages.
const PER_PACK: u64 = 6 * PAGE_LEN;
/// A line in the directory, and one in the index.
const PER_COPY: u64 = 2 * 48;

/// What becomes of a pack in which something can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Goes,
    /// It goes when what is needed of it is elsewhere.
    Rewrite,
}

/// The fates of all packs.
pub(super) struct Plan {
    /// By pack number.
    pub(super) fates: Vec<Fate>,
}

impl Plan {
    pub(super) fn make(inventory: &Inventory, marked: &Marked, options: Options) -> Self {
        let fates = inventory
            .packs
            .iter()
            .zip(&marked.copies)
            .map(|(pack, needed)| fate(pack, *needed, options));
        let mut plan = Self {
            fates: fates.collect(),
        };
        plan.settle(inventory, marked);
        plan
    }

    /// Keeps every pack that has the only good copy of something, until there is no other: each one that stays may be
    /// one that others relied on.
    pub(super) fn settle(&mut self, inventory: &Inventory, marked: &Marked) {
        let mut changed = true;
        while changed {
            changed = false;
            for number in 0..self.fates.len() {
                if self.fate(number) != Fate::Stays
                    && !self.copies_are_good(inventory, marked, number)
                {
                    self.keep(number);
                    changed = true;
                }
            }
        }
    }

    pub(super) fn fate(&self, number: usize) -> Fate {
        self.fates.get(number).copied().unwrap_or(Fate::Stays)
    }

    pub(super) fn keep(&mut self, number: usize) {
        if let Some(fate) = self.fates.get_mut(number) {
            *fate = Fate::Stays;
        }
    }

    /// Reads, of what is needed and lies in this pack too, the copies that are to be kept instead.
    ///
    /// A copy that is itself to be written again is checked then, and its pack stays if it is damaged.
    fn copies_are_good(&self, inventory: &Inventory, marked: &Marked, number: usize) -> bool {
        let catalog = &inventory.catalog;
        let Some(pack) = catalog.pack(number) else {
            return false;
        };
        entries(pack).all(|(position, entry)| {
            let Some(kind) = entry.kind() else {
                return false;
            };
            if marked.has(number, position) {
                // Written again, or the plan does not let the pack go.
                return true;
            }
            let mut copies = catalog.find(kind, entry.id()).into_iter();
            let chosen = copies.find(|spot| marked.has(spot.pack, spot.position));
            chosen.is_none_or(|spot| {
                self.fate(spot.pack) == Fate::Rewrite || is_good(catalog, kind, &spot)
            })
        })
    }

    /// The packs that go.
    pub(super) fn doomed(&self, inventory: &Inventory) -> HashSet<PackId> {
        let packs = inventory.packs.iter().zip(&self.fates);
        let held = packs.filter(|(_, fate)| **fate != Fate::Stays);
        let orphans = inventory.orphans.iter().map(|(id, _)| *id);
        held.map(|(pack, _)| pack.id).chain(orphans).collect()
    }

    pub(super) fn report(
        &self,
        inventory: &Inventory,
        marked: &Marked,
        made: Vec<PackId>,
    ) -> Report {
        let mut report = Report {
            damaged: inventory.damaged.iter().map(|(id, _)| *id).collect(),
            blocks: marked.blocks,
            nodes: marked.nodes,
            made,
            drafts: len64(inventory.drafts.len()),
            ..Report::default()
        };
        for (id, bytes) in &inventory.orphans {
            report.removed.push(Removed {
                pack: *id,
                bytes: *bytes,
                why: Why::Orphan,
            });
        }
        for (number, pack) in inventory.packs.iter().enumerate() {
            let why = match self.fate(number) {
                Fate::Stays => {
                    report.kept += 1;
                    report.kept_bytes += pack.len;
                    continue;
                }
                Fate::Goes => Why::Unneeded,
                Fate::Rewrite => {
                    report.rewritten += marked.copies.get(number).map_or(0, |copies| copies.bytes);
                    Why::Rewritten
                }
            };
            report.removed.push(Removed {
                pack: pack.id,
                bytes: pack.len,
                why,
            });
        }
        for (_, bytes) in &inventory.damaged {
            report.kept += 1;
            report.kept_bytes += bytes;
        }
        let doomed = self.doomed(inventory);
        let goes = |map: &&Map| map_goes(map, &doomed);
        report.maps = len64(inventory.maps.iter().filter(goes).count());
        report.removed.sort_unstable_by_key(|removed| removed.pack);
        report
    }
}

/// Whether a map has to go before the packs do.
pub(super) fn map_goes(map: &Map, doomed: &HashSet<PackId>) -> bool {
    map.tree.is_none() || !map.packs.is_disjoint(doomed)
}

fn fate(pack: &Known, needed: Copies, options: Options) -> Fate {
    if pack.marked {
        return Fate::Stays;
    }
    if needed.count == 0 && !pack.mapped {
        return Fate::Goes;
    }
    // What a pack of the copies alone would have: so that a short pack that is all needed is not written again and
    // again for the sake of its own headers.
    let alone = needed.bytes + needed.count * PER_COPY + PER_PACK;
    let percent = u128::from(alone) * 100;
    if percent < u128::from(pack.len) * u128::from(options.rewrite_below_percent) {
        return Fate::Rewrite;
    }
    Fate::Stays
}

/// The entries of a pack with their positions in its index.
pub(super) fn entries(pack: &Held) -> impl Iterator<Item = (usize, &Entry)> {
    (0..=255).flat_map(|first| {
        let (from, entries) = pack.index.bucket(first).unwrap_or((0, &[]));
        (from..).zip(entries)
    })
}

/// Reads a copy and checks its hash.
pub(super) fn is_good(catalog: &Catalog, kind: Kind, spot: &Spot) -> bool {
    use crate::id::{BlockId, NodeId};
    match kind {
        Kind::Node => {
            let id = NodeId::from_bytes(*spot.entry.id());
            matches!(catalog.read_node(id, spot), Ok(Some(_)))
        }
        Kind::Block => {
            let mut bytes = vec![0; spot.entry.stored() as usize];
            let read = catalog.read(spot.pack, spot.entry.offset(), &mut bytes);
            read.is_ok() && BlockId::of(&bytes).as_bytes() == spot.entry.id()
        }
    }
}
