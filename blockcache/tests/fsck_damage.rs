//! Other damage than a flipped bit: files that are missing, cut, exchanged or unreadable. And anything at all: a check
//! never panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fsck_support;
mod pack_support;

use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use segvm_blockcache::{
    BlockIndex, BlockSize, ImageMark, PackId, PackWriter, Tree,
    disk::{CrashDisk, Disk, MemDisk, Open},
    fsck::{Depth, Options, Severity, What, check},
};

use fsck_support::{
    DEAD, DEPTHS, OLD, OPEN, Small, block, bytes_of, flip, mark, open, pack_path, root, seeds,
    small, writer,
};
use pack_support::{Twin, put};

#[test]
fn a_missing_pack_is_named_by_what_needs_it() {
    for depth in DEPTHS {
        let small = small();
        small.disk.remove(&pack_path(OLD)).unwrap();
        let report = small.check(depth);
        let absent = |finding: &&segvm_blockcache::fsck::Finding| {
            matches!(
                finding.what,
                What::AbsentNode { .. } | What::AbsentBlock { .. }
            )
        };
        // The first tree's head; of the second tree the second leaf, and in its own leaf block 0.
        let absent: Vec<_> = report.findings.iter().filter(absent).collect();
        assert_eq!(absent.len(), 3, "{absent:?}");
        assert!(absent.iter().all(|found| found.severity == Severity::Harm));
        let map = report
            .findings
            .iter()
            .find(|found| matches!(found.what, What::FalseMap { .. }));
        // The tree cannot be read, so nothing can be said of its map.
        assert!(map.is_none());
    }
}

#[test]
fn a_missing_pack_that_is_marked_is_named_by_its_image() {
    let small = small();
    small.disk.remove(&pack_path(OPEN)).unwrap();
    let report = small.check(Depth::Structure);
    let missing = report
        .findings
        .iter()
        .find(|found| matches!(found.what, What::Mark { .. }))
        .unwrap();
    assert_eq!(missing.path.as_deref(), Some(&*pack_path(OPEN)));
    assert_eq!(missing.touches, [0, 1]);
}

#[test]
fn what_is_in_an_unsealed_pack_serves_the_image_that_marks_it_alone() {
    let mut small = small();
    let mut branch = small.roots[1].clone();
    branch.image = "b".into();
    small.roots.push(branch);
    let report = small.check(Depth::Structure);
    assert!(
        matches!(
            &report.findings[..],
            [one] if matches!(one.what, What::NotShared { pack: OPEN })
                && one.touches == [3]
                && one.severity == Severity::Harm
        ),
        "{report:?}"
    );
    let mut mark = small.marks[0].clone();
    mark.image = "b".into();
    small.marks.push(mark);
    assert!(small.check(Depth::Structure).findings.is_empty());
}

#[test]
fn a_mark_where_no_batch_ends_is_named() {
    for (len, wrong) in [(8192, false), (8192 + 4096, true), (77, true)] {
        let mut small = small();
        let right = small.marks[0].clone();
        small.marks.push(ImageMark {
            image: "b".into(),
            mark: mark(OPEN, len),
        });
        assert_eq!(right.image, "a".into());
        let report = small.check(Depth::Structure);
        assert_eq!(!report.findings.is_empty(), wrong, "{len}");
        for finding in &report.findings {
            assert!(matches!(&finding.what, What::Mark { image, .. } if **image == *"b"));
        }
    }
    let mut small = small();
    small.marks.push(ImageMark {
        image: "b".into(),
        mark: mark(OLD, 1 << 30),
    });
    let report = small.check(Depth::Structure);
    assert!(matches!(report.findings[..], [ref one] if matches!(one.what, What::Mark { .. })));
}

#[test]
fn a_pack_that_is_cut_short_is_found_wherever_it_is_cut() {
    for pack in [OLD, OPEN] {
        let whole = small();
        let bytes = bytes_of(&*whole.disk, &pack_path(pack));
        let end = match pack {
            OPEN => usize::try_from(whole.marks[0].mark.len).unwrap(),
            _ => bytes.len(),
        };
        for cut in (0..end).step_by(509) {
            for depth in DEPTHS {
                let small = small();
                let file = small.disk.open(&pack_path(pack), Open::Write).unwrap();
                file.set_len(cut as u64).unwrap();
                let report = small.check(depth);
                assert!(
                    report.worst() >= Some(Severity::Mendable),
                    "{pack} at {cut}"
                );
            }
        }
    }
}

