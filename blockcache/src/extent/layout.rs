//! The layout of one segment: runs of blocks that lie one behind the other, in the segment and in a pack.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::Range,
};

use crate::{
    id::PackId,
    pack::format::{MAX_PACK, PAGE_LEN},
    unit::{BlockIndex, BlockSize, Codec, Place},
};

/// A run of a segment that lies in one piece in one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Its first block in the segment.
    pub first: BlockIndex,
    /// How many blocks it has; at least one.
    pub blocks: u64,
    /// The pack.
    pub pack: PackId,
    /// Bytes from the beginning of the pack to its first block.
    pub offset: u64,
}

/// A piece of a segment that lies in too many extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first block.
    pub first: BlockIndex,
    /// How many extents have blocks in it.
    pub extents: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    blocks: u64,
    pack: PackId,
    offset: u64,
}

/// Which run of which pack shows which run of a segment; where there is none, the segment has a hole.
///
/// Runs never overlap, and neighbours that could be one run are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: BlockSize,
    /// By first block.
    runs: BTreeMap<u64, Run>,
}

impl Layout {
    /// A segment of holes.
    #[must_use]
    pub const fn new(size: BlockSize) -> Self {
        Self {
            size,
            runs: BTreeMap::new(),
        }
    }

    /// A layout of extents that are in order, do not overlap, and could not be fewer; `None` where they are not so.
    ///
    /// - **Cost**: O(extents), 10 ns each: this is on the way to a resume.
    pub(crate) fn from_extents(
        size: BlockSize,
        extents: impl Iterator<Item = Extent>,
    ) -> Option<Self> {
        let mut runs: Vec<(u64, Run)> = Vec::with_capacity(extents.size_hint().0);
        for extent in extents {
            let (first, blocks, offset) = (extent.first.0, extent.blocks, extent.offset);
            let bytes = blocks.checked_mul(1 << size.log2())?;
            let in_pack = offset.is_multiple_of(PAGE_LEN) && offset.checked_add(bytes)? <= MAX_PACK;
            first.checked_add(blocks)?;
            let run = Run {
                blocks,
                pack: extent.pack,
                offset,
            };
            let in_order = match runs.last() {
                Some((at, last)) => {
                    let end = at + last.blocks;
                    end < first || end == first && !follows(size, last, &run)
                }
                None => true,
            };
            if blocks == 0 || !in_pack || !in_order {
                return None;
            }
            runs.push((first, run));
        }
        Some(Self {
            size,
            runs: runs.into_iter().collect(),
        })
    }

