//! The blocks of a segment: which there are, and how much they take.

use std::ops::ControlFlow;

use segvm_blockcache::{BlockId, BlockIndex, NodeSource, Store, Tree};
use segvm_home::{ImageName, Record, SegmentRecord};

use crate::{failure::Failure, local::marks_of};

/// Visits the blocks of a segment in order; holes are not visited.
pub(super) fn each(
    source: &dyn NodeSource,
    segment: &SegmentRecord,
    mut visit: impl FnMut(BlockIndex, BlockId),
) -> Result<(), Failure> {
    each_until(source, segment, |index, id| {
        visit(index, id);
        true
    })
}

/// The same, as long as `visit` wants more.
pub(super) fn each_until(
    source: &dyn NodeSource,
    segment: &SegmentRecord,
    mut visit: impl FnMut(BlockIndex, BlockId) -> bool,
) -> Result<(), Failure> {
    let failed = |source| Failure::Tree {
        segment: segment.name.clone(),
        source,
    };
    let tree = Tree::open(source, segment.tree).map_err(failed)?;
    let all = BlockIndex(0)..BlockIndex(tree.blocks());
    tree.for_each_block(source, all, |index, id| {
        if visit(index, id) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .map_err(failed)
}

/// How many blocks of a segment are no holes.
pub(super) fn number(source: &dyn NodeSource, segment: &SegmentRecord) -> Result<u64, Failure> {
    let mut blocks = 0;
    each(source, segment, |_, _| blocks += 1)?;
    Ok(blocks)
}

/// The size of a block, as it is counted in.
pub(super) const fn size(segment: &SegmentRecord) -> u64 {
    1 << segment.block_size.log2()
}

/// Bytes of blocks of a commit that are no holes, whether or not other images have them too.
///
/// - **Cost**: one read of a file for each segment whose extent map was kept, else all its nodes.
pub(super) fn stored_of(store: &Store, image: &ImageName, record: &Record) -> Result<u64, Failure> {
    let mut stored = 0;
    for segment in &record.commit.segments {
        let blocks = match store.load_extents(segment.tree) {
            Some(layout) => layout.runs().map(|run| run.blocks).sum(),
            None => {
                for mark in marks_of(image, record)? {
                    store.read_along(mark)?;
                }
                number(store, segment)?
            }
        };
        stored += blocks * size(segment);
    }
    Ok(stored)
}
