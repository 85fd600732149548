//! A reader of its own, from an image's name to the bytes of its segments, against what real sessions wrote.
//!
//! Made from docs/format.md alone, with nothing but std and BLAKE3, as somebody would in another language: it shares no code
//! with the crates it checks. It refuses whatever breaks a rule of the document, also where it could go on.
//!
//! | room | sections of docs/format.md |
//! |---|---|
//! | `bytes` | 1, 2: numbers, checksums, ids |
//! | `log` | 3, 7: the store, an image's records |
//! | `commit` | 8 |
//! | `pack` | 4: where blocks and nodes lie |
//! | `tree` | 5, 6: which of them a segment has |
//! | `image` | 9: all of it, in that order |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a failed test panics; lengths are checked before they index, and this test runs where usize has 64 bits"
)]

mod bytes;
mod commit;
mod image;
mod log;
mod pack;
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use segvm::{BlockSize, Fingerprint, Rounds, Segment, SegmentOptions, Session, SessionOptions};

use self::{bytes::text, image::Image};

/// What each raw segment holds.
type Model = BTreeMap<&'static str, Vec<u8>>;

const MIB: usize = 1 << 20;
const COUNT: u64 = 0x5eed_c0de_0000;

/// Name, base-2 logarithm of the block size, length: trees of heights 1, 2 and 3, and one of nothing.
const SEGMENTS: [(&str, u32, usize); 5] = [
    ("empty", 14, 0),
    ("large", 21, 6 * MIB),
    ("middle", 16, 5 * MIB),
    ("plain", 14, 6 * MIB),
    ("small", 12, 17 * MIB),
];

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn open(store: &Path, image: &str) -> Session {
    SessionOptions::new().store(store).open(image).unwrap()
}

fn segments(session: &Session, model: &mut Model) -> Vec<Segment> {
    let made = SEGMENTS.map(|(name, log2, len)| {
        let size = BlockSize::from_log2(log2).unwrap();
        let options = SegmentOptions::new()
            .block_size(size)
            .fingerprint(Fingerprint::named(name));
        let segment = session.segment_with(name, len, &options).unwrap();
        model.entry(name).or_default().resize(segment.len(), 0);
        segment
    });
    made.into_iter()
        .filter(|segment| segment.len() > 0)
        .collect()
}

/// Some runs of bytes of prime period, some of them zeros: whole blocks, parts of blocks, across blocks.
fn scribble(rng: &mut Rng, segments: &[Segment], model: &mut Model) {
    for segment in segments {
        let model = model.get_mut(segment.name()).unwrap();
        for _ in 0..12 {
            let most = [8, 5_000, 70_000, 600_000][rng.below(4)];
            let len = 1 + rng.below(most);
            let at = rng.below(model.len() - len);
            let (zero, seed) = (rng.below(4) == 0, rng.below(251));
            let bytes: Vec<u8> = (0..len)
                .map(|i| if zero { 0 } else { ((seed + i) % 251) as u8 })
                .collect();
            segment.write(at, &bytes).unwrap();
            model[at..at + len].copy_from_slice(&bytes);
        }
    }
}

/// What the reader was shown, so that the test can tell that it was shown enough.
#[derive(Debug, Default)]
struct Seen {
    heights: [usize; 4],
    holes: usize,
    mapped: usize,
    packs: usize,
    unsealed: usize,
    records: usize,
    restored: usize,
}

/// The newest `most` commits of the image say what memory was.
fn check(store: &Path, name: &str, saved: &[(String, Model)], most: usize, seen: &mut Seen) {
    let image = Image::open(store, name).unwrap();
    seen.packs = seen.packs.max(image.packs.count());
    seen.unsealed += image.packs.unsealed();
    assert_eq!(image.records.len(), saved.len());
    seen.records = seen.records.max(saved.len());
    for (record, (id, model)) in image.records.iter().zip(saved.iter().rev()).take(most) {
        assert_eq!(text(&record.id), *id);
        let commit = &record.commit;
        assert_eq!((commit.page, commit.pointer), (4096, 8));
        assert!(commit.program.starts_with("reader-") && commit.seconds > 1_700_000_000);
        assert!(commit.generation > 0);
        seen.restored += commit.attributes.len();
        let names: Vec<&str> = commit
            .segments
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["empty", "heap", "large", "middle", "plain", "small"]
        );
        for segment in &commit.segments {
            let content = image.content(segment).unwrap();
            if let Some(mapped) = image.mapped(segment).unwrap() {
                assert!(mapped == content.bytes, "{}", segment.name);
                seen.mapped += 1;
            }
            seen.heights[usize::from(content.height)] += 1;
            seen.holes += usize::from(content.stored << segment.shape.log2 < segment.shape.len);
            assert!(segment.base > 0 && segment.reserved >= segment.shape.len);
            if segment.heap {
                assert_eq!(segment.fingerprint, [0; 32]);
                assert!(content.bytes.starts_with(b"segvmhp\0"));
                let count = (COUNT + record.sequence).to_le_bytes();
                assert!(content.bytes.windows(8).any(|word| word == count));
                continue;
            }
            assert!(segment.fingerprint.starts_with(segment.name.as_bytes()));
            let expected = &model[segment.name.as_str()];
            let same = content.bytes == *expected;
            assert!(same, "{} of commit {id:.12}", segment.name);
        }
    }
    for (newer, older) in image.records.iter().zip(&image.records[1..]) {
        assert_eq!(newer.commit.parents, [older.id]);
        assert_eq!(newer.sequence, older.sequence + 1);
        assert!(older.token > 0, "a session writes with a token");
    }
}