#[test]
fn bytes_behind_a_sealed_pack_are_told() {
    let small = small();
    let len = bytes_of(&*small.disk, &pack_path(OLD)).len() as u64;
    let file = small.disk.open(&pack_path(OLD), Open::Write).unwrap();
    file.write_at(len, b"more").unwrap();
    let report = small.check(Depth::Structure);
    assert_eq!(report.worst(), Some(Severity::Unreached));
    assert!(matches!(
        report.findings[0].what,
        What::Length { wanted, .. } if wanted == len
    ));
}

/// A writer leaves up to 2 MiB before a long run: more than is read at once.
#[test]
fn a_long_gap_is_read_to_its_end() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = open(&disk);
    let mut one = writer(&store, OLD);
    put(&mut one, 12, &seeds(&[1]), &mut Twin::default()).unwrap();
    one.align(BlockSize::MIN, 0, PackWriter::LONG_RUN).unwrap();
    put(&mut one, 12, &seeds(&[2]), &mut Twin::default()).unwrap();
    let behind = one.locate(&block(2)).unwrap().offset;
    assert_eq!(behind, 2 << 20);
    one.seal().unwrap();
    let small = Small {
        disk: disk.clone(),
        roots: vec![],
        marks: vec![],
        garbage: vec![],
    };
    let sound = small.check(Depth::Deep);
    assert!(sound.findings.is_empty(), "{sound:?}");
    for at in [20_000, 1 << 20, (2 << 20) - 1] {
        flip(&*disk, &pack_path(OLD), at, 1);
        let report = small.check(Depth::Deep);
        assert!(
            matches!(
                &report.findings[..],
                [one] if matches!(one.what, What::Gap { len: 1, .. }) && one.offset == at as u64
            ),
            "{report:?}"
        );
        flip(&*disk, &pack_path(OLD), at, 1);
    }
}

#[test]
fn a_pack_under_another_name_is_not_taken_for_it() {
    let small = small();
    let bytes = bytes_of(&*small.disk, &pack_path(OPEN));
    let file = small.disk.open(&pack_path(OLD), Open::Write).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, &bytes).unwrap();
    let report = small.check(Depth::Deep);
    // Not sealed and not marked: nobody's. What it held is missed.
    assert!(report.unmarked.contains(&OLD));
    assert_eq!(report.worst(), Some(Severity::Harm));
}

