//! One bit of every byte of a store is flipped, one at a time: the deep check finds it, and says whom it touches.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod fsck_support;
mod pack_support;

use std::path::Path;

use segvm_blockcache::{
    PackId, Store,
    fsck::{Depth, Finding, Severity, What},
};

use fsck_support::{DEAD, OLD, OPEN, Small, block, bytes_of, flip, open, pack_path, small};

const PAGE: usize = 4096;

/// What docs/format.md says of a byte of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    PackHeader,
    Seal,
    BatchHeader,
    Directory,
    Index,
    Reached,
    Garbage,
    Gap,
    Rubble,
}

/// Says what each byte of the file is, from the format's own words: nothing here is the code's that is tested.
fn parts(bytes: &[u8], end: usize, sealed: bool, garbage: &[Vec<u8>]) -> Vec<Part> {
    let number = |at: usize| {
        let field: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(field)).unwrap()
    };
    let behind = if sealed { Part::Index } else { Part::Rubble };
    let mut parts = vec![behind; bytes.len()];
    parts[..end].fill(Part::Gap);
    parts[..PAGE].fill(Part::PackHeader);
    parts[PAGE..2 * PAGE].fill(Part::Seal);
    let mut at = 2 * PAGE;
    while at < end {
        parts[at..at + PAGE].fill(Part::BatchHeader);
        let (directory, entries) = (number(at + 64), number(at + 72));
        parts[directory..directory + entries * 48].fill(Part::Directory);
        for entry in (directory..).step_by(48).take(entries) {
            let offset = number(entry + 32);
            let stored = u32::from_le_bytes(bytes[entry + 40..entry + 44].try_into().unwrap());
            let range = offset..offset + stored as usize;
            let dead = garbage.iter().any(|block| *block == bytes[range.clone()]);
            parts[range].fill(if dead { Part::Garbage } else { Part::Reached });
        }
        at += number(at + 40);
    }
    parts
}

fn found<'a>(findings: &'a [Finding], path: &Path) -> Vec<&'a Finding> {
    findings
        .iter()
        .filter(|finding| finding.path.as_deref() == Some(path))
        .collect()
}

/// Flips one bit of each byte and asks for what the check has to say of it.
fn every_byte(small: &Small, pack: PackId, parts: &[Part], touched: impl Fn(Part) -> Vec<usize>) {
    let path = pack_path(pack);
    let disk = &*small.disk;
    for (at, part) in parts.iter().enumerate() {
        let bit = 1 << (at % 8);
        flip(disk, &path, at, bit);
        let report = small.check(Depth::Deep);
        let said = found(&report.findings, &path);
        let with = |right: fn(&What) -> bool| said.iter().any(|finding| right(&finding.what));
        let right = match part {
            Part::PackHeader => with(|what| matches!(what, What::PackHeader { .. })),
            Part::Seal => with(|what| matches!(what, What::Seal { .. })),
            Part::BatchHeader => with(|what| matches!(what, What::BatchHeader { .. })),
            Part::Directory => with(|what| matches!(what, What::Directory { .. })),
            Part::Index => with(|what| matches!(what, What::Index { .. })),
            Part::Reached | Part::Garbage => {
                with(|what| matches!(what, What::Block { .. } | What::Node { .. }))
            }
            Part::Gap => with(|what| matches!(what, What::Gap { .. })),
            // Behind the mark: nobody's business.
            Part::Rubble => report.findings.is_empty(),
        };
        assert!(right, "byte {at}, {part:?}: {said:?}");
        let worst = report.worst();
        match part {
            Part::Rubble => {}
            Part::Garbage | Part::Gap => {
                assert_eq!(worst, Some(Severity::Unreached), "byte {at}, {part:?}");
            }
            _ => assert!(worst >= Some(Severity::Mendable), "byte {at}, {part:?}"),
        }
        // Structure alone finds all but what only hashing blocks, or reading what nothing reaches, can find.
        if matches!(
            part,
            Part::PackHeader | Part::Seal | Part::BatchHeader | Part::Directory | Part::Index
        ) {
            let structure = small.check(Depth::Structure);
            assert_eq!(structure.findings.len(), report.findings.len(), "byte {at}");
        }
        let touches: Vec<usize> = {
            let all = report.findings.iter().flat_map(|finding| &finding.touches);
            let mut all: Vec<usize> = all.copied().collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        if !matches!(part, Part::Reached) {
            assert_eq!(touches, touched(*part), "byte {at}, {part:?}: {said:?}");
        }
        flip(disk, &path, at, bit);
    }
    assert!(small.check(Depth::Deep).findings.is_empty());
}

#[test]
fn a_healthy_store_has_no_findings() {
    let small = small();
    let mut seen = Vec::new();
    let options = segvm_blockcache::fsck::Options {
        depth: Depth::Deep,
        ..Default::default()
    };
    let report = segvm_blockcache::fsck::check(
        &open(&small.disk),
        &small.roots,
        &small.marks,
        options,
        &mut |progress| seen.push(progress),
    )
    .unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.worst(), None);
    assert_eq!((report.packs, report.batches), (2, 2));
    // Three blocks, and two leaves, a root and a head; then one block and its path.
    assert_eq!((report.blocks, report.nodes), (4, 7));
    assert_eq!(report.hashed, 11);
    assert_eq!((report.trees, report.reached_nodes), (2, 7));
    assert_eq!((report.maps, report.unmarked), (1, vec![DEAD]));
    assert!(report.strays.is_empty());
    let (done, total) = seen
        .iter()
        .filter_map(|seen| match seen {
            segvm_blockcache::fsck::Progress::Packs { done, total } => Some((*done, *total)),
            _ => None,
        })
        .next_back()
        .unwrap();
    assert_eq!(done, total);
}

