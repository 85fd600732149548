//! Sessions against a model in plain memory: random writes, checkpoints, crashes, suspends, restores, on the real kernel.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::{path::Path, sync::Arc};

use segvm::{
    CheckpointError, Fingerprint, OpenError, Rounds, Segment, SegmentOptions, Session,
    SessionOptions,
};
use segvm_blockcache::disk::RealDisk;
use segvm_home::{DirHome, Holder};
use support::Rng;

const LEN: usize = 24 << 20;

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("image").unwrap()
}

fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

fn same(segment: &Segment, model: &[u8]) {
    let bytes = content(segment);
    assert_eq!(bytes.len(), model.len());
    if let Some(at) = bytes.iter().zip(model).position(|(a, b)| a != b) {
        panic!(
            "byte {at} (page {}) is {} and not {}",
            at / 4096,
            bytes[at],
            model[at]
        );
    }
}

/// Writes some runs of some bytes, in both.
fn scribble(rng: &mut Rng, segment: &Segment, model: &mut [u8]) {
    for _ in 0..rng.below(40) {
        let most = [8, 300, 5000, 200_000][rng.below(4)];
        let len = 1 + rng.below(most);
        let at = rng.below(model.len() - len);
        let zero = rng.below(8) == 0;
        let seed = rng.next();
        let bytes: Vec<u8> = (0..len)
            .map(|i| {
                if zero {
                    0
                } else {
                    ((seed.wrapping_add(i as u64)) % 251) as u8
                }
            })
            .collect();
        segment.write(at, &bytes).unwrap();
        model[at..at + len].copy_from_slice(&bytes);
    }
}

#[test]
fn what_was_checkpointed_comes_back() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", LEN).unwrap();
    let base = segment.as_ptr();
    segment.write(5_000_000, b"hello").unwrap();
    let saved = session.suspend().unwrap();
    assert!(saved.changed);
    let session = open(store.path());
    let segment = session.segment("memory", 0).unwrap();
    assert_eq!((segment.as_ptr(), segment.len()), (base, LEN));
    let mut found = [0; 5];
    segment.read(5_000_000, &mut found).unwrap();
    assert_eq!(&found, b"hello");
}

#[test]
fn random_histories_agree_with_a_model() {
    for seed in 1..=4_u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let store = tempfile::tempdir().unwrap();
        let mut session = open(store.path());
        let mut segment = session.segment("memory", LEN).unwrap();
        let mut now = vec![0; LEN];
        // (what was saved, its commit), newest last.
        let mut saved: Vec<(Vec<u8>, String)> = Vec::new();
        for step in 0..60 {
            match rng.below(10) {
                0..=3 => scribble(&mut rng, &segment, &mut now),
                4..=6 => {
                    let rounds = if rng.below(2) == 0 {
                        Rounds::Auto
                    } else {
                        Rounds::Off
                    };
                    let done = session.checkpoint_with(rounds).unwrap();
                    if done.changed {
                        saved.push((now.clone(), done.commit.to_string()));
                    }
                }
                7 => {
                    let done = session.suspend().unwrap();
                    if done.changed {
                        saved.push((now.clone(), done.commit.to_string()));
                    }
                    session = open(store.path());
                    segment = session.segment("memory", LEN).unwrap();
                }
                8 => {
                    drop(session);
                    session = open(store.path());
                    segment = session.segment("memory", LEN).unwrap();
                    now = saved
                        .last()
                        .map_or_else(|| vec![0; LEN], |(bytes, _)| bytes.clone());
                }
                _ => {
                    if let Some((bytes, commit)) = saved.get(rng.below(saved.len().max(1))) {
                        session.restore(&commit[..12]).unwrap();
                        now.clone_from(bytes);
                    }
                }
            }
            if step % 5 == 0 {
                same(&segment, &now);
            }
        }
        same(&segment, &now);
    }
}

#[test]
fn a_checkpoint_of_nothing_makes_no_commit_and_writes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", LEN).unwrap();
    segment.write(0, &[7; 100_000]).unwrap();
    let first = session.checkpoint().unwrap();
    let second = session.checkpoint().unwrap();
    assert!(first.changed && !second.changed);
    assert_eq!(first.commit, second.commit);
    assert_eq!(second.bytes_written, 0);
    // Written, but with what was there.
    segment.write(0, &[7; 100_000]).unwrap();
    let third = session.checkpoint().unwrap();
    assert!(!third.changed && third.blocks_dirty > 0);
    assert_eq!(third.bytes_blocks, 0);
}

#[test]
fn work_is_in_proportion_to_what_changed_also_after_many_resumes() {
    let store = tempfile::tempdir().unwrap();
    for round in 0..10_u8 {
        let session = open(store.path());
        let segment = session.segment("memory", LEN).unwrap();
        if round == 0 {
            let bytes: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
            segment.write(0, &bytes).unwrap();
            session.checkpoint().unwrap();
        }
        // Everything is read: populated, but not dirty.
        content(&segment);
        for step in 0..20_u8 {
            segment
                .write(usize::from(step) * 1_000_000, &[round + 1; 10])
                .unwrap();
            let saved = session.checkpoint().unwrap();
            assert_eq!(
                saved.blocks_dirty, 1,
                "round {round} step {step}: {saved:?}"
            );
            assert!(
                saved.bytes_written < 100_000,
                "round {round} step {step}: {saved:?}"
            );
        }
        session.suspend().unwrap();
    }
}