/// What a program leaves that died before it wrote anything durable into a pack, or after it made only the file.
fn leave_rubble(store: &Path) {
    let packs = store.join("packs");
    fs::write(packs.join("00000000000000aa.pack"), [7; 100]).unwrap();
    let mut unsealed = vec![7; 12 << 10];
    unsealed[4096..8192].fill(0);
    fs::write(packs.join("00000000000000bb.pack"), unsealed).unwrap();
    fs::write(packs.join("something else"), [7; 100]).unwrap();
}

fn checkpoint(session: &Session, rounds: Rounds, model: &Model, saved: &mut Vec<(String, Model)>) {
    let root = session.root::<u64>("count").unwrap();
    *root.write() = COUNT + saved.len() as u64;
    let done = session.checkpoint_with(rounds).unwrap();
    assert!(done.changed);
    saved.push((done.commit.to_string(), model.clone()));
}

#[test]
fn a_reader_made_from_the_document_finds_what_sessions_wrote() {
    let store = tempfile::tempdir().unwrap();
    let store = store.path();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let (mut model, mut saved, mut seen) = (Model::new(), Vec::new(), Seen::default());
    for life in 0..4 {
        let session = open(store, "image");
        let segments = segments(&session, &mut model);
        for turn in 0..3 {
            scribble(&mut rng, &segments, &mut model);
            let rounds = [Rounds::Auto, Rounds::Off][(life + turn) % 2];
            checkpoint(&session, rounds, &model, &mut saved);
        }
        // The pack of this life is not sealed: it is read up to the mark.
        check(store, "image", &saved, 3, &mut seen);
        if life == 2 {
            // A whole segment becomes a hole, another one grows; and memory goes back.
            let plain = &segments[2];
            plain.write(0, &vec![0; plain.len()]).unwrap();
            model.get_mut(plain.name()).unwrap().fill(0);
            segments[1].grow(7 * MIB).unwrap();
            model
                .get_mut(segments[1].name())
                .unwrap()
                .resize(7 * MIB, 0);
            checkpoint(&session, Rounds::Auto, &model, &mut saved);
            let (older, then) = saved[3].clone();
            session.restore(&older[..12]).unwrap();
            model = then;
            checkpoint(&session, Rounds::Auto, &model, &mut saved);
            check(store, "image", &saved, 2, &mut seen);
        }
        if life == 1 {
            leave_rubble(store);
        }
        if life % 2 == 0 {
            session.suspend().unwrap();
        }
    }
    check(store, "image", &saved, usize::MAX, &mut seen);
    // Two lives ended without suspend: the first one's pack was sealed by the next life, the last one's never was.
    assert!(seen.heights[1..].iter().all(|&times| times > 0), "{seen:?}");
    assert!(
        seen.holes > 0 && seen.mapped > 0 && seen.packs >= 4 && seen.unsealed > 0,
        "{seen:?}"
    );
    assert!(seen.records == 14 && seen.restored > 0, "{seen:?}");
    // A branch begins with the commit that it was branched off, in a log of its own.
    let session = open(store, "image");
    session.branch("other").unwrap();
    drop(session);
    let (image, other) = (
        Image::open(store, "image").unwrap(),
        Image::open(store, "other").unwrap(),
    );
    assert_eq!(other.records.len(), 1);
    assert_eq!(other.records[0].commit.parents, [image.records[0].id]);
    let attributes = &other.records[0].commit.attributes;
    assert_eq!(
        attributes[..],
        [("branched-from".into(), b"image".to_vec())]
    );
    for segment in &other.records[0].commit.segments {
        let content = other.content(segment).unwrap();
        if !segment.heap {
            assert!(content.bytes == model[segment.name.as_str()]);
        }
    }
}

