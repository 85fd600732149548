//! Bringing a segment's content back: mapped where it lies in few pieces, read in where it does not.

use std::sync::Arc;

use segvm_blockcache::{Extent, Layout, Store, Tree};
use segvm_home::{RangeAttribute, SegmentRecord};
use segvm_os::{PageRange, push_run};

use super::{
    error::OpenError,
    plan::{Loose, Plan},
};
use crate::{
    dirty::{Tracker, WINDOW},
    region::table::Entry,
    segment::{
        Fingerprint,
        ranges::Owner,
        state::{Shared, State as SegmentState},
    },
    world::World,
};

/// Attaches a segment as a commit recorded it.
///
/// - **Cost**: one mmap a run; the content is read when it is touched.
pub(crate) fn attach(
    world: &World,
    store: &Arc<Store>,
    owner: &Owner,
    record: &SegmentRecord,
    plan: Plan,
    tracker: Tracker,
) -> Result<SegmentState, OpenError> {
    let page = world.kernel.page_size();
    let reservation = usize::try_from(record.base)
        .ok()
        .zip(usize::try_from(record.reserved).ok())
        .and_then(|(base, len)| PageRange::new(page, base, len))
        .filter(|_| record.len <= record.reserved && record.block_size.bytes() >= page.bytes())
        .ok_or_else(|| OpenError::BadRecord {
            segment: record.name.clone(),
        })?;
    let shared = Arc::new(Shared::new(
        Arc::clone(&world.kernel),
        tracker.watch(),
        record.name.clone(),
        record.kind,
        record.block_size,
        Fingerprint::from_bytes(record.fingerprint),
        reservation,
    ));
    let tree = empty_tree(record)?;
    world.ranges.claim(&*world.kernel, reservation, owner)?;
    let mut segment = SegmentState {
        shared,
        tracker,
        tree,
        layout: Layout::new(record.block_size),
        collected_len: 0,
        pending: Vec::new(),
        ahead: Vec::new(),
        collected: Vec::new(),
        undo: Vec::new(),
    };
    let shown = show(world, store, &mut segment, record, plan);
    if shown.is_err() {
        // SAFETY: the range was claimed above, and nobody else knows of it.
        let _stays_reserved = unsafe { world.kernel.fence(reservation) };
        world.ranges.retire(reservation);
    }
    shown.map(|()| segment)
}

fn empty_tree(record: &SegmentRecord) -> Result<Tree, OpenError> {
    let tree = Tree::new(record.block_size, 0);
    tree.map_err(|source| OpenError::Tree {
        segment: record.name.clone(),
        source,
    })
}

/// Makes the segment's memory what the record says, forgetting what it was.
pub(crate) fn show(
    world: &World,
    store: &Arc<Store>,
    segment: &mut SegmentState,
    record: &SegmentRecord,
    plan: Plan,
) -> Result<(), OpenError> {
    let len = usize::try_from(record.len).map_err(|_too_long| OpenError::BadRecord {
        segment: record.name.clone(),
    })?;
    let shared = Arc::clone(&segment.shared);
    // SAFETY: the reservation is this session's; nobody uses it: at open nobody knows of it yet, at restore the gate
    // is closed to everybody.
    unsafe { segment.tracker.reset() }?;
    // SAFETY: as above.
    unsafe { world.kernel.fence(shared.reservation) }?;
    if len > 0 {
        // SAFETY: as above; the range was fenced, so nothing in it is needed.
        unsafe { shared.commit(shared.part(0, len)) }?;
    }
    let Plan {
        tree,
        layout,
        gathered,
        pieces,
        loose,
    } = plan;
    let regions = regions(&shared, record, &layout)?;
    for region in &regions {
        shared.seclude(region)?;
    }
    shared.regions.set(regions);
    shared.set_len(len);
    segment.tracker.set_pieces(pieces);
    for extent in layout.runs() {
        for (extent, how) in split(&layout, extent, &gathered) {
            match how {
                Show::Map => map(world, store, &shared, &extent)?,
                Show::Read => {}
            }
        }
    }
    segment.tree = tree;
    segment.layout = layout;
    for &window in &gathered {
        read_in(world, store, segment, window)?;
    }
    segment.collected_len = record.len;
    segment.pending.clear();
    segment.settle();
    let mut block = vec![0; shared.block_size.bytes()];
    for Loose { index, id, place } in loose {
        store.read_best(&id, place, &mut block)?;
        let range = shared.block(index);
        // SAFETY: the block is committed memory of this segment (a tree has none beyond its length) that nobody else uses yet.
        unsafe { world.kernel.fill(range.start(), &block) }?;
        push_run(&mut segment.pending, range);
    }
    Ok(())
}