#[test]
fn several_segments_and_sessions_live_in_one_process() {
    let store = tempfile::tempdir().unwrap();
    let options = SessionOptions::new().store(store.path());
    let one = options.open("one").unwrap();
    let two = options.open("two").unwrap();
    let small = SegmentOptions::new().block_size(segvm::BlockSize::MIN);
    for (session, byte) in [(&one, 1_u8), (&two, 2)] {
        session
            .segment("a", 1 << 20)
            .unwrap()
            .write(0, &[byte; 5000])
            .unwrap();
        session
            .segment_with("b", 1 << 20, &small)
            .unwrap()
            .write(9000, &[byte + 10; 5000])
            .unwrap();
        session.checkpoint().unwrap();
    }
    drop((one, two));
    for (name, byte) in [("one", 1_u8), ("two", 2)] {
        let session = options.open(name).unwrap();
        let (a, b) = (
            session.segment("a", 0).unwrap(),
            session.segment("b", 0).unwrap(),
        );
        assert_eq!(content(&a)[..5000], [byte; 5000]);
        assert_eq!(content(&b)[9000..14000], [byte + 10; 5000]);
    }
}

#[test]
fn an_image_opened_twice_is_refused_with_who_has_it() {
    let store = tempfile::tempdir().unwrap();
    let _first = open(store.path());
    let error = SessionOptions::new()
        .store(store.path())
        .open("image")
        .unwrap_err();
    assert!(matches!(error, OpenError::Lease(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn a_stolen_session_commits_no_more_and_keeps_its_addresses_while_it_lives() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", 1 << 20).unwrap();
    segment.write(0, b"kept").unwrap();
    session.checkpoint().unwrap();
    let home = DirHome::open(Arc::new(RealDisk), store.path().to_owned());
    let holder = Holder {
        pid: std::process::id(),
        host: "box".into(),
        program: "thief".into(),
        since: std::time::SystemTime::now().into(),
    };
    drop(home.steal(&"image".parse().unwrap(), holder).unwrap());
    segment.write(0, b"lost").unwrap();
    let error = session.checkpoint().unwrap_err();
    assert!(matches!(error, CheckpointError::Orphaned { .. }), "{error}");
    assert!(error.to_string().contains("taken over by thief"), "{error}");
    assert_eq!(content(&segment)[..4], *b"lost", "the program goes on");
    let again = SessionOptions::new().store(store.path()).open("image");
    let error = again.unwrap_err();
    // Not for the lease, and not for the pack: only the addresses are in use in this process.
    assert!(matches!(error, OpenError::Range(_)), "{error}");
    drop(session);
    let session = open(store.path());
    let segment = session.segment("memory", 1 << 20).unwrap();
    assert_eq!(content(&segment)[..4], *b"kept");
    session.checkpoint().unwrap();
}

#[test]
fn a_pass_held_by_this_thread_is_told_at_once() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let pass = session.enter().unwrap();
    let error = session.checkpoint().unwrap_err();
    assert!(
        matches!(
            error,
            CheckpointError::Gate(segvm::gate::GateError::HeldHere { .. })
        ),
        "{error}"
    );
    drop(pass);
    session.checkpoint().unwrap();
}

#[test]
fn a_handle_tells_when_a_background_checkpoint_is_durable() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", LEN).unwrap();
    segment.write(1234, b"background").unwrap();
    let saved = session.start_checkpoint().unwrap().wait().unwrap();
    assert!(saved.changed);
    assert_eq!(session.head(), Some(saved.commit));
}

#[test]
fn another_program_is_refused_unless_it_insists() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    session
        .segment("memory", 1 << 20)
        .unwrap()
        .write(0, b"mine")
        .unwrap();
    session.suspend().unwrap();
    // The same test under another name is another program.
    let me = std::env::current_exe().unwrap();
    let other = store.path().join("other-program");
    std::fs::copy(me, &other).unwrap();
    for (insist, want) in [("no", "written by program"), ("yes", "opened")] {
        let out = std::process::Command::new(&other)
            .args(["--exact", "helper_opens_what_another_made", "--nocapture"])
            .env("SEGVM_TEST_STORE", store.path())
            .env("SEGVM_TEST_INSIST", insist)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains(want), "{insist}: {said}");
    }
}