#[test]
fn every_byte_of_a_sealed_pack() {
    let small = small();
    let bytes = bytes_of(&*small.disk, &pack_path(OLD));
    let end = bytes[PAGE + 24..PAGE + 32].try_into().unwrap();
    let end = usize::try_from(u64::from_le_bytes(end)).unwrap();
    let parts = parts(&bytes, end, true, &[pack_support::paint(3, 4096)]);
    for part in [Part::Index, Part::Reached, Part::Garbage, Part::Gap] {
        assert!(parts.contains(&part), "{part:?}");
    }
    every_byte(&small, OLD, &parts, |part| match part {
        Part::Garbage | Part::Gap => vec![],
        // Every root has blocks here, so that every root is touched by what is wrong with the whole of it.
        _ => vec![0, 1, 2],
    });
}

#[test]
fn every_byte_of_an_unsealed_pack() {
    let small = small();
    let bytes = bytes_of(&*small.disk, &pack_path(OPEN));
    let end = usize::try_from(small.marks[0].mark.len).unwrap();
    let parts = parts(&bytes, end, false, &[]);
    assert!(parts.contains(&Part::Rubble) && parts.contains(&Part::Gap));
    every_byte(&small, OPEN, &parts, |part| match part {
        Part::Gap | Part::Rubble => vec![],
        // Image `a` cannot be opened, though its first commit lies elsewhere; `b` can.
        _ => vec![0, 1],
    });
}

#[test]
fn every_byte_of_an_extent_map() {
    let small = small();
    let tree = small.roots[0].tree;
    let path = format!("/store/extents/{tree}.ext");
    let path = Path::new(&path);
    for at in 0..bytes_of(&*small.disk, path).len() {
        for bit in 0..8 {
            flip(&*small.disk, path, at, 1 << bit);
            for depth in [Depth::Structure, Depth::Deep] {
                let report = small.check(depth);
                assert_eq!(report.findings.len(), 1, "byte {at}");
                let finding = &report.findings[0];
                assert!(matches!(finding.what, What::ExtentMap { .. }));
                assert_eq!(finding.severity, Severity::Mendable);
                assert_eq!(finding.touches, [0, 2]);
            }
            flip(&*small.disk, path, at, 1 << bit);
        }
    }
}

#[test]
fn a_store_whose_format_file_has_a_flipped_bit_is_not_opened() {
    let small = small();
    let path = Path::new("/store/format");
    for at in 0..bytes_of(&*small.disk, path).len() {
        for bit in 0..8 {
            flip(&*small.disk, path, at, 1 << bit);
            let opened = Store::open(small.disk.clone(), "/store".into());
            assert!(opened.is_err(), "byte {at}, bit {bit}");
            flip(&*small.disk, path, at, 1 << bit);
        }
    }
}

/// Which roots a block or node belongs to.
#[test]
fn a_finding_names_the_roots_that_reach_it() {
    let small = small();
    let store = open(&small.disk);
    for (seed, roots, severity) in [
        (1, vec![0, 1, 2], Severity::Harm),
        (2, vec![0, 2], Severity::Harm),
        (3, vec![], Severity::Unreached),
    ] {
        let place = store.locate(&block(seed)).unwrap().unwrap();
        let at = usize::try_from(place.offset).unwrap() + 77;
        let path = pack_path(place.pack);
        flip(&*small.disk, &path, at, 4);
        assert!(small.check(Depth::Structure).findings.is_empty());
        let report = small.check(Depth::Deep);
        assert_eq!(report.findings.len(), 1);
        let finding = &report.findings[0];
        match &finding.what {
            What::Block {
                id,
                pack,
                elsewhere: None,
            } => assert_eq!((*id, *pack), (block(seed), place.pack)),
            other => panic!("{other:?}"),
        }
        assert_eq!(finding.offset, place.offset);
        assert_eq!(finding.path.as_deref(), Some(&*path));
        assert_eq!((&finding.touches, finding.severity), (&roots, severity));
        flip(&*small.disk, &path, at, 4);
    }
}
