//! How many maps a session has, whatever its checkpoints were: counted in /proc/self/maps, at most 4,096.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{fs, path::Path};

use segvm::{BlockSize, Rounds, Segment, SegmentOptions, Session, SessionOptions};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const WINDOW: usize = 2 * MIB;

/// Of one session, over all of its segments.
const MOST: usize = 4096;

/// Room for the address space of one segment.
const RESERVED: usize = 256 << 30;

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("image").unwrap()
}

fn small(session: &Session, name: &str, len: usize) -> Segment {
    let options = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(RESERVED);
    session.segment_with(name, len, &options).unwrap()
}

/// The lines of /proc/self/maps inside the reservations of these segments.
fn maps(segments: &[Segment]) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let inside = |line: &&str| {
        let start = line.split('-').next().unwrap();
        let start = usize::from_str_radix(start, 16).unwrap();
        segments.iter().any(|segment| {
            let base = segment.as_ptr() as usize;
            (base..base + RESERVED).contains(&start)
        })
    };
    maps.lines().filter(inside).map(str::to_owned).collect()
}

/// Everything that can explain a number of maps: which they are, how long the segments are, how many the process has.
fn told(segments: &[Segment], lines: &[String]) -> String {
    let lens: Vec<_> = segments.iter().map(Segment::len).collect();
    let all = fs::read_to_string("/proc/self/maps").unwrap();
    let again = maps(segments).len();
    let engine = std::env::var("SEGVM_ENGINE");
    format!(
        "{} maps (asked again: {again}; {} in all) of segments of {lens:?} bytes, engine {engine:?}; the first of them:\n{}",
        lines.len(),
        all.lines().count(),
        lines[..lines.len().min(100)].join("\n")
    )
}

#[track_caller]
fn bounded(segments: &[Segment], when: &str) -> usize {
    let lines = maps(segments);

    // Protection splits maps where registration does not: two for each window that is warm, read-in ones included. By `wp-sync` it
    // is what protects mapped files.
    let by_protection = std::env::var_os("SEGVM_ENGINE")
        .is_some_and(|engine| engine == "mprotect" || engine == "wp-sync");
    let most = if by_protection { 2 * MOST } else { MOST };
    assert!(lines.len() <= most, "{when}: {}", told(segments, &lines));
    lines.len()
}

fn put(segment: &Segment, page: usize, byte: u8) {
    segment.write(page * PAGE, &[byte; PAGE]).unwrap();
}

fn page(segment: &Segment, page: usize) -> u8 {
    let mut bytes = [0; PAGE];
    segment.read(page * PAGE, &mut bytes).unwrap();
    assert!(
        bytes.iter().all(|&byte| byte == bytes[0]),
        "page {page} is torn"
    );
    bytes[0]
}

fn mix(n: u64) -> usize {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (n ^ (n >> 31)) as usize
}

/// Every other block lies in another pack, then every other one of those: as many runs as blocks. Suspended at once, nothing is
/// laid out again.
fn shattered(store: &Path, names: &[&str], len: usize, holes: bool) -> Vec<Vec<u8>> {
    let pages = len / PAGE;
    let mut model = vec![vec![0; pages]; names.len()];
    for life in 1..=3_u8 {
        let session = open(store);
        for (segment, model) in names.iter().zip(&mut model) {
            let segment = small(&session, segment, len);
            for (at, expected) in model.iter_mut().enumerate() {
                let hole = holes && at % 2 == 1;
                if at % (1 << (life - 1)) == 0 && !hole {
                    let byte = life * 40 + (at % 31) as u8;
                    put(&segment, at, byte);
                    *expected = byte;
                }
            }
        }
        session.suspend().unwrap();
    }
    model
}

fn check(segments: &[Segment], model: &[Vec<u8>]) {
    for (segment, model) in segments.iter().zip(model) {
        let mut bytes = vec![0; segment.len()];
        segment.read(0, &mut bytes).unwrap();
        for (at, found) in bytes.chunks(PAGE).enumerate() {
            assert!(found.iter().all(|&byte| byte == model[at]), "page {at}");
        }
    }
}

