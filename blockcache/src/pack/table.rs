//! What an open pack holds, in memory: entries in the order they were put, found by id.

use super::format::{Entry, Kind};

/// Entries of one pack, with a look-up by id.
///
/// - **Cost**: 48 bytes an entry and at most 11 bytes of slots.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// Positions in `entries` plus one; 0 is free. Open addressing over the ids, which are hashes already.
    /// The length is 0 or a power of two, and at least a quarter is free.
    slots: Vec<u32>,
    /// How many entries are durable: the ones after are the open batch's, its writer's alone.
    durable: usize,
}

impl Table {
    /// The entries of the open batch.
    pub(crate) fn pending(&self) -> &[Entry] {
        self.entries.split_at(self.durable).1
    }

    /// All entries that are durable, in the order they were put.
    pub(crate) fn durable(&self) -> &[Entry] {
        self.entries.split_at(self.durable).0
    }

    /// Adds an entry to the open batch.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.entries.len() >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        self.entries.push(entry);
        self.link(self.entries.len() - 1);
    }

    /// The open batch became durable.
    pub(crate) fn publish(&mut self) {
        self.durable = self.entries.len();
        if self.entries.capacity() > self.entries.len() / 4 * 5 {
            self.entries.shrink_to(self.entries.len() / 8 * 9);
        }
    }

    /// Finds a durable entry.
    pub(crate) fn find(&self, kind: Kind, id: &[u8; 32]) -> Option<&Entry> {
        self.lookup(kind, id, self.durable)
    }

    /// Finds an entry of the open batch or before.
    pub(crate) fn find_own(&self, kind: Kind, id: &[u8; 32]) -> Option<&Entry> {
        self.lookup(kind, id, self.entries.len())
    }

    fn lookup(&self, kind: Kind, id: &[u8; 32], limit: usize) -> Option<&Entry> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash(id) & mask;
        loop {
            let position = (*self.slots.get(at)? as usize).checked_sub(1)?;
            let entry = self.entries.get(position)?;
            if position < limit && entry.is(kind, id) {
                return Some(entry);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(64);
        self.slots.clear();
        self.slots.resize(len, 0);
        for position in 0..self.entries.len() {
            self.link(position);
        }
    }

    fn link(&mut self, position: usize) {
        let Some(entry) = self.entries.get(position) else {
            return;
        };
        let mask = self.slots.len() - 1;
        let mut at = hash(entry.id()) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = u32::try_from(position + 1).unwrap_or(0);
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "any bits of the hash will do"
)]
fn hash(id: &[u8; 32]) -> usize {
    // Not the first bytes: the index's buckets go by those, and a caller may walk in their order.
    let (_, last) = id.split_last_chunk::<8>().unwrap_or((&[], &[0; 8]));
    u64::from_le_bytes(*last) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{BlockId, BlockSize, NodeId};

    proptest! {
        #[test]
        fn finds_what_a_map_finds(puts in prop::collection::vec((0_u8..40, any::<bool>(), any::<bool>()), 0..300)) {
            let mut table = Table::default();
            let (mut durable, mut own) = (HashMap::new(), HashMap::new());
            for (at, (seed, node, publish)) in puts.iter().enumerate() {
                let offset = (at as u64 + 3) << 12;
                let id = [*seed; 32];
                let (kind, entry) = if *node {
                    (Kind::Node, Entry::node(NodeId::from_bytes(id), 9, offset))
                } else {
                    (Kind::Block, Entry::block(BlockId::from_bytes(id), BlockSize::MIN, offset))
                };
                table.push(entry);
                own.entry((*node, id)).or_insert(offset);
                if *publish {
                    table.publish();
                    durable = own.clone();
                }
                for seed in 0..40 {
                    let id = [seed; 32];
                    prop_assert_eq!(table.find(kind, &id).map(Entry::offset), durable.get(&(*node, id)).copied());
                    prop_assert_eq!(table.find_own(kind, &id).map(Entry::offset), own.get(&(*node, id)).copied());
                }
            }
        }
    }
}
