//! What a collection removes, what it keeps, and who keeps it out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fsck_support;
mod pack_support;

use std::{path::Path, sync::Arc};

use segvm_blockcache::{
    Alone, BlockIndex, BlockSize, Layout, NodeSource, PackId, Store, StoreError, Tree, TreeRoot,
    disk::{Disk, MemDisk, RealDisk},
    fsck::Depth,
    gc::{GcError, Mode, Options, Progress, Report, Why, collect},
};

use fsck_support::{
    DEAD, OLD, OPEN, Small, block, bytes_of, flip, open, pack_path, root, seeds, small, writer,
};
use pack_support::{Twin, paint, put};

const COLLECT: Options = Options {
    mode: Mode::Collect,
    rewrite_below_percent: 50,
};

fn gc(small: &Small, options: Options) -> Result<Report, GcError> {
    let alone = Alone::open(small.disk.clone(), Path::new("/store"))?;
    collect(&alone, &small.roots, &small.marks, options, &mut |_| ())
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<String> {
    let mut names = disk.list(dir.as_ref()).unwrap();
    names.sort();
    names
}

fn packs(small: &Small) -> Vec<PackId> {
    names(&*small.disk, "/store/packs")
        .iter()
        .map(|name| name.strip_suffix(".pack").unwrap().parse().unwrap())
        .collect()
}

fn gone(report: &Report) -> Vec<(PackId, Why)> {
    let removed = report.removed.iter();
    removed.map(|removed| (removed.pack, removed.why)).collect()
}

/// A segment with these blocks; none is a hole.
fn tree(store: &Arc<Store>, pack: PackId, put_too: &[u64], blocks: &[u64]) -> TreeRoot {
    let mut writer = writer(store, pack);
    put(&mut writer, 12, &seeds(put_too), &mut Twin::default()).unwrap();
    let len = blocks.len() as u64 * 4096;
    let mut tree = Tree::new(BlockSize::MIN, len).unwrap();
    for (index, seed) in (0..).zip(blocks) {
        tree.set(&**store, BlockIndex(index), Some(block(*seed)))
            .unwrap();
    }
    let id = tree.seal(&mut writer).unwrap();
    writer.seal().unwrap().unwrap();
    root("a", 1, id, len)
}

fn with(disk: Arc<dyn Disk>, roots: Vec<TreeRoot>) -> Small {
    Small {
        disk,
        roots,
        marks: vec![],
        garbage: vec![],
    }
}

fn memory() -> Arc<dyn Disk> {
    Arc::new(MemDisk::new())
}

/// Everything that a root needs is there and right.
fn assert_whole(small: &Small) {
    let report = small.check(Depth::Deep);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn what_is_needed_stays_and_orphans_go() {
    let small = small();
    let before = packs(&small);
    let plan = gc(&small, Options::default()).unwrap();
    assert_eq!(packs(&small), before, "a plan changes nothing");
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(done, plan);
    assert_eq!(gone(&done), [(DEAD, Why::Orphan)]);
    assert_eq!((done.blocks, done.nodes, done.kept), (3, 7, 2));
    assert_eq!(packs(&small), [OLD, OPEN]);
    assert_whole(&small);
    assert_eq!(gone(&gc(&small, COLLECT).unwrap()), []);
}

#[test]
fn what_no_root_needs_goes() {
    let mut small = small();
    // The second commit goes, and with it the mark.
    small.roots.remove(1);
    small.marks.clear();
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), [(OPEN, Why::Orphan), (DEAD, Why::Orphan)]);
    assert_whole(&small);
    small.roots.clear();
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), [(OLD, Why::Unneeded)]);
    assert_eq!(done.maps, 1);
    assert!(packs(&small).is_empty());
    assert!(names(&*small.disk, "/store/extents").is_empty());
    assert!(done.freed() > 0);
}

#[test]
fn a_marked_pack_stays_whatever_is_in_it() {
    let mut small = small();
    small.roots.clear();
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), [(OLD, Why::Unneeded), (DEAD, Why::Orphan)]);
    assert_eq!(packs(&small), [OPEN]);
}

#[test]
fn a_tree_that_cannot_be_followed_ends_the_collection() {
    let absent = |small: &Small| {
        let before = packs(small);
        let error = gc(small, COLLECT).unwrap_err();
        assert_eq!(packs(small), before, "nothing is deleted");
        error
    };
    let one = small();
    one.disk.remove(&pack_path(OLD)).unwrap();
    assert!(matches!(absent(&one), GcError::AbsentNode { .. }));

    let mut two = small();
    two.roots.remove(0);
    two.roots.remove(1);
    let bytes = bytes_of(&*two.disk, &pack_path(OPEN));
    let node = bytes.windows(4).position(|word| word == b"SEGT").unwrap();
    flip(&*two.disk, &pack_path(OPEN), node + 20, 1);
    match absent(&two) {
        GcError::Node { root, source, .. } => {
            assert_eq!(*root, two.roots[0]);
            assert!(source.is_none());
        }
        other => panic!("{other}"),
    }

    // A mark that was forgotten: what it protects is missed before it is deleted.
    let mut three = small();
    three.marks.clear();
    assert!(matches!(absent(&three), GcError::AbsentNode { .. }));
}

