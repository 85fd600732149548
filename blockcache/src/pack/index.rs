//! The index of a sealed pack: its entries sorted by id, with a fan-out over the first byte of the id.
//!
//! ```text
//!   256 x (end, crc) | entries, sorted | zeros up to the page
//! ```
//!
//! Opening costs nothing: the fan-out's checksum stands in the seal page, and each bucket is checked when it is
//! first looked into.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

use super::format::{Bucket, ENTRY, Entry, FANOUT_LEN, Flaw, Kind, PAGE};
/// The bytes of an index, and the checksum of its fan-out table.
pub(crate) struct Built {
    /// A whole number of pages.
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: u64,
    pub(crate) fanout_crc: u32,
}

/// Sorts entries into an index. Of entries that name the same thing the first one put is kept.
pub(crate) fn build(entries: &[Entry]) -> Built {
    // Sorting short keys moves a third of the bytes: 65,536 entries take 2 ms instead of 6.
    let mut order: Vec<(u64, u32)> = (0_u32..)
        .zip(entries)
        .map(|(at, entry)| (prefix(entry.id()), at))
        .collect();
    let entry = |at: u32| entries.get(at as usize);
    order.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| {
            let (a, b) = (entry(a.1).map(Entry::order), entry(b.1).map(Entry::order));
            a.cmp(&b)
        })
    });

    let mut bytes = Vec::with_capacity((FANOUT_LEN + order.len() * ENTRY).next_multiple_of(PAGE));
    bytes.resize(FANOUT_LEN, 0);
    let mut fanout = [Bucket::default(); 256];
    let mut count = 0_u32;
    let mut last: Option<&Entry> = None;
    let mut bucket_from = FANOUT_LEN;
    let mut sorted = order.iter().filter_map(|&(_, at)| entry(at)).peekable();
    for (first, bucket) in (0_u8..=255).zip(&mut fanout) {
        while let Some(next) = sorted.next_if(|entry| entry.id().first() == Some(&first)) {
            let twice = last.is_some_and(|last| {
                last.order().0 == next.order().0 && last.order().1 == next.order().1
            });
            if !twice {
                bytes.extend_from_slice(next.as_bytes());
                count += 1;
            }
            last = Some(next);
        }
        bucket.end = count.into();
        bucket.crc = crc32c::crc32c(bytes.split_at(bucket_from).1).into();
        bucket_from = bytes.len();
    }
    let table = bytes.split_at_mut(FANOUT_LEN).0;
    table.copy_from_slice(fanout.as_bytes());
    let fanout_crc = crc32c::crc32c(table);
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    Built {
        bytes,
        entries: u64::from(count),
        fanout_crc,
    }
}

fn prefix(id: &[u8; 32]) -> u64 {
    id.first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}

const SHORT: Flaw = "the index is cut short";
const BEHIND: Flaw = "an entry of the index points behind the batches";

/// An index being looked into.
pub(crate) struct Index<B> {
    /// The fan-out table, whose checksum held, and then `entries` entries.
    bytes: B,
    /// Which buckets' checksums held. Relaxed: a thread that does not see a bit checks again.
    checked: [AtomicU64; 4],
    /// No entry points behind this.
    batches_end: u64,
    entries: usize,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Takes the bytes of an index, from its fan-out table on.
    pub(crate) fn open(
        bytes: B,
        entries: u64,
        fanout_crc: u32,
        batches_end: u64,
    ) -> Result<Self, Flaw> {
        let all = bytes.as_ref();
        let (table, rest) = all.split_at_checked(FANOUT_LEN).ok_or(SHORT)?;
        if crc32c::crc32c(table) != fanout_crc {
            return Err("the checksum of the index's fan-out table does not match");
        }
        let buckets =
            <[Bucket]>::ref_from_bytes(table).map_err(|_cast| "the fan-out is cut short")?;
        let ends = buckets.iter().map(|bucket| u64::from(bucket.end.get()));
        if !ends.is_sorted()
            || buckets.last().map(|last| u64::from(last.end.get())) != Some(entries)
        {
            return Err("the index's fan-out table contradicts itself");
        }
        let room = rest.len() / ENTRY;
        if u64::try_from(room).is_ok_and(|room| room < entries) {
            return Err(SHORT);
        }
        Ok(Self {
            bytes,
            checked: Default::default(),
            batches_end,
            entries: usize::try_from(entries).map_err(|_wide| SHORT)?,
        })
    }

    /// An index without entries; `table` is a fan-out table of zeros.
    pub(crate) fn of_nothing(table: B) -> Self {
        Self {
            bytes: table,
            checked: Default::default(),
            batches_end: 0,
            entries: 0,
        }
    }

    /// Where the batches end that this is the index of.
    pub(crate) fn batches_end(&self) -> u64 {
        self.batches_end
    }

