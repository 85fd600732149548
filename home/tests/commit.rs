//! What a commit's bytes are, and that nothing else passes for one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use segvm_blockcache::{BlockSize, CommitId, TreeId};
use segvm_home::{
    Commit, DecodeError, InvalidCommit, RangeAttribute, RangeKind, SegmentKind, SegmentRecord,
    Timestamp, decode_any,
};

const GOLDEN: &[u8] = include_bytes!("golden/commit-v1.bin");

fn range(start: u64, len: u64, kind: RangeKind) -> RangeAttribute {
    RangeAttribute { start, len, kind }
}

/// The commit of the golden file: every field differs from its neighbours and from its default.
fn sample() -> Commit {
    let segment = |name: &str, kind, ranges| SegmentRecord {
        name: name.to_owned(),
        tree: TreeId::from_bytes([0x11; 32]),
        len: 0x12_3456,
        block_size: BlockSize::new(65_536).unwrap(),
        base: 0x1000_4000_0000,
        reserved: 64 << 30,
        kind,
        fingerprint: [0x22; 32],
        ranges,
    };
    Commit {
        parents: vec![
            CommitId::from_bytes([0xa1; 32]),
            CommitId::from_bytes([0xa2; 32]),
        ],
        time: Timestamp::new(1_795_609_800, 123_456_789).unwrap(),
        host: "box".into(),
        program: "codesearch".into(),
        generation: 7,
        page_size_log2: 12,
        pointer_width: 8,
        segments: vec![
            segment(
                "cache",
                SegmentKind::Raw,
                vec![
                    range(0, 4096, RangeKind::Drop),
                    range(4096, 4096, RangeKind::Wipe),
                    range(16_384, 8192, RangeKind::Regenerate),
                ],
            ),
            segment("state", SegmentKind::Heap, vec![]),
        ],
        attributes: BTreeMap::from([("note".to_owned(), b"first".to_vec())]),
    }
}

#[test]
fn the_golden_commit_is_read_and_written_for_ever() {
    assert_eq!(Commit::decode(GOLDEN).unwrap(), sample());
    assert_eq!(sample().encode().unwrap(), GOLDEN);
}

#[test]
fn every_flipped_bit_is_refused_or_another_commit() {
    for at in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        decode_any(&bytes);
        assert_ne!(Commit::decode(&bytes).ok(), Some(sample()), "bit {at}");
    }
    for end in 0..GOLDEN.len() {
        assert!(Commit::decode(&GOLDEN[..end]).is_err(), "cut at {end}");
    }
    let long = [GOLDEN, &[0]].concat();
    assert_eq!(
        Commit::decode(&long),
        Err(DecodeError::Trailing { count: 1 })
    );
}

#[test]
fn a_count_is_capped_before_it_is_believed() {
    let mut bytes = GOLDEN.to_vec();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let cap = InvalidCommit::TooMuch {
        what: "parents",
        got: u32::MAX as usize,
        max: 16,
    };
    assert_eq!(Commit::decode(&bytes), Err(cap.into()));
    let mut newer = GOLDEN.to_vec();
    newer[8] = 2;
    assert_eq!(Commit::decode(&newer), Err(DecodeError::Version { got: 2 }));
}

#[test]
fn what_breaks_a_rule_has_no_bytes() {
    let broken = |change: fn(&mut Commit)| {
        let mut commit = sample();
        change(&mut commit);
        commit.encode().unwrap_err()
    };
    for error in [
        broken(|c| c.segments.swap(0, 1)),
        broken(|c| c.segments[1].name = "cache".into()),
        broken(|c| c.segments[0].ranges.swap(0, 1)),
        broken(|c| c.segments[0].ranges[0].len += 1),
    ] {
        assert!(matches!(error, InvalidCommit::Unordered { .. }), "{error}");
    }
    for error in [
        broken(|c| c.segments[0].len = c.segments[0].reserved + 1),
        broken(|c| c.segments[0].base = u64::MAX),
        broken(|c| c.segments[0].ranges[0].len = 0),
        broken(|c| c.segments[0].ranges[2].len = u64::MAX),
    ] {
        assert!(matches!(error, InvalidCommit::Bounds { .. }), "{error}");
    }
    for error in [
        broken(|c| c.host = "x".repeat(256)),
        broken(|c| c.parents = vec![c.parents[0]; 17]),
        broken(|c| drop(c.attributes.insert("big".into(), vec![0; 65_537]))),
        broken(|c| {
            let value = vec![0; 65_536];
            c.attributes
                .extend((0..17).map(|n| (n.to_string(), value.clone())));
        }),
    ] {
        assert!(matches!(error, InvalidCommit::TooMuch { .. }), "{error}");
    }
    let nameless = broken(|c| c.segments[0].name = String::new());
    assert!(matches!(nameless, InvalidCommit::Nameless { .. }));
    let machine = broken(|c| c.pointer_width = 16);
    assert!(matches!(machine, InvalidCommit::Machine { .. }));
}

prop_compose! {
    fn a_segment()(
        name in ".{1,20}",
        tree: [u8; 32],
        fingerprint: [u8; 32],
        len in 0..=1_u64 << 40,
        more in 0..1_u64 << 40,
        base in 0..1_u64 << 47,
        log2 in 12..=21_u32,
        heap: bool,
        cuts in proptest::collection::btree_set(0..1_u64 << 40, 0..6),
        kind in 0..3_usize,
    ) -> SegmentRecord {
        let reserved = len + more;
        let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut <= reserved).collect();
        let kind = [RangeKind::Drop, RangeKind::Wipe, RangeKind::Regenerate][kind];
        let ranges = cuts.windows(2).map(|two| range(two[0], two[1] - two[0], kind)).collect();
        SegmentRecord {
            name, len, base, reserved, fingerprint, ranges,
            tree: TreeId::from_bytes(tree),
            block_size: BlockSize::from_log2(log2).unwrap(),
            kind: if heap { SegmentKind::Heap } else { SegmentKind::Raw },
        }
    }
}

prop_compose! {
    fn a_commit()(
        parents in proptest::collection::vec(any::<[u8; 32]>(), 0..4),
        secs: i64,
        nanos in 0..1_000_000_000_u32,
        host in ".{0,20}",
        program in ".{0,20}",
        generation: u64,
        page_size_log2 in 12..=16_u8,
        wide: bool,
        segments in proptest::collection::vec(a_segment(), 0..4),
        attributes in proptest::collection::btree_map(
            ".{1,8}", proptest::collection::vec(any::<u8>(), 0..64), 0..4),
    ) -> Commit {
        let mut segments = segments;
        segments.sort_by(|a, b| a.name.cmp(&b.name));
        segments.dedup_by(|a, b| a.name == b.name);
        Commit {
            parents: parents.into_iter().map(CommitId::from_bytes).collect(),
            time: Timestamp::new(secs, nanos).unwrap(),
            host, program, generation, page_size_log2, segments, attributes,
            pointer_width: if wide { 8 } else { 4 },
        }
    }
}

proptest! {
    #[test]
    fn a_commit_comes_back_as_it_went(commit in a_commit()) {
        let bytes = commit.encode().unwrap();
        prop_assert_eq!(commit.id().unwrap(), CommitId::of(&bytes));
        prop_assert_eq!(Commit::decode(&bytes).unwrap(), commit);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        header in 0..80_usize,
    ) {
        decode_any(&bytes);
        // Random bytes rarely get past the magic: begin with a good header, too.
        let mixed = [&GOLDEN[..header], &bytes].concat();
        decode_any(&mixed);
    }
}
