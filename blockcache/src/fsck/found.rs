//! What a walk through the batches of a pack met, and what of it is handed on to be hashed.

use std::ops::Range;

use super::{
    batches::{Batches, Step},
    deep::Cutter,
};
use crate::pack::{
    format::{Batch, Entry, Flaw, Kind, PAGE_LEN, Seal, len64},
    index::Index,
    sealed::{Bytes, index_of, no_index},
    walk::WalkError,
};

/// What a walk through the batches met.
#[derive(Default)]
pub(super) struct Found {
    pub(super) ends: Vec<u64>,
    /// Range, what is wrong, and whether it is with the header.
    pub(super) bad: Vec<(Range<u64>, WalkError, bool)>,
    pub(super) overlaps: Vec<u64>,
    pub(super) blocks: u64,
    pub(super) nodes: u64,
    /// Entries that the index has at the very same place.
    same: u64,
    /// Entries that the index does not have at all.
    missing: u64,
}

impl Found {
    pub(super) fn batch(&mut self, entries: &[Entry], index: Option<&Index<Bytes>>) {
        for entry in entries {
            let Some(kind) = entry.kind() else { continue };
            match kind {
                Kind::Block => self.blocks += 1,
                Kind::Node => self.nodes += 1,
            }
            match index.map(|index| index.find(kind, entry.id())) {
                None => {}
                Some(Ok(Some(found))) => self.same += u64::from(found == *entry),
                Some(Ok(None) | Err(_)) => self.missing += 1,
            }
        }
    }

    /// What is wrong between the directories and seal or index. No position of the index is met twice, so that as
    /// many meetings as it has entries means that it has no others.
    pub(super) fn against(
        &self,
        seal: &Seal,
        index: &Index<Bytes>,
        complete: bool,
        batches: u64,
    ) -> Option<Flaw> {
        if self.missing > 0 {
            return Some("it lacks what a directory has");
        }
        if complete && self.same != len64(index.len()) {
            return Some("it has what no directory has");
        }
        (complete && batches != seal.batches).then_some("the seal counts other batches")
    }
}

/// Hands the blocks and nodes of a batch on; `false` where some of them overlap.
pub(super) fn cut(cutter: &mut Cutter<'_>, batch: &Batch, entries: &[Entry]) -> bool {
    let mut apart = cutter.piece(batch.offset..batch.offset + PAGE_LEN, None);
    for entry in entries {
        apart &= cutter.piece(entry.offset()..entry.end(), Some(*entry));
    }
    let directory = batch.directory();
    let directory_end = directory + len64(size_of_val(entries));
    apart &= cutter.piece(directory..directory_end, None);
    cutter.zeros_to(batch.end());
    apart
}

/// Hands on what the index knows of batches that do not say what is in them.
pub(super) fn cut_bad_ranges(cutter: &mut Cutter<'_>, found: &Found, index: &Index<Bytes>) {
    let mut lost: Vec<Entry> = Vec::new();
    if !found.bad.is_empty() {
        let within = |entry: &&Entry| {
            let mut bad = found.bad.iter();
            bad.any(|(range, ..)| range.contains(&entry.offset()))
        };
        for first in 0..=255 {
            if let Ok((_, entries)) = index.bucket(first) {
                lost.extend(entries.iter().filter(within));
            }
        }
    }
    cutter.send();
    lost.sort_unstable_by_key(Entry::offset);
    for entry in lost {
        cutter.again_from(entry.offset());
        cutter.piece(entry.offset()..entry.end(), Some(entry));
    }
}

/// An index of what the batches say that are whole.
pub(super) fn gather(batches: &Batches<'_>, end: u64) -> Index<Bytes> {
    let mut all = Vec::new();
    batches.walk(&mut |step| {
        if let Step::Good(_, entries) = step {
            all.extend(entries);
        }
    });
    // Fails beyond 2^32 entries only: then nothing of the pack is known.
    index_of(&all, end).unwrap_or_else(|_too_many| no_index())
}
