//! What all images need: every commit of every log, every tag, and the marks of the newest records; or nothing is known.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use segvm_blockcache::{
    BlockSize, Marks, PackId, PackMark, TreeId,
    disk::{CrashDisk, Disk, MemDisk, Open},
};
use segvm_home::{
    Commit, DirHome, Holder, ImageName, Ref, Roots, RootsError, SegmentKind, SegmentRecord,
    Timestamp,
};

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        host: "box".into(),
        program: "test".into(),
        since: Timestamp::default(),
    }
}

fn home<D: Disk + Clone + 'static>(disk: &D) -> DirHome {
    DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"))
}

/// A commit with two segments, whose trees are `n` and `n` + 100.
fn commit(n: u8) -> Commit {
    let segment = |name: &str, tree: u8| SegmentRecord {
        name: name.into(),
        tree: TreeId::from_bytes([tree; 32]),
        len: u64::from(n) << 20,
        block_size: BlockSize::DEFAULT,
        base: 1 << 44,
        reserved: 1 << 36,
        kind: SegmentKind::Raw,
        fingerprint: [0; 32],
        ranges: Vec::new(),
    };
    let mut second = segment("second", n + 100);
    second.base += 1 << 36;
    Commit {
        generation: n.into(),
        page_size_log2: 12,
        pointer_width: 8,
        segments: vec![segment("first", n), second],
        ..Commit::default()
    }
}

fn mark(pack: u64) -> PackMark {
    PackMark {
        pack: PackId(pack),
        len: 1 << 20,
    }
}

fn add(home: &DirHome, image: &str, commits: &[u8], pack: u64) {
    let mut lease = home.acquire(&name(image), holder()).unwrap();
    for n in commits {
        let mut marks = Marks::default();
        assert!(marks.set(mark(pack + u64::from(*n))));
        lease.publish(&commit(*n), &marks.encode()).unwrap();
    }
}

fn trees(roots: &Roots) -> BTreeSet<(String, u8)> {
    let trees = roots.trees.iter();
    trees
        .map(|root| (root.image.to_string(), root.tree.as_bytes()[0]))
        .collect()
}

#[test]
fn every_commit_and_every_tag_is_a_root_and_the_newest_record_marks() {
    let disk = MemDisk::new();
    let home = home(&disk);
    add(&home, "a", &[1, 2], 10);
    add(&home, "b", &[3], 20);
    // The tag outlives the log that it was found in: of another image, which is removed.
    let mut branch = commit(4);
    branch.parents = vec![
        home.image(&name("b"))
            .unwrap()
            .unwrap()
            .head
            .unwrap()
            .commit_id,
    ];
    branch.attributes = [("branched-from".to_owned(), b"b".to_vec())].into();
    let mut lease = home.acquire(&name("c"), holder()).unwrap();
    lease.publish(&branch, &[]).unwrap();
    drop(lease);
    let at: Ref = "-1".parse().unwrap();
    home.tag(&name("c"), &name("kept"), &at, Timestamp::default())
        .unwrap();
    let all = Roots::of(&home).unwrap();
    let wanted = |list: &[(&str, u8)]| -> BTreeSet<(String, u8)> {
        let both = |(image, n): &(&str, u8)| [*n, n + 100].map(|n| ((*image).to_owned(), n));
        list.iter().flat_map(both).collect()
    };
    assert_eq!(
        trees(&all),
        wanted(&[("a", 1), ("a", 2), ("b", 3), ("c", 3), ("c", 4)])
    );
    assert_eq!((all.images, all.commits), (3, 5));
    let marks: Vec<_> = all
        .marks
        .iter()
        .map(|mark| (&*mark.image, mark.mark.pack.0))
        .collect();
    assert_eq!(marks, [("a", 12), ("b", 23)]);
    assert!(
        all.trees
            .iter()
            .all(|root| root.len == u64::from(root.tree.as_bytes()[0] % 100) << 20)
    );

    home.remove(&name("b"), &holder()).unwrap();
    let left = Roots::of(&home).unwrap();
    assert_eq!(
        trees(&left),
        wanted(&[("a", 1), ("a", 2), ("c", 3), ("c", 4)])
    );
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_less() {
    let disk = MemDisk::new();
    let store = home(&disk);
    add(&store, "a", &[1, 2], 10);
    let at: Ref = "-0".parse().unwrap();
    store
        .tag(&name("a"), &name("t"), &at, Timestamp::default())
        .unwrap();
    for (file, offset) in [("log", 20), ("tags/t", 60)] {
        let path = PathBuf::from("/store/images/a").join(file);
        let file = disk.open(&path, Open::Write).unwrap();
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        file.write_at(offset, &[!byte[0]]).unwrap();
        let error = Roots::of(&store).unwrap_err();
        assert!(matches!(error, RootsError::Home(_)), "{error}");
        file.write_at(offset, &byte).unwrap();
    }
    Roots::of(&store).unwrap();
    let mut lease = store.acquire(&name("b"), holder()).unwrap();
    lease.publish(&commit(3), b"no marks").unwrap();
    let error = Roots::of(&store).unwrap_err();
    assert!(matches!(error, RootsError::Marks { image, .. } if image == name("b")));
}

/// Killed in the middle of a removal, of which a collection then knows; and then the power goes.
#[test]
fn an_image_that_is_no_root_any_more_does_not_come_back() {
    let mut gone = 0;
    for at in 0.. {
        let mut died = false;
        for seed in 0..20 {
            let disk = CrashDisk::new(at * 100 + seed);
            let store = home(&disk);
            add(&store, "a", &[1, 2], 10);
            disk.power_off_at(disk.operations() + at);
            died = store.remove(&name("a"), &holder()).is_err();
            disk.power_off_at(u64::MAX);
            let roots = Roots::of(&store).unwrap();
            let after = Roots::of(&home(&disk.crash())).unwrap();
            if roots.commits == 0 {
                gone += u32::from(died);
                assert_eq!(after.commits, 0, "killed at {at}, seed {seed}");
            } else {
                assert_eq!(after.commits, 2, "killed at {at}, seed {seed}");
            }
        }
        if !died {
            break;
        }
    }
    assert!(gone > 0);
}
