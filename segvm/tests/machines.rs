//! Images of machines with other pages and pointers: refused with both named, and untouched. Pages of 16 and 64 KiB on the model.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{path::Path, sync::Arc};

use segvm::{OpenError, Rounds, Segment, SegmentOptions, Session, SessionOptions, World};
use segvm_blockcache::{
    BlockSize,
    disk::{CrashDisk, RealDisk},
};
use segvm_home::{Commit, DirHome, Holder, Timestamp};
use segvm_os::{ModelKernel, PageSize};

const LEN: usize = 4 << 20;

fn world(page: usize, disk: &CrashDisk) -> World {
    let page = PageSize::new(page).unwrap();
    World::with(
        Arc::new(ModelKernel::with_page_size(page)),
        Arc::new(disk.clone()),
    )
}

fn open(page: usize, disk: &CrashDisk) -> Result<Session, OpenError> {
    let options = SessionOptions::new().store(Path::new("/store"));
    options.world(world(page, disk)).open("image")
}

fn segment(session: &Session) -> Segment {
    let options = SegmentOptions::new().reserve(64 << 20);
    session.segment_with("memory", LEN, &options).unwrap()
}

fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

/// What both sides are, as the error has them.
fn refusal(outcome: Result<Session, OpenError>) -> (String, String, String) {
    let error = outcome.unwrap_err();
    let text = error.to_string();
    match error {
        OpenError::OtherMachine { image, made, here } => {
            assert_eq!(image, "image");
            (made, here, text)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_image_of_another_page_size_is_refused_with_both_sizes_and_stays_as_it_is() {
    for (made, here) in [(4, 16), (4, 64), (16, 4), (64, 4), (64, 16)] {
        let disk = CrashDisk::new(1);
        let session = open(made << 10, &disk).unwrap();
        segment(&session).write(70_000, b"here").unwrap();
        let saved = session.suspend().unwrap();
        let (theirs, ours, text) = refusal(open(here << 10, &disk));
        assert!(theirs.contains(&format!("pages of {made} KiB")), "{theirs}");
        assert!(ours.contains(&format!("pages of {here} KiB")), "{ours}");
        assert!(text.contains(&theirs) && text.contains(&ours), "{text}");
        // The lease was given back, and the first machine finds what it left.
        let session = open(made << 10, &disk).unwrap();
        assert_eq!(session.head(), Some(saved.commit));
        assert_eq!(content(&segment(&session))[70_000..70_004], *b"here");
    }
}

#[test]
fn a_block_is_at_least_a_page() {
    let disk = CrashDisk::new(1);
    let session = open(64 << 10, &disk).unwrap();
    let small = SegmentOptions::new().block_size(BlockSize::DEFAULT);
    let error = session.segment_with("memory", LEN, &small).unwrap_err();
    assert!(matches!(error, OpenError::BlockBelowPage { .. }), "{error}");
    let text = error.to_string();
    for said in ["`memory`", "16 KiB blocks", "64 KiB blocks"] {
        assert!(text.contains(said), "no {said} in: {text}");
    }
    // Who asks for nothing gets what works: growth is by whole blocks, and those are a page each.
    let options = SegmentOptions::new().reserve(64 << 20);
    let segment = session.segment_with("memory", 1, &options).unwrap();
    assert_eq!(segment.len(), 64 << 10);
}

/// Blocks of a page, and of several, in memory that only the model has.
#[test]
fn larger_pages_keep_every_byte() {
    for (page, log2) in [(16, 14), (16, 16), (64, 16), (64, 18)] {
        let size = BlockSize::from_log2(log2).unwrap();
        let disk = CrashDisk::new(7);
        let mut model = vec![0; LEN];
        for life in 0..3_usize {
            let session = open(page << 10, &disk).unwrap();
            let options = SegmentOptions::new().reserve(64 << 20).block_size(size);
            let segment = session.segment_with("memory", LEN, &options);
            let segment = segment.unwrap_or_else(|error| {
                panic!("pages of {page} KiB, blocks of 2^{log2}, life {life}: {error}")
            });
            assert!(content(&segment) == model);
            for step in 0..4_usize {
                for k in 0..6 {
                    let n = life * 100 + step * 10 + k;
                    let len = [9, 3_000, 17_000, 90_000, 4_096, 65_536][k];
                    let at = (n * 77_003 * 4096 / 1000) % (LEN - len);
                    let bytes: Vec<u8> = (0..len).map(|i| ((n + i) % 251) as u8).collect();
                    segment.write(at, &bytes).unwrap();
                    model[at..at + len].copy_from_slice(&bytes);
                }
                let rounds = [Rounds::Auto, Rounds::Off][step % 2];
                session.checkpoint_with(rounds).unwrap();
            }
            assert!(content(&segment) == model);
            if life != 1 {
                session.suspend().unwrap();
            }
        }
        let session = open(page << 10, &disk).unwrap();
        let found = session.segment("memory", 0).unwrap();
        assert!(
            content(&found) == model,
            "pages of {page} KiB, blocks of 2^{log2}"
        );
    }
}

/// Adds a commit like the newest one, but for what `change` makes of it.
fn publish(store: &Path, change: impl FnOnce(&mut Commit)) {
    let home = DirHome::open(Arc::new(RealDisk), store.to_owned());
    let holder = Holder {
        pid: std::process::id(),
        host: "elsewhere".into(),
        program: "test".into(),
        since: Timestamp::from(std::time::SystemTime::now()),
    };
    let mut lease = home.acquire(&"image".parse().unwrap(), holder).unwrap();
    let head = lease.head().cloned().unwrap();
    let mut commit = head.commit;
    commit.parents = vec![head.commit_id];
    commit.generation += 1;
    change(&mut commit);
    lease.publish(&commit, &head.mark).unwrap();
}

#[test]
fn a_commit_of_other_pointers_or_pages_is_neither_opened_nor_restored() {
    let store = tempfile::tempdir().unwrap();
    let open = || SessionOptions::new().store(store.path()).open("image");
    let session = open().unwrap();
    let segment = session.segment("memory", LEN).unwrap();
    segment.write(0, b"first").unwrap();
    session.suspend().unwrap();
    publish(store.path(), |commit| commit.pointer_width = 4);
    let (made, here, _) = refusal(open());
    assert!(made.contains("pointers of 4 bytes"), "{made}");
    assert!(here.contains("pointers of 8 bytes"), "{here}");
    publish(store.path(), |commit| {
        commit.pointer_width = 8;
        commit.page_size_log2 = 16;
    });
    let (made, here, _) = refusal(open());
    assert!(made.contains("pages of 64 KiB"), "{made}");
    assert!(here.contains("pages of 4 KiB"), "{here}");
    publish(store.path(), |commit| commit.page_size_log2 = 12);
    // A line may have commits of several machines; this one's can be opened, and the others not gone back to.
    let session = open().unwrap();
    for back in ["-1", "-2"] {
        let error = session.restore(back).unwrap_err();
        assert!(matches!(error, OpenError::OtherMachine { .. }), "{error}");
    }
    let segment = session.segment("memory", LEN).unwrap();
    assert_eq!(content(&segment)[..5], *b"first");
    session.restore("-3").unwrap();
    segment.write(0, b"again").unwrap();
    session.suspend().unwrap();
    let session = open().unwrap();
    assert_eq!(
        content(&session.segment("memory", 0).unwrap())[..5],
        *b"again"
    );
}