/// The other program of the test above; on its own it has nothing to open.
#[test]
fn helper_opens_what_another_made() {
    let Some(store) = std::env::var_os("SEGVM_TEST_STORE") else {
        return;
    };
    let mut options = SessionOptions::new().store(store);
    if std::env::var_os("SEGVM_TEST_INSIST").is_some_and(|insist| insist == "yes") {
        options = options.any_program();
    }
    match options.open("image") {
        Ok(_session) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn a_branch_starts_where_the_image_was() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let error = session.branch("other").unwrap_err();
    assert!(matches!(error, OpenError::NothingSaved { .. }), "{error}");
    let segment = session.segment("memory", 1 << 20).unwrap();
    segment.write(0, b"before").unwrap();
    session.checkpoint().unwrap();
    session.branch("other").unwrap();
    assert!(matches!(
        session.branch("other").unwrap_err(),
        OpenError::Exists { .. }
    ));
    segment.write(0, b"after!").unwrap();
    session.suspend().unwrap();
    // In one process the two cannot be mapped: they have the same base. The second says who had it.
    let error = SessionOptions::new()
        .store(store.path())
        .open("other")
        .unwrap_err();
    assert!(error.to_string().contains("`image`"), "{error}");
}

#[test]
fn a_branch_goes_back_beyond_the_point_where_it_was_made() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = session.segment("memory", 1 << 20).unwrap();
    for text in ["first", "other"] {
        segment.write(0, text.as_bytes()).unwrap();
        session.checkpoint().unwrap();
    }
    session.branch("branch").unwrap();
    segment.write(0, b"later").unwrap();
    session.suspend().unwrap();
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "helper_takes_a_branch_back",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SEGVM_TEST_BRANCH", store.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("other, other, first."), "{said}");
}

/// The other process of the test above: two images with one base cannot be mapped in one.
#[test]
fn helper_takes_a_branch_back() {
    let Some(store) = std::env::var_os("SEGVM_TEST_BRANCH") else {
        return;
    };
    let session = SessionOptions::new().store(store).open("branch").unwrap();
    let segment = session.segment("memory", 1 << 20).unwrap();
    let text = || String::from_utf8(content(&segment)[..5].to_vec()).unwrap();
    let newest = text();
    // The first commit of the branch says what the image's newest said.
    session.restore("-1").unwrap();
    let point = text();
    session.restore("-2").unwrap();
    println!("{newest}, {point}, {}.", text());
}

#[test]
fn a_fragmented_image_comes_back_while_its_windows_are_laid_out_again() {
    let store = tempfile::tempdir().unwrap();
    let small = SegmentOptions::new().block_size(segvm::BlockSize::MIN);
    let mut rng = Rng(0x5eed_0003);
    let mut model = vec![0; LEN];
    for life in 0..3 {
        let session = open(store.path());
        let segment = session.segment_with("memory", LEN, &small).unwrap();
        same(&segment, &model);
        for step in 0..12 {
            for _ in 0..600 {
                let at = rng.below(LEN / 4096) * 4096;
                let byte = u8::try_from(rng.below(256)).unwrap();
                segment.write(at, &[byte; 4096]).unwrap();
                model[at..at + 4096].fill(byte);
            }
            let saved = session.checkpoint().unwrap();
            assert!(saved.changed, "life {life} step {step}");
        }
        if life == 1 {
            // As if killed: what was being laid out again is not sealed.
            drop(session);
        } else {
            session.suspend().unwrap();
        }
    }
    let session = open(store.path());
    same(
        &session.segment_with("memory", LEN, &small).unwrap(),
        &model,
    );
}

#[test]
fn a_segment_whose_bytes_mean_something_else_is_refused_with_both_meanings() {
    let store = tempfile::tempdir().unwrap();
    let (grid, list) = (Fingerprint::named("grid v2"), Fingerprint::named("list v1"));
    let says = |meaning| SegmentOptions::new().fingerprint(meaning);
    let session = open(store.path());
    let segment = session.segment_with("cells", LEN, &says(grid)).unwrap();
    segment.write(0, b"cells").unwrap();
    session.segment("bare", LEN).unwrap();
    session.suspend().unwrap();
    let session = open(store.path());
    let refused = |name: &str, meaning| {
        let error = session.segment_with(name, 0, &says(meaning)).unwrap_err();
        let text = error.to_string();
        match error {
            OpenError::OtherFingerprint {
                recorded, wanted, ..
            } => (recorded, wanted, text),
            other => panic!("{other}"),
        }
    };
    let (recorded, wanted, text) = refused("cells", list);
    assert_eq!((recorded, wanted), (grid, list));
    for said in ["`cells`", "`image`", "\"grid v2\"", "\"list v1\""] {
        assert!(text.contains(said), "no {said} in: {text}");
    }
    // Who said nothing when the segment was made cannot have meant this.
    let (recorded, _, text) = refused("bare", list);
    assert_eq!(recorded, Fingerprint::NONE);
    assert!(text.contains("nothing in particular"), "{text}");
    // A refusal changes nothing: who agrees gets it, and who does not ask too.
    let agreed = session.segment_with("cells", 0, &says(grid)).unwrap();
    assert_eq!(content(&agreed)[..5], *b"cells");
    assert_eq!(session.segment("cells", 0).unwrap().fingerprint(), grid);
    // It outlives a session that did not say it.
    agreed.write(0, b"CELLS").unwrap();
    session.suspend().unwrap();
    let session = open(store.path());
    assert!(session.segment_with("cells", 0, &says(list)).is_err());
    assert!(session.segment_with("cells", 0, &says(grid)).is_ok());
}