    /// The size of the segment's blocks.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.size
    }

    /// How many extents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Tells whether the segment has holes only.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Says where a block lies now; `None` makes it a hole.
    ///
    /// A place that is not raw cannot be mapped and counts as none.
    ///
    /// - **Cost**: O(log extents).
    pub fn set(&mut self, index: BlockIndex, place: Option<Place>) {
        self.set_run(index, 1, place);
    }

    /// Says where `blocks` blocks lie, one behind the other from `place` on.
    ///
    /// - **Cost**: O(log extents), and the extents it replaces.
    pub fn set_run(&mut self, first: BlockIndex, blocks: u64, place: Option<Place>) {
        let Range { start, end } = first.0..first.0.saturating_add(blocks);
        if start >= end {
            return;
        }
        let run = place
            .filter(|place| place.codec == Codec::Raw)
            .map(|place| Run {
                blocks: end - start,
                pack: place.pack,
                offset: place.offset,
            });
        if let Some(run) = run
            && self.extend_last(start, run)
        {
            return;
        }
        self.cut(start, end);
        if let Some(run) = run {
            self.insert(start, run);
        }
    }

    /// The usual case: blocks put in segment order, appended to the run before them, nothing replaced.
    fn extend_last(&mut self, start: u64, run: Run) -> bool {
        let size = self.size;
        let Some(mut last) = self.runs.last_entry() else {
            return false;
        };
        let (at, last) = (*last.key(), last.get_mut());
        let joins = at + last.blocks == start && follows(size, last, &run);
        if joins {
            last.blocks += run.blocks;
        }
        joins
    }

    /// Takes blocks `start..end` out of the runs they are in.
    fn cut(&mut self, start: u64, end: u64) {
        let size = self.size;
        if let Some((&at, run)) = self.runs.range_mut(..start).next_back()
            && at + run.blocks > start
        {
            let tail = Run {
                blocks: at + run.blocks - start,
                offset: run.offset + ((start - at) << size.log2()),
                ..*run
            };
            run.blocks = start - at;
            self.runs.insert(start, tail);
        }
        while let Some((&at, &run)) = self.runs.range(start..end).next() {
            self.runs.remove(&at);
            if at + run.blocks > end {
                let tail = Run {
                    blocks: at + run.blocks - end,
                    offset: run.offset + ((end - at) << size.log2()),
                    ..run
                };
                self.runs.insert(end, tail);
            }
        }
    }

    /// Adds a run where there is none, joining it with its neighbours.
    fn insert(&mut self, start: u64, mut run: Run) {
        let size = self.size;
        let end = start + run.blocks;
        if let Some(next) = self.runs.get(&end).copied()
            && follows(size, &run, &next)
        {
            self.runs.remove(&end);
            run.blocks += next.blocks;
        }
        if let Some((&at, before)) = self.runs.range_mut(..start).next_back()
            && at + before.blocks == start
            && follows(size, before, &run)
        {
            before.blocks += run.blocks;
        } else {
            self.runs.insert(start, run);
        }
    }

    /// Where a block lies; `None` for a hole.
    #[must_use]
    pub fn get(&self, index: BlockIndex) -> Option<Place> {
        let (&at, run) = self.runs.range(..=index.0).next_back()?;
        (index.0 - at < run.blocks).then(|| Place {
            pack: run.pack,
            offset: run.offset + ((index.0 - at) << self.size.log2()),
            stored: 1 << self.size.log2(),
            codec: Codec::Raw,
        })
    }

    /// All extents, in the segment's order.
    pub fn runs(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().map(|(&at, run)| extent(at, run))
    }

    /// The extents that have blocks in a range, cut to it.
    pub fn runs_in(&self, range: Range<BlockIndex>) -> impl Iterator<Item = Extent> {
        let Range { start, end } = range.start.0..range.end.0.max(range.start.0);
        let size = self.size;
        let before = self.runs.range(..start).next_back();
        before
            .into_iter()
            .chain(self.runs.range(start..end))
            .filter_map(move |(&at, run)| {
                let from = at.max(start);
                let to = (at + run.blocks).min(end);
                (from < to).then(|| Extent {
                    first: BlockIndex(from),
                    blocks: to - from,
                    pack: run.pack,
                    offset: run.offset + ((from - at) << size.log2()),
                })
            })
    }

    /// The packs it needs.
    #[must_use]
    pub fn packs(&self) -> BTreeSet<PackId> {
        self.runs.values().map(|run| run.pack).collect()
    }

    /// The `n` windows of `window_bytes` that lie in the most extents, worst first, if in at least `at_least` (and in
    /// at least two: one extent is as good as it gets).
    ///
    /// - **Shape**: windows begin at multiples of their length; `window_bytes` is at least a block.
    /// - **Cost**: O(extents), about 10 ns each.
    #[must_use]
    pub fn windows_worst(&self, window_bytes: u64, n: usize, at_least: u64) -> Vec<Window> {
        let per_window = (window_bytes >> self.size.log2()).max(1);
        let mut worst = BinaryHeap::new();
        let mut current = (0, 0_u64);
        let mut take = |(window, extents): (u64, u64)| {
            if extents >= at_least.max(2) {
                let first = BlockIndex(window * per_window);
                worst.push((Reverse(extents), window, first));
                if worst.len() > n {
                    worst.pop();
                }
            }
        };
        for (&at, run) in &self.runs {
            // The windows between an extent's first and last are in this extent alone.
            let (first, last) = (at / per_window, (at + run.blocks - 1) / per_window);
            if first == current.0 {
                current.1 += 1;
            } else {
                take(current);
                current = (first, 1);
            }
            if last != first {
                take(current);
                current = (last, 1);
            }
        }
        take(current);
        worst
            .into_sorted_vec()
            .into_iter()
            .map(|(Reverse(extents), _, first)| Window { first, extents })
            .collect()
    }
}