    /// Finds the entry of a block or node.
    ///
    /// - **Cost**: one binary search in 1/256 of the entries; the first time in a bucket, its checksum.
    pub(crate) fn find(&self, kind: Kind, id: &[u8; 32]) -> Result<Option<Entry>, Flaw> {
        Ok(self.find_at(kind, id)?.map(|(_, entry)| entry))
    }

    /// The same, with the entry's position in the index.
    pub(crate) fn find_at(
        &self,
        kind: Kind,
        id: &[u8; 32],
    ) -> Result<Option<(usize, Entry)>, Flaw> {
        let [first, ..] = *id;
        let (from, entries) = self.bucket(first)?;
        let start = entries.partition_point(|entry| entry.id() < id);
        let same = entries
            .iter()
            .enumerate()
            .skip(start)
            .take_while(|(_, entry)| entry.id() == id);
        let Some((at, found)) = same.into_iter().find(|(_, entry)| entry.is(kind, id)) else {
            return Ok(None);
        };
        found.check()?;
        if found.end() > self.batches_end {
            return Err(BEHIND);
        }
        Ok(Some((from + at, *found)))
    }

    /// The entries whose ids begin with `first`, their checksum checked, and the position of the first of them.
    pub(crate) fn bucket(&self, first: u8) -> Result<(usize, &[Entry]), Flaw> {
        let (table, rest) = self.bytes.as_ref().split_at(FANOUT_LEN);
        let buckets = <[Bucket]>::ref_from_bytes(table).map_err(|_cast| SHORT)?;
        let bucket = buckets.get(usize::from(first)).ok_or(SHORT)?;
        let before = usize::from(first)
            .checked_sub(1)
            .and_then(|at| buckets.get(at));
        let from = before.map_or(0, |before| before.end.get()) as usize;
        let bytes = rest
            .get(from * ENTRY..bucket.end.get() as usize * ENTRY)
            .ok_or(SHORT)?;

        let (word, bit) = (usize::from(first >> 6), 1_u64 << (first & 63));
        let word = self.checked.get(word).ok_or(SHORT)?;
        if word.load(Ordering::Relaxed) & bit == 0 {
            if crc32c::crc32c(bytes) != bucket.crc.get() {
                return Err("the checksum of a part of the index does not match");
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }

        let entries = <[Entry]>::ref_from_bytes(bytes).map_err(|_cast| SHORT)?;
        Ok((from, entries))
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// Checks everything that [`find`](Self::find) checks of the entries it meets, of all of them.
    pub(crate) fn check_all(&self) -> Result<(), Flaw> {
        let mut last: Option<(&[u8; 32], u8)> = None;
        for first in 0..=255 {
            for entry in self.bucket(first)?.1 {
                entry.check()?;
                if entry.end() > self.batches_end {
                    return Err(BEHIND);
                }
                let (id, kind, _) = entry.order();
                if id.first() != Some(&first) || last.is_some_and(|last| last >= (id, kind)) {
                    return Err("the entries of the index are not in order");
                }
                last = Some((id, kind));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BlockId, BlockSize, NodeId};

    fn entry(id: [u8; 32], node: bool, at: usize) -> Entry {
        let offset = (at as u64 + 3) << 12;
        if node {
            Entry::node(NodeId::from_bytes(id), 100, offset)
        } else {
            Entry::block(BlockId::from_bytes(id), BlockSize::MIN, offset)
        }
    }

    proptest! {
        #[test]
        fn finds_each_entry_and_no_other(ids in prop::collection::vec((any::<u16>(), any::<bool>()), 0..200)) {
            let id = |seed: u16| { let mut id = [7; 32]; id[..2].copy_from_slice(&(seed % 1000).to_le_bytes()); id };
            let entries: Vec<_> = ids.iter().enumerate().map(|(at, (seed, node))| entry(id(*seed), *node, at)).collect();
            let built = build(&entries);
            let index = Index::open(&built.bytes[..], built.entries, built.fanout_crc, 1 << 40).unwrap();
            for seed in 0..1000 {
                for kind in [Kind::Block, Kind::Node] {
                    let twin = entries.iter().find(|entry| entry.is(kind, &id(seed)));
                    prop_assert_eq!(index.find(kind, &id(seed)).unwrap(), twin.copied());
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found_where_it_matters() {
        let ids: Vec<[u8; 32]> = (0..=255).map(|n| [n; 32]).collect();
        let entries: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(at, id)| entry(*id, false, at))
            .collect();
        let built = build(&entries);
        for at in 0..FANOUT_LEN + entries.len() * ENTRY {
            let mut bytes = built.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let index = Index::open(bytes, built.entries, built.fanout_crc, 1 << 40);
            if at < FANOUT_LEN {
                assert!(index.is_err(), "byte {at} of the fan-out");
            } else {
                let hit = (at - FANOUT_LEN) / ENTRY;
                assert!(
                    index.unwrap().find(Kind::Block, &ids[hit]).is_err(),
                    "byte {at}"
                );
            }
        }
    }
}