/// A small image in two packs, one of them not sealed, and what its newest commit holds.
fn small(store: &Path) -> Vec<u8> {
    let mut model = Model::new();
    let mut rng = Rng(77);
    let size = SegmentOptions::new().block_size(BlockSize::MIN);
    for life in 0..2 {
        let session = open(store, "image");
        let segment = session.segment_with("small", MIB, &size).unwrap();
        model.entry("small").or_default().resize(MIB, 0);
        for _ in 0..2 {
            scribble(&mut rng, std::slice::from_ref(&segment), &mut model);
            session.checkpoint().unwrap();
        }
        if life == 0 {
            session.suspend().unwrap();
        }
    }
    model.remove("small").unwrap()
}

fn newest(store: &Path) -> bytes::Read<(Vec<u8>, usize)> {
    let image = Image::open(store, "image")?;
    let content = image.content(&image.records[0].commit.segments[0])?;
    Ok((content.bytes, image.packs.walked))
}

/// The files, longest first: the pack that was sealed has the blocks of the first life.
fn packs(store: &Path) -> Vec<(PathBuf, u64)> {
    let mut packs: Vec<(PathBuf, u64)> = fs::read_dir(store.join("packs"))
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.path(), file.metadata().unwrap().len())
        })
        .collect();
    packs.sort();
    packs
}

/// Turns one bit over, and back when dropped.
struct Flip {
    file: fs::File,
    at: u64,
    was: u8,
}

impl Flip {
    fn new(path: &Path, at: u64, bit: u8) -> Self {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut was = [0];
        file.read_exact_at(&mut was, at).unwrap();
        file.write_all_at(&[was[0] ^ (1 << bit)], at).unwrap();
        Self {
            file,
            at,
            was: was[0],
        }
    }
}

impl Drop for Flip {
    fn drop(&mut self) {
        self.file.write_all_at(&[self.was], self.at).unwrap();
    }
}

#[test]
fn a_flipped_bit_is_found_or_does_not_matter() {
    let store = tempfile::tempdir().unwrap();
    let expected = small(store.path());
    let (found, walked) = newest(store.path()).unwrap();
    assert!(found == expected && walked == 0);
    let mut rng = Rng(0x5eed);
    let (mut refused, mut passed_over, mut without_index) = (0, 0, 0);
    for turn in 0..400 {
        let packs = packs(store.path());
        let (path, len) = &packs[turn % packs.len()];
        // Every second one at the end or the beginning, where headers, seals and indexes lie.
        let at = match turn / packs.len() % 4 {
            0 => rng.below(512) + 4096 * rng.below(3),
            1 => *len as usize - 1 - rng.below(16_384),
            _ => rng.below(*len as usize),
        };
        let _flipped = Flip::new(path, at as u64, rng.below(8) as u8);
        match newest(store.path()) {
            Ok((found, walked)) => {
                assert!(found == expected, "bit at {at} of {}", path.display());
                passed_over += 1;
                without_index += walked;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused > 100 && passed_over > 0 && without_index > 0,
        "{refused} refused, {passed_over} passed over, {without_index} read without an index"
    );
    assert!(newest(store.path()).unwrap().0 == expected);
}

#[test]
fn a_torn_head_is_passed_over_and_a_torn_older_record_is_damage() {
    let store = tempfile::tempdir().unwrap();
    small(store.path());
    let whole = Image::open(store.path(), "image").unwrap().records;
    let log = store.path().join("images/image/log");
    let frame = |sequence: u64| {
        let bytes = fs::read(&log).unwrap();
        let starts = (0..bytes.len() / 512).map(|sector| sector * 512);
        let starts = starts.filter(|&at| bytes[at..].starts_with(b"SEGVMREC"));
        let found = starts
            .into_iter()
            .find(|&at| bytes[at + 24..at + 32] == sequence.to_le_bytes());
        found.unwrap() as u64
    };
    let newest = whole[0].sequence;
    {
        let _torn = Flip::new(&log, frame(newest) + 100, 3);
        let found = Image::open(store.path(), "image");
        // The record before the newest marks less than the newest: it is the head again, as if the other was never whole.
        assert_eq!(found.unwrap().records[0].id, whole[1].id);
    }
    {
        let _torn = Flip::new(&log, frame(newest - 1) + 100, 3);
        let error = Image::open(store.path(), "image").unwrap_err();
        assert!(matches!(error, bytes::Wrong::Broken(..)), "{error}");
    }
    assert_eq!(
        Image::open(store.path(), "image").unwrap().records[0].id,
        whole[0].id
    );
}
