//! Before anything is mapped: where the content lies, in how many pieces, and which windows are read in instead because there
//! would be too many.
//!
//! A *piece* is what takes one map: a run of a pack, or what lies between two runs, which is anonymous memory. What is read in is
//! anonymous too.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use segvm_blockcache::{
    BlockId, BlockIndex, Layout, PackId, Place, Store, StoreError, Tree, TreeError,
};
use segvm_home::SegmentRecord;

use super::error::OpenError;
use crate::dirty::{MOST_PIECES, WINDOW};

/// What a segment's memory is going to be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) tree: Tree,
    pub(super) layout: Layout,
    /// The windows to read in, as byte offsets, ascending.
    pub(super) gathered: Vec<u64>,
    /// How many maps that makes.
    pub(super) pieces: usize,
    /// Blocks of packs that are only read along: read in, and stored again by the next checkpoint.
    pub(super) loose: Vec<Loose>,
}

/// A block that lies where it cannot be mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loose {
    pub(super) index: BlockIndex,
    pub(super) id: BlockId,
    pub(super) place: Place,
}

/// Looks up where the segments' blocks lie, and divides the maps of a session among them.
///
/// - **Cost**: one read of an extent map for each; O(runs).
pub(crate) fn plan(store: &Store, records: &[&SegmentRecord]) -> Result<Vec<Plan>, OpenError> {
    let mut plans = Vec::with_capacity(records.len());
    let along = store.packs_along();
    for record in records {
        let in_tree = |source| OpenError::Tree {
            segment: record.name.clone(),
            source,
        };
        let mut tree = Tree::open(store, record.tree).map_err(in_tree)?;
        let mut layout = layout(store, record)?;
        let mut loose = Vec::new();
        if !along.is_empty() {
            tree = loosen(store, &along, &tree, &mut layout, &mut loose).map_err(in_tree)?;
        }
        let pieces = 1 + cuts(&layout, record.len).count();
        plans.push(Plan {
            tree,
            layout,
            gathered: Vec::new(),
            pieces,
            loose,
        });
    }
    let wanted: Vec<usize> = plans.iter().map(|plan| plan.pieces).collect();
    for ((plan, record), most) in plans.iter_mut().zip(records).zip(share(&wanted)) {
        if plan.pieces > most {
            let mut cuts = Cuts::of(&plan.layout, record.len);
            cuts.gather(most);
            let (pieces, gathered) = (cuts.pieces, cuts.gathered);
            plan.pieces = pieces;
            plan.gathered = gathered.iter().map(|&n| n * WINDOW as u64).collect();
        }
    }
    Ok(plans)
}

/// Where a segment's blocks lie: as the extent map of its tree says, or as tree and packs say. A map is a cache: one that
/// names what is not there is as good as none.
fn layout(store: &Store, record: &SegmentRecord) -> Result<Layout, OpenError> {
    let mut lost = None;
    if let Some(kept) = store.load_extents(record.tree) {
        // Another session may have saved it of the same tree, in its own pack.
        if store.has_all_of(&kept) {
            return Ok(kept);
        }
        lost = missing(store, kept.packs());
    }
    let layout = store.rebuild_extents(record.tree);
    layout.map_err(|source| {
        let segment = record.name.clone();
        let error = OpenError::Layout { segment, source };
        error.with_lost(lost.map(|pack| store.pack_path(pack)))
    })
}

/// The first of some packs that is not there.
pub(super) fn missing(store: &Store, packs: impl IntoIterator<Item = PackId>) -> Option<PackId> {
    let missing =
        |pack: &PackId| matches!(store.sealed_file(*pack), Err(StoreError::Missing { .. }));
    packs.into_iter().find(missing)
}