#[test]
fn files_that_are_none_of_the_stores_are_listed() {
    let small = small();
    let tree = small.roots[0].tree;
    for name in [
        "packs/readme".to_owned(),
        "packs/1.pack".to_owned(),
        "packs/00000000000000AB.pack".to_owned(),
        format!("extents/{tree}.77"),
        "extents/x.ext".to_owned(),
    ] {
        let path = Path::new("/store").join(name);
        small.disk.open(&path, Open::Create).unwrap();
    }
    let report = small.check(Depth::Deep);
    assert_eq!(report.strays.len(), 5);
    assert!(report.findings.is_empty());
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_checked() {
    let disk = CrashDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = open(&shared);
    let mut one = writer(&store, OLD);
    put(&mut one, 12, &seeds(&[1, 2, 3]), &mut Twin::default()).unwrap();
    let mut tree = Tree::new(BlockSize::MIN, 3 * 4096).unwrap();
    for (index, seed) in [(0, 1), (1, 2), (2, 3)] {
        tree.set(&*store, BlockIndex(index), Some(block(seed)))
            .unwrap();
    }
    let id = tree.seal(&mut one).unwrap();
    one.seal().unwrap();
    let small = Small {
        disk: shared.clone(),
        roots: vec![root("a", 1, id, 3 * 4096)],
        marks: vec![],
        garbage: vec![],
    };
    assert!(small.check(Depth::Deep).findings.is_empty());
    let place = store.locate(&block(2)).unwrap().unwrap();
    let len = bytes_of(&*shared, &pack_path(OLD)).len() as u64;
    disk.fail_reads(&pack_path(OLD), place.offset..place.offset + 1)
        .unwrap();
    flip(
        &*shared,
        &pack_path(OLD),
        usize::try_from(place.offset).unwrap() + 4096,
        1,
    );
    assert!(small.check(Depth::Structure).findings.is_empty());
    let report = small.check(Depth::Deep);
    assert!(
        matches!(
            &report.findings[..],
            [first, second] if matches!(first.what, What::Unreadable { .. })
                && matches!(second.what, What::Block { .. })
        ),
        "{report:?}"
    );
    // And everything else that a check reads.
    for at in (0..len).step_by(512) {
        let disk = disk.crash();
        disk.fail_reads(&pack_path(OLD), at..at + 1).unwrap();
        let small = Small {
            disk: Arc::new(disk),
            roots: small.roots.clone(),
            marks: vec![],
            garbage: vec![],
        };
        let _no_panic = small.check(Depth::Deep);
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(usize, usize, u8),
    Cut(usize, usize),
    Noise(usize, usize, Vec<u8>),
    Remove(usize),
    Copy(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let file = 0..4_usize;
    prop_oneof![
        4 => (file.clone(), any::<usize>(), 1_u8..).prop_map(|(file, at, bits)| Harm::Flip(file, at, bits)),
        1 => (file.clone(), any::<usize>()).prop_map(|(file, at)| Harm::Cut(file, at)),
        2 => (file.clone(), any::<usize>(), prop::collection::vec(any::<u8>(), 1..5000))
            .prop_map(|(file, at, bytes)| Harm::Noise(file, at, bytes)),
        1 => file.clone().prop_map(Harm::Remove),
        1 => (file.clone(), file).prop_map(|(from, to)| Harm::Copy(from, to)),
    ]
}

/// Mends the checksum of a page, so that what is behind it is looked at.
fn sum(disk: &dyn Disk, path: &Path, page: u64) {
    let Ok(file) = disk.open(path, Open::Write) else {
        return;
    };
    let mut sector = [0; 512];
    if file.read_at(page, &mut sector).is_ok() {
        let crc = crc32c::crc32c(&sector[..508]);
        file.write_at(page + 508, &crc.to_le_bytes()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_check_never_panics_and_always_ends(harms in prop::collection::vec(harm(), 1..6), mend in any::<bool>(), len in any::<u64>()) {
        let mut small = small();
        let map = Path::new("/store/extents").join(format!("{}.ext", small.roots[0].tree));
        let files = [pack_path(OLD), pack_path(OPEN), pack_path(DEAD), map];
        for harm in &harms {
            match harm {
                Harm::Flip(file, at, bits) => {
                    if small.disk.exists(&files[*file]).unwrap() {
                        // Most often where something is said.
                        let len = bytes_of(&*small.disk, &files[*file]).len();
                        if len > 0 {
                            let at = match at % 3 { 0 => at / 3 % len, at => (at - 1) * 4096 + at / 3 % 512 };
                            if at < len { flip(&*small.disk, &files[*file], at, *bits); }
                        }
                    }
                }
                Harm::Cut(file, at) => {
                    if let Ok(file) = small.disk.open(&files[*file], Open::Write) {
                        file.set_len((at % 40_000) as u64).unwrap();
                    }
                }
                Harm::Noise(file, at, bytes) => {
                    if let Ok(file) = small.disk.open(&files[*file], Open::Write) {
                        file.write_at((at % 40_000) as u64, bytes).unwrap();
                    }
                }
                Harm::Remove(file) => drop(small.disk.remove(&files[*file])),
                Harm::Copy(from, to) => {
                    if small.disk.exists(&files[*from]).unwrap() {
                        let bytes = bytes_of(&*small.disk, &files[*from]);
                        let file = small.disk.open(&files[*to], Open::Create).unwrap();
                        file.set_len(0).unwrap();
                        file.write_at(0, &bytes).unwrap();
                    }
                }
            }
        }
        if mend {
            for file in &files[..3] {
                for page in [0, 4096, 8192] {
                    sum(&*small.disk, file, page);
                }
            }
        }
        small.marks.push(ImageMark { image: "b".into(), mark: mark(PackId(len % 4), len % 80_000) });
        small.marks.push(ImageMark { image: "b".into(), mark: mark(OLD, len) });
        for depth in DEPTHS {
            for finding in small.check(depth).findings {
                prop_assert!(!finding.to_string().is_empty());
                prop_assert!(finding.touches.is_sorted());
            }
        }
    }
}

#[test]
fn a_check_on_many_threads_says_the_same() {
    let small = small();
    flip(&*small.disk, &pack_path(OLD), 8192 + 4096 + 5, 1);
    let with = |threads: usize| {
        let options = Options {
            depth: Depth::Deep,
            threads: threads.try_into().unwrap(),
        };
        let store = open(&small.disk);
        let report = check(&store, &small.roots, &small.marks, options, &mut |_| {}).unwrap();
        format!("{report:?}")
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(7));
}
