//! Reading what a writer that may live has made durable, without touching it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod fsck_support;
mod pack_support;

use fsck_support::{OLD, OPEN, block, bytes_of, flip, mark, open, pack_path, small};
use pack_support::paint;
use std::sync::Arc;

use segvm_blockcache::{PackId, PackMark, ReadError, Store, StoreError, reachable};

/// A store, and the packs that some marks speak of, read up to there.
fn look(
    disk: &Arc<dyn segvm_blockcache::disk::Disk>,
    marks: &[PackMark],
) -> Result<Arc<Store>, StoreError> {
    let store = open(disk);
    for mark in marks {
        store.read_along(*mark)?;
    }
    Ok(store)
}

#[test]
fn a_marked_pack_is_read_up_to_its_mark_and_stays_as_it_is() {
    let small = small();
    let before = bytes_of(&*small.disk, &pack_path(OPEN));
    let marked = small.marks[0].mark;
    let view = look(
        &small.disk,
        &[marked, mark(OPEN, 0), mark(OLD, 9), mark(PackId(77), 9)],
    )
    .unwrap();
    let mut out = vec![0; 4096];
    for seed in [1, 2, 4] {
        view.read_block(&block(seed), &mut out).unwrap();
        assert_eq!(out, paint(seed, 4096));
    }
    // Behind the mark.
    let absent = view.read_block(&block(5), &mut out);
    assert!(
        matches!(absent, Err(ReadError::Absent { .. })),
        "{absent:?}"
    );
    for root in &small.roots {
        let mut blocks = 0;
        let into = |_| segvm_blockcache::Descend::Into;
        reachable(&*view, root.tree, into, |_, _| blocks += 1).unwrap();
        assert_eq!(blocks, 3);
    }
    let without = look(&small.disk, &[]).unwrap();
    let absent = without.read_block(&block(4), &mut out);
    assert!(
        matches!(absent, Err(ReadError::Absent { .. })),
        "{absent:?}"
    );
    assert!(before == bytes_of(&*small.disk, &pack_path(OPEN)));
}

#[test]
fn damage_before_the_mark_is_named() {
    let small = small();
    let marked = small.marks[0].mark;
    let bytes = bytes_of(&*small.disk, &pack_path(OPEN));
    let at = bytes
        .windows(4096)
        .position(|window| window == paint(4, 4096))
        .unwrap();
    flip(&*small.disk, &pack_path(OPEN), at + 9, 1);
    let view = look(&small.disk, &[marked]).unwrap();
    let damaged = view.read_block(&block(4), &mut vec![0; 4096]);
    assert!(
        matches!(damaged, Err(ReadError::Damaged { offset, .. }) if offset == at as u64),
        "{damaged:?}"
    );
    // The header of its first batch.
    flip(&*small.disk, &pack_path(OPEN), 2 * 4096 + 9, 1);
    let refused = look(&small.disk, &[marked]);
    assert!(
        matches!(refused, Err(StoreError::Damaged { .. })),
        "{refused:?}"
    );
}