#[test]
fn a_damaged_pack_stays() {
    let small = with(memory(), vec![]);
    let store = open(&small.disk);
    tree(&store, OLD, &[1, 2], &[1, 2]);
    drop(store);
    flip(&*small.disk, &pack_path(OLD), 4096 + 24, 1);
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!((done.damaged, done.removed.len()), (vec![OLD], 0));
    assert_eq!(packs(&small), [OLD]);
    // A damaged index is none: the directories have everything.
    flip(&*small.disk, &pack_path(OLD), 4096 + 24, 1);
    let end = bytes_of(&*small.disk, &pack_path(OLD)).len();
    flip(&*small.disk, &pack_path(OLD), end - 4000, 1);
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), [(OLD, Why::Unneeded)]);
}

#[test]
fn a_pack_that_is_mostly_dead_is_written_again() {
    let disk = memory();
    let store = open(&disk);
    let all: Vec<u64> = (0..40).collect();
    let first = tree(&store, OLD, &all, &all);
    let few = tree(&store, OPEN, &[], &[30, 3, 4, 5]);
    let mut layout = Layout::new(BlockSize::MIN);
    for (index, seed) in [(0, 30), (1, 3), (2, 4), (3, 5)] {
        layout.set(BlockIndex(index), store.locate(&block(seed)).unwrap());
    }
    store.save_extents(few.tree, &layout).unwrap();
    drop(store);

    // As long as the first tree is needed nothing happens.
    let mut small = with(disk, vec![first, few]);
    assert_eq!(gone(&gc(&small, COLLECT).unwrap()), []);
    small.roots.remove(0);
    let plan = gc(&small, Options::default()).unwrap();
    let none = Options {
        rewrite_below_percent: 0,
        ..COLLECT
    };
    assert_eq!(gone(&gc(&small, none).unwrap()), []);
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), [(OLD, Why::Rewritten)]);
    assert_eq!((&plan.removed, plan.maps), (&done.removed, 1));
    assert_eq!((done.blocks, done.rewritten), (4, 4 * 4096));
    assert_eq!(done.made.len(), 1);
    assert_whole(&small);

    // The map was made again and shows the new pack, in the order of the old one.
    let store = open(&small.disk);
    let layout = store.load_extents(small.roots[0].tree).unwrap();
    assert_eq!(layout.packs().into_iter().collect::<Vec<_>>(), done.made);
    assert_eq!(layout.len(), 2, "3, 4 and 5 are still one run");
    let mut bytes = vec![0; 4096];
    store.read_block(&block(30), &mut bytes).unwrap();
    assert_eq!(bytes, paint(30, 4096));
    drop(store);
    assert_eq!(gone(&gc(&small, COLLECT).unwrap()), [], "once is enough");
}

/// An image must not be left with what only another image's mark makes readable.
#[test]
fn a_pack_that_is_not_sealed_keeps_nothing_for_others() {
    let disk = memory();
    let store = open(&disk);
    let mut blocks = writer(&store, OLD);
    put(&mut blocks, 12, &seeds(&[1, 2]), &mut Twin::default()).unwrap();
    blocks.seal().unwrap();
    let needed = tree(&store, DEAD, &[], &[1, 2]);
    let mut other = writer(&store, OPEN);
    let more: Vec<u64> = (1..20).collect();
    put(&mut other, 12, &seeds(&more), &mut Twin::default()).unwrap();
    let mark = other.sync().unwrap().unwrap();
    drop(other);
    drop(store);
    let mut small = with(disk, vec![needed]);
    small.marks.push(segvm_blockcache::ImageMark {
        image: "b".into(),
        mark,
    });
    assert_eq!(gone(&gc(&small, COLLECT).unwrap()), []);
    assert_whole(&small);
}

/// Blocks 1 to 8 lie in both packs. The longer one is to keep them; if its copy is bad, the other one stays too.
#[test]
fn the_last_good_copy_stays() {
    for (damaged, expect) in [(false, vec![OLD]), (true, vec![])] {
        let disk = memory();
        let store = open(&disk);
        let all: Vec<u64> = (1..9).collect();
        tree(&store, OLD, &all, &all);
        let mut more = all.clone();
        more.extend(20..30);
        let needed = tree(&store, OPEN, &more, &all);
        drop(store);
        if damaged {
            let bytes = bytes_of(&*disk, &pack_path(OPEN));
            let at = bytes
                .windows(4096)
                .position(|window| window == paint(5, 4096))
                .unwrap();
            flip(&*disk, &pack_path(OPEN), at + 9, 1);
        }
        let small = with(disk, vec![needed]);
        let done = gc(&small, COLLECT).unwrap();
        let went: Vec<PackId> = done.removed.iter().map(|removed| removed.pack).collect();
        assert_eq!(went, expect, "damaged: {damaged}");
        let bad = small.check(Depth::Deep).findings.len();
        assert_eq!(bad, usize::from(damaged));
    }
}