fn extent(at: u64, run: &Run) -> Extent {
    Extent {
        first: BlockIndex(at),
        blocks: run.blocks,
        pack: run.pack,
        offset: run.offset,
    }
}

/// Tells whether `next` lies right behind `run` in the same pack.
fn follows(size: BlockSize, run: &Run, next: &Run) -> bool {
    run.pack == next.pack && run.offset + (run.blocks << size.log2()) == next.offset
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: BlockSize = BlockSize::MIN;

    fn place(pack: u64, block: u64) -> Place {
        Place {
            pack: PackId(pack),
            offset: block << SIZE.log2(),
            stored: 4096,
            codec: Codec::Raw,
        }
    }

    /// The runs that one would find by walking block by block.
    fn twin_runs(twin: &BTreeMap<u64, Place>) -> Vec<Extent> {
        let mut runs: Vec<Extent> = Vec::new();
        for (&at, place) in twin {
            match runs.last_mut() {
                Some(run)
                    if run.first.0 + run.blocks == at
                        && run.pack == place.pack
                        && run.offset + run.blocks * 4096 == place.offset =>
                {
                    run.blocks += 1;
                }
                _ => runs.push(Extent {
                    first: BlockIndex(at),
                    blocks: 1,
                    pack: place.pack,
                    offset: place.offset,
                }),
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn says_what_a_map_of_blocks_says(
            ops in prop::collection::vec((0_u64..64, 1_u64..9, prop::option::of((0_u64..2, 0_u64..64))), 0..60),
            range in (0_u64..70, 0_u64..70),
        ) {
            let mut layout = Layout::new(SIZE);
            let mut twin = BTreeMap::new();
            for (first, blocks, to) in ops {
                layout.set_run(BlockIndex(first), blocks, to.map(|(pack, block)| place(pack, block)));
                for at in 0..blocks {
                    match to {
                        Some((pack, block)) => twin.insert(first + at, place(pack, block + at)),
                        None => twin.remove(&(first + at)),
                    };
                }
                let runs: Vec<_> = layout.runs().collect();
                prop_assert_eq!(&runs, &twin_runs(&twin));
                prop_assert_eq!(layout.len(), runs.len());
            }
            for at in 0..80 {
                prop_assert_eq!(layout.get(BlockIndex(at)), twin.get(&at).copied());
            }
            let within: BTreeMap<_, _> = if range.0 < range.1 {
                twin.range(range.0..range.1).map(|(&at, &place)| (at, place)).collect()
            } else {
                BTreeMap::new()
            };
            let cut: Vec<_> = layout.runs_in(BlockIndex(range.0)..BlockIndex(range.1)).collect();
            prop_assert_eq!(cut, twin_runs(&within));

            let mut counts = BTreeMap::<u64, u64>::new();
            for window in 0..20 {
                let extents = layout.runs_in(BlockIndex(window * 4)..BlockIndex(window * 4 + 4)).count();
                counts.insert(window * 4, extents as u64);
            }
            let worst = layout.windows_worst(4 * 4096, 3, 2);
            let mut expected: Vec<u64> = counts.values().copied().filter(|&n| n >= 2).collect();
            expected.sort_unstable_by_key(|&n| Reverse(n));
            expected.truncate(3);
            prop_assert_eq!(worst.iter().map(|window| window.extents).collect::<Vec<_>>(), expected);
            for window in worst {
                prop_assert_eq!(counts[&window.first.0], window.extents);
            }
        }
    }
}