/// Takes out of layout and tree what lies in packs that are only read along. The tree is one that was never stored: no node
/// of theirs is needed once it is.
fn loosen(
    store: &Store,
    along: &[PackId],
    stored: &Tree,
    layout: &mut Layout,
    loose: &mut Vec<Loose>,
) -> Result<Tree, TreeError> {
    let mut tree = Tree::new(stored.block_size(), stored.len())?;
    let mut failed = Ok(());
    let all = BlockIndex(0)..BlockIndex(stored.blocks());
    stored.for_each_block(store, all, |index, id| {
        match layout
            .get(index)
            .filter(|place| along.contains(&place.pack))
        {
            Some(place) => loose.push(Loose { index, id, place }),
            None => failed = tree.set(store, index, Some(id)),
        }
        match failed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    failed?;
    for block in loose {
        layout.set(block.index, None);
    }
    Ok(tree)
}

/// Who wants little gets it; the others share the rest.
fn share(wanted: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let want = |at: usize| wanted.get(at).copied().unwrap_or(0);
    order.sort_by_key(|&at| want(at));
    let (mut left, mut shares) = (MOST_PIECES, vec![0; wanted.len()]);
    for (done, &at) in order.iter().enumerate() {
        let most = want(at).min(left / (wanted.len() - done));
        left -= most;
        if let Some(share) = shares.get_mut(at) {
            *share = most;
        }
    }
    shares
}

/// The blocks that a piece begins with, but for the first one.
fn cuts(layout: &Layout, len: u64) -> impl Iterator<Item = u64> {
    let end = layout.block_size().count(len);
    let mut last = 0;
    layout
        .runs()
        .flat_map(|run| [run.first.0, run.first.0 + run.blocks])
        .filter(move |&cut| {
            let is_new = cut > last && cut < end;
            last = cut;
            is_new
        })
}

/// Where one piece ends and the next begins, by window.
#[derive(Debug)]
struct Cuts<'a> {
    layout: &'a Layout,
    /// Blocks a window.
    per_window: u64,
    /// By window: how many lie inside of it. Windows without any are left out.
    inside: BTreeMap<u64, usize>,
    /// Windows that begin with one.
    edges: BTreeSet<u64>,
    gathered: BTreeSet<u64>,
    pieces: usize,
}

impl<'a> Cuts<'a> {
    fn of(layout: &'a Layout, len: u64) -> Self {
        let size = layout.block_size();
        let per_window = (WINDOW / size.bytes()).max(1) as u64;
        let mut all = Self {
            layout,
            per_window,
            inside: BTreeMap::new(),
            edges: BTreeSet::new(),
            gathered: BTreeSet::new(),
            pieces: 1,
        };
        for cut in cuts(layout, len) {
            all.add(cut);
        }
        all
    }

    fn add(&mut self, cut: u64) {
        let window = cut / self.per_window;
        self.pieces += 1;
        if cut.is_multiple_of(self.per_window) {
            self.edges.insert(window);
        } else {
            *self.inside.entry(window).or_default() += 1;
        }
    }

    /// Reads windows in until at most `most` pieces are left: those with the most pieces first, and where that is not enough, all
    /// of the shortest runs.
    fn gather(&mut self, most: usize) {
        let mut worst: Vec<(usize, u64)> = self.inside.iter().map(|(&at, &n)| (n, at)).collect();
        // Neighbours one after the other: between two that are read in, or one and a hole, there is no cut.
        worst.sort_by_key(|&(cuts, window)| (std::cmp::Reverse(cuts), window));
        for (_, window) in worst {
            if self.pieces <= most {
                return;
            }
            self.read_in(window);
        }
        let mut runs: Vec<_> = self.layout.runs().collect();
        runs.sort_by_key(|run| (run.blocks, run.first));
        for run in runs {
            if self.pieces <= most {
                return;
            }
            let last = run.first.0 + run.blocks - 1;
            for window in run.first.0 / self.per_window..=last / self.per_window {
                self.read_in(window);
            }
        }
    }

    fn read_in(&mut self, window: u64) {
        if self.gathered.contains(&window) {
            return;
        }
        let inside = self.inside.get(&window).copied().unwrap_or(0);
        let before = inside + self.edge(window) + self.edge(window + 1);
        self.gathered.insert(window);
        let after = self.edge(window) + self.edge(window + 1);
        self.pieces = (self.pieces + after).saturating_sub(before);
    }

    /// Tells, as a number to add, whether a piece ends where this window begins.
    fn edge(&self, window: u64) -> usize {
        let first = window * self.per_window;
        let read_in = |window| self.gathered.contains(&window);
        let left = window.checked_sub(1).is_some_and(read_in);
        usize::from(match (left, read_in(window)) {
            (true, true) => false,
            (false, false) => self.edges.contains(&window),
            (true, false) => self.is_mapped(first),
            (false, true) => first > 0 && self.is_mapped(first - 1),
        })
    }

    fn is_mapped(&self, block: u64) -> bool {
        self.layout.get(BlockIndex(block)).is_some()
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]
mod tests {
    use proptest::prelude::*;
    use segvm_blockcache::{BlockSize, Codec};

    use super::*;

    #[test]
    fn small_wishes_are_met_and_the_rest_is_shared() {
        assert_eq!(share(&[10, 20]), [10, 20]);
        assert_eq!(share(&[]), [0; 0]);
        let rest = (MOST_PIECES - 10) / 2;
        assert_eq!(share(&[100_000, 10, 90_000]), [rest, 10, rest]);
        assert_eq!(share(&[5000]), [MOST_PIECES]);
    }

    /// What each block is: 0 a hole, otherwise where it lies in its pack.
    fn layout_of(size: BlockSize, blocks: &[u64]) -> Layout {
        let mut layout = Layout::new(size);
        for (at, &place) in blocks.iter().enumerate() {
            if place > 0 {
                let place = Place {
                    pack: PackId(1),
                    offset: place << size.log2(),
                    stored: u32::try_from(size.bytes()).unwrap(),
                    codec: Codec::Raw,
                };
                layout.set(BlockIndex(at as u64), Some(place));
            }
        }
        layout
    }

    /// Pieces counted block by block: a block that is read in or a hole is like its neighbour that is either.
    fn counted(blocks: &[u64], per_window: usize, gathered: &BTreeSet<u64>) -> usize {
        let shown = |at: usize| match gathered.contains(&((at / per_window) as u64)) {
            true => 0,
            false => blocks[at],
        };
        let follows = |at: usize| match (shown(at - 1), shown(at)) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (left, right) => left + 1 == right,
        };
        1 + (1..blocks.len()).filter(|&at| !follows(at)).count()
    }

    proptest! {
        #[test]
        fn pieces_are_counted_as_they_will_be_mapped(
            runs in proptest::collection::vec((0_u64..60, 1_usize..9), 1..40),
            log2 in 19_u32..22,
            most in 1_usize..30,
        ) {
            let size = BlockSize::from_log2(log2).unwrap();
            let blocks: Vec<u64> = runs
                .iter()
                .flat_map(|&(place, len)| {
                    let len = len as u64;
                    (0..len).map(move |n| if place < 10 { 0 } else { place * 100 + n })
                })
                .collect();
            let layout = layout_of(size, &blocks);
            let len = size.offset(BlockIndex(blocks.len() as u64));
            let per_window = (WINDOW / size.bytes()).max(1);
            let mut cuts = Cuts::of(&layout, len);
            prop_assert_eq!(cuts.pieces, counted(&blocks, per_window, &BTreeSet::new()));
            prop_assert_eq!(cuts.pieces, 1 + super::cuts(&layout, len).count());
            let before = cuts.pieces;
            cuts.gather(most);
            prop_assert_eq!(cuts.pieces, counted(&blocks, per_window, &cuts.gathered));
            prop_assert!(cuts.pieces <= most, "{} of {before} pieces are left", cuts.pieces);
            prop_assert!(before > most || cuts.gathered.is_empty());
        }
    }
}