/// The same where the copy to keep is one that is to be written again: found when it is read for that.
#[test]
fn the_last_good_copy_stays_beside_a_rewrite() {
    let disk = memory();
    let store = open(&disk);
    tree(&store, OLD, &[1, 2], &[1, 2]);
    let mut more = vec![1, 2];
    more.extend(100..160);
    let needed = tree(&store, OPEN, &more, &[1, 2]);
    drop(store);
    let bytes = bytes_of(&*disk, &pack_path(OPEN));
    let at = bytes
        .windows(4096)
        .position(|window| window == paint(2, 4096))
        .unwrap();
    flip(&*disk, &pack_path(OPEN), at, 1);
    let small = with(disk, vec![needed.clone()]);
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!(gone(&done), []);
    let report = small.check(Depth::Deep);
    let worst = report.worst();
    assert_eq!(worst, Some(segvm_blockcache::fsck::Severity::Mendable));
    assert!(open(&small.disk).node(needed.tree.into()).is_ok());
}

#[test]
fn maps_and_drafts_that_nobody_needs_go() {
    let small = small();
    let store = open(&small.disk);
    let tree = small.roots[1].tree;
    let stale = segvm_blockcache::TreeId::from_bytes([9; 32]);
    store
        .save_extents(stale, &Layout::new(BlockSize::MIN))
        .unwrap();
    drop(store);
    for name in [
        format!("{tree}.77"),
        format!("{tree}.ext.bak"),
        "mine".to_owned(),
    ] {
        let path = Path::new("/store/extents").join(name);
        small
            .disk
            .open(&path, segvm_blockcache::disk::Open::Create)
            .unwrap();
    }
    let done = gc(&small, COLLECT).unwrap();
    assert_eq!((done.maps, done.drafts), (1, 1));
    let mut left = names(&*small.disk, "/store/extents");
    left.retain(|name| *name != format!("{}.ext", small.roots[0].tree));
    let mut expect = [format!("{tree}.ext.bak"), "mine".to_owned()];
    expect.sort();
    assert_eq!(left, expect);
    assert_whole(&small);
}

#[test]
fn whoever_has_a_store_open_keeps_a_collection_out() {
    let dir = tempfile::tempdir().unwrap();
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    for (disk, root) in [(memory(), Path::new("/store")), (real, dir.path())] {
        let one = Store::open(disk.clone(), root.to_owned()).unwrap();
        let two = Store::open(disk.clone(), root.to_owned()).unwrap();
        drop(one);
        match Alone::open(disk.clone(), root) {
            Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(two);
        let alone = Alone::open(disk.clone(), root).unwrap();
        match Store::open(disk.clone(), root.to_owned()) {
            Err(StoreError::Closed { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        assert!(Alone::open(disk.clone(), root).is_err());
        // A writer of the store that is had alone keeps it so.
        let kept = alone.store().clone();
        drop(alone);
        assert!(Store::open(disk.clone(), root.to_owned()).is_err());
        drop(kept);
        Store::open(disk, root.to_owned()).unwrap();
    }
}

#[test]
fn progress_counts_what_there_is_and_what_is_done() {
    let disk = memory();
    let store = open(&disk);
    let needed: Vec<u64> = (0..4).collect();
    let with_dead: Vec<u64> = (0..40).collect();
    let mostly_dead = tree(&store, PackId(5), &with_dead, &needed);
    tree(&store, PackId(6), &[100], &[100]);
    drop(store);
    let small = with(disk, vec![mostly_dead]);
    let alone = Alone::open(small.disk.clone(), Path::new("/store")).unwrap();
    let options = Options {
        mode: Mode::Collect,
        ..Options::default()
    };
    let mut told = Vec::new();
    let report = collect(&alone, &small.roots, &[], options, &mut |at| told.push(at)).unwrap();
    let rewritten = report.rewritten;
    assert!(rewritten > 4 * 4096, "{report:?}");
    let (mut expected, mut again) = (Vec::new(), Vec::new());
    for done in 1..=2 {
        expected.push(Progress::Looking { done, total: 2 });
    }
    expected.push(Progress::Marking { done: 1, total: 1 });
    for at in told.iter().copied() {
        if let Progress::Rewriting { done, total } = at {
            assert_eq!(total, rewritten);
            again.push(done);
        } else if !expected.contains(&at) {
            expected.push(at);
        }
    }
    // Four blocks, and a node and a head.
    assert!(
        again.is_sorted() && again.len() == 6 && again.last() == Some(&rewritten),
        "{again:?}"
    );
    for done in 1..=2 {
        assert!(
            told.contains(&Progress::Removing { done, total: 2 }),
            "{told:?}"
        );
    }
    let first = &told[..3];
    assert_eq!(first, &expected[..3]);
}
