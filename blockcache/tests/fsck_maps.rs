//! Extent maps of a pack that is still written: its session saves them, and may be killed then.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod fsck_support;
mod pack_support;

use std::path::PathBuf;

use fsck_support::{DEPTHS, OLD, OPEN, block, bytes_of, open, pack_path, small};
use pack_support::paint;
use segvm_blockcache::{
    BlockIndex, BlockSize, Codec, Layout, PackId, Place, TreeId, disk::Disk, fsck::Severity,
};

/// Where the bytes of a block lie in a pack.
fn place(disk: &dyn Disk, pack: PackId, seed: u64) -> Place {
    let bytes = bytes_of(disk, &pack_path(pack));
    let mut pages = bytes.chunks(4096);
    let page = pages.position(|page| page == paint(seed, 4096)).unwrap();
    Place {
        pack,
        offset: page as u64 * 4096,
        stored: 4096,
        codec: Codec::Raw,
    }
}

/// Saves the map of image `a`'s second commit with block 1 at `shown`.
fn save(disk: &std::sync::Arc<dyn Disk>, tree: TreeId, shown: Place) {
    let mut layout = Layout::new(BlockSize::MIN);
    let first = place(&**disk, OLD, 1);
    layout.set(BlockIndex(0), Some(first));
    layout.set(BlockIndex(1), Some(shown));
    layout.set(BlockIndex(69), Some(first));
    open(disk).save_extents(tree, &layout).unwrap();
}

#[test]
fn a_map_may_show_a_pack_that_is_marked() {
    let small = small();
    let tree = small.roots[1].tree;
    save(&small.disk, tree, place(&*small.disk, OPEN, 4));
    for depth in DEPTHS {
        let report = small.check(depth);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_map_may_not_show_what_lies_behind_the_mark() {
    let small = small();
    let tree = small.roots[1].tree;
    // The right bytes, in a batch that no record speaks of: whoever seals the pack cuts it off before.
    let behind = place(&*small.disk, OPEN, 5);
    assert!(behind.offset >= small.marks[0].mark.len);
    let file = small
        .disk
        .open(&pack_path(OPEN), segvm_blockcache::disk::Open::Write);
    let right = paint(4, 4096);
    file.unwrap().write_at(behind.offset, &right).unwrap();
    assert_ne!(block(4), block(5));
    save(&small.disk, tree, behind);
    for depth in DEPTHS {
        let report = small.check(depth);
        let found: Vec<_> = report.findings.iter().collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].severity, &found[0].touches[..]),
            (Severity::Harm, &[1][..])
        );
        let path = PathBuf::from(format!("/store/extents/{tree}.ext"));
        assert_eq!(found[0].path, Some(path));
        assert!(
            found[0].to_string().contains("behind the mark"),
            "{}",
            found[0]
        );
    }
}