fn attack(holes: bool) {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    const LEN: usize = 32 * MIB;
    let store = tempfile::tempdir().unwrap();
    let mut model = shattered(store.path(), &NAMES, LEN, holes);
    for life in 0..2 {
        let session = open(store.path());
        let segments = NAMES.map(|name| small(&session, name, LEN));
        let opened = bounded(&segments, "when opened");
        assert!(opened > MOST / 4, "{opened} maps are no fragmented image");
        check(&segments, &model);
        let commit = session.head().unwrap().to_string();
        for turn in 0..4_u64 {
            for n in 0..60 {
                let random = mix(life * 1000 + turn * 100 + n);
                let (which, at) = (random % 3, random / 3 % (LEN / PAGE));
                put(&segments[which], at, turn as u8 + 1);
                model[which][at] = turn as u8 + 1;
            }
            let rounds = [Rounds::Auto, Rounds::Off][turn as usize % 2];
            session.checkpoint_with(rounds).unwrap();
            bounded(&segments, "after a checkpoint");
        }
        check(&segments, &model);
        session.restore(&commit[..16]).unwrap();
        bounded(&segments, "after a restore");
        session.restore("-0").unwrap();
        bounded(&segments, "after another restore");
        check(&segments, &model);
        session.suspend().unwrap();
    }
}

#[test]
fn several_fragmented_segments_share_the_bound() {
    attack(false);
}

#[test]
fn holes_between_the_runs_count() {
    attack(true);
}

/// Windows farther apart than any gap that is worth bridging, in several segments: nothing merges.
#[test]
fn distant_windows_share_the_bound_and_lose_nothing() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    const APART: usize = 80 * MIB;
    const PLACES: usize = 1000;
    let store = tempfile::tempdir().unwrap();
    let put_all = |segments: &[Segment], epoch: u8| {
        for segment in segments {
            for n in 0..PLACES {
                put(segment, n * APART / PAGE, epoch);
            }
        }
    };
    for life in 1..=2_u8 {
        let session = open(store.path());
        let segments = NAMES.map(|name| small(&session, name, PLACES * APART));
        for segment in &segments {
            for n in (0..PLACES).filter(|_| life == 2) {
                assert_eq!(page(segment, n * APART / PAGE), 13);
            }
        }
        bounded(&segments, "when opened");
        for turn in 0..3 {
            let epoch = life * 10 + turn;
            put_all(&segments, epoch);
            let rounds = [Rounds::Auto, Rounds::Off][usize::from(turn) % 2];
            assert!(session.checkpoint_with(rounds).unwrap().changed);
            bounded(&segments, "after a checkpoint");
            // What is written after this one is part of the next, wherever it lies.
            put(&segments[2], (PLACES - 1) * APART / PAGE, 200);
            put(&segments[0], 7 * APART / PAGE, 201);
            session.checkpoint_with(rounds).unwrap();
            session.restore("-0").unwrap();
            assert_eq!(page(&segments[2], (PLACES - 1) * APART / PAGE), 200);
            assert_eq!(page(&segments[0], 7 * APART / PAGE), 201);
            assert_eq!(page(&segments[1], 9 * APART / PAGE), epoch);
        }
        put_all(&segments, 13);
        session.suspend().unwrap();
    }
}

/// A segment that grows a little, and is saved, again and again.
#[test]
fn growth_in_small_steps_adds_few_maps() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segments = [small(&session, "a", PAGE)];
    let mut most = 0;
    for n in 0..600 {
        let failed = |what: &str, error: &dyn std::error::Error| {
            format!("step {n}, {what}: {error} ({error:?}), with {most} maps before")
        };
        let grown = segments[0].grow((n + 1) * 4 * PAGE);
        grown.unwrap_or_else(|error| panic!("{}", failed("growing", &error)));
        put(&segments[0], n * 4, n as u8 | 1);
        let saved = session.checkpoint();
        saved.unwrap_or_else(|error| panic!("{}", failed("the checkpoint", &error)));
        if n % 10 != 9 {
            continue;
        }
        let windows = segments[0].len().div_ceil(WINDOW);
        let count = bounded(&segments, &format!("after step {n}"));
        assert!(
            count <= 4 * windows + 4,
            "step {n}, {windows} windows, {most} maps before: {}",
            told(&segments, &maps(&segments))
        );
        most = count.max(most);
    }
    println!("{most} maps at most");
    session.suspend().unwrap();
    let session = open(store.path());
    let segments = [small(&session, "a", PAGE)];
    for n in 0..600 {
        assert_eq!(page(&segments[0], n * 4), n as u8 | 1);
    }
}