/// The regions that a record speaks of. A block of theirs that has content contradicts it: nothing is ever mapped there.
fn regions(
    shared: &Shared,
    record: &SegmentRecord,
    layout: &Layout,
) -> Result<Vec<Arc<Entry>>, OpenError> {
    let size = shared.block_size;
    let unit = size.bytes() as u64;
    let overlaps = |start: u64, end: u64| {
        layout.runs().any(|run| {
            let first = size.offset(run.first);
            first < end && start < first + run.blocks * unit
        })
    };
    let region = |range: &RangeAttribute| {
        let end = range.start.checked_add(range.len)?;
        let whole = range.start.is_multiple_of(unit) && range.len.is_multiple_of(unit);
        let fits = whole && end <= record.len && !overlaps(range.start, end);
        let offset = usize::try_from(range.start).ok().filter(|_| fits)?;
        let len = usize::try_from(range.len).ok()?;
        Some(Arc::new(Entry::new(shared.part(offset, len), range.kind)))
    };
    let all: Option<Vec<_>> = record.ranges.iter().map(region).collect();
    all.ok_or_else(|| OpenError::BadRecord {
        segment: record.name.clone(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Map,
    Read,
}

/// Cuts a run where gathered windows begin and end.
fn split(layout: &Layout, extent: Extent, gathered: &[u64]) -> Vec<(Extent, Show)> {
    if gathered.is_empty() {
        return vec![(extent, Show::Map)];
    }
    let size = layout.block_size();
    let per_window = (WINDOW / size.bytes()).max(1) as u64;
    let mut pieces: Vec<(Extent, Show)> = Vec::new();
    let mut at = extent.first.0;
    let end = extent.first.0 + extent.blocks;
    while at < end {
        let window = at / per_window * per_window;
        let next = (window + per_window).min(end);
        let offset = size.offset(segvm_blockcache::BlockIndex(window));
        let how = if gathered.binary_search(&offset).is_ok() {
            Show::Read
        } else {
            Show::Map
        };
        match pieces.last_mut() {
            Some((last, same)) if *same == how => last.blocks += next - at,
            _ => pieces.push((
                Extent {
                    first: segvm_blockcache::BlockIndex(at),
                    blocks: next - at,
                    pack: extent.pack,
                    offset: extent.offset + (at - extent.first.0) * size.bytes() as u64,
                },
                how,
            )),
        }
        at = next;
    }
    pieces
}

fn map(world: &World, store: &Store, shared: &Shared, extent: &Extent) -> Result<(), OpenError> {
    let file = store.sealed_file(extent.pack)?;
    let offset = usize::try_from(shared.block_size.offset(extent.first)).unwrap_or(usize::MAX);
    let len = usize::try_from(extent.blocks)
        .unwrap_or(usize::MAX)
        .saturating_mul(shared.block_size.bytes());
    let range = shared.part(offset, len).intersect(shared.committed());
    let Some(range) = range.filter(|range| range.len() == len) else {
        return Err(OpenError::BadRecord {
            segment: shared.name.clone(),
        });
    };
    // SAFETY: the range is this session's and unused so far; a sealed pack never changes or shrinks (invariant 2).
    unsafe {
        world
            .kernel
            .map_file(range, file.as_mappable(), extent.offset)
    }?;
    Ok(())
}

/// Reads one window's blocks into anonymous memory, checks their hashes, and takes them for clean.
fn read_in(
    world: &World,
    store: &Store,
    segment: &mut SegmentState,
    window: u64,
) -> Result<(), OpenError> {
    let shared = Arc::clone(&segment.shared);
    let size = shared.block_size;
    let first = size.index(window);
    let mut block = vec![0; size.bytes()];
    for n in 0..(WINDOW / size.bytes()).max(1) as u64 {
        let index = first.plus(n);
        let Some(place) = segment.layout.get(index) else {
            continue;
        };
        let id = segment
            .tree
            .get(store, index)
            .map_err(|source| OpenError::Tree {
                segment: shared.name.clone(),
                source,
            })?;
        let Some(id) = id else {
            return Err(OpenError::BadRecord {
                segment: shared.name.clone(),
            });
        };
        store.read_best(&id, place, &mut block)?;
        // SAFETY: the block is committed memory of this segment that nobody else uses yet.
        unsafe { world.kernel.fill(shared.block(index).start(), &block) }?;
    }
    let window = usize::try_from(window).unwrap_or(usize::MAX);
    if let Some(range) = shared.part(window, WINDOW).intersect(shared.committed()) {
        // SAFETY: the range is committed, and nobody else uses it yet.
        unsafe { segment.tracker.adopt_clean(range) }?;
    }
    Ok(())
}
