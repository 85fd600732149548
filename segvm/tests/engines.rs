//! Whole sessions by each engine, forced: random histories against a model, and writers beside checkpoints.
//!
//! All other tests of sessions run by any engine, too: `SEGVM_ENGINE=mprotect cargo nextest run -p segvm`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::host_endian_bytes,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    fs::File,
    io::Read as _,
    os::fd::AsRawFd,
    path::Path,
    process::Command,
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use segvm::{Engine, OpenError, Rounds, Segment, Session, SessionOptions, gate::GateError};

const LEN: usize = 12 << 20;
const PAGE: usize = 4096;

fn open(store: &Path, engine: Engine) -> Session {
    let options = SessionOptions::new().store(store).engine(engine);
    options.open("image").unwrap()
}

fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

#[track_caller]
fn same(found: &[u8], model: &[u8], what: &str) {
    assert_eq!(found.len(), model.len(), "{what}");
    if let Some(at) = found.iter().zip(model).position(|(a, b)| a != b) {
        let pages = found.chunks(PAGE).zip(model.chunks(PAGE));
        let wrong = pages.filter(|(a, b)| a != b).count();
        panic!(
            "{what}: {wrong} pages are wrong, the first is {}",
            at / PAGE
        );
    }
}

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 11) as usize
}

fn scribble(seed: &mut u64, segment: &Segment, model: &mut [u8]) {
    for _ in 0..next(seed) % 40 {
        let len = 1 + next(seed) % [8, 300, 5000, 200_000][next(seed) % 4];
        let at = next(seed) % (model.len() - len);
        let paint = next(seed);
        let bytes: Vec<u8> = (0..len).map(|i| ((paint + i) % 251) as u8).collect();
        segment.write(at, &bytes).unwrap();
        model[at..at + len].copy_from_slice(&bytes);
    }
}

/// Writes, checkpoints, suspends, crashes and restores; `engine` says by which engine the image is opened each time.
fn history(mut seed: u64, engine: impl Fn(usize) -> Engine) {
    let store = tempfile::tempdir().unwrap();
    let mut session = open(store.path(), engine(0));
    let mut segment = session.segment("memory", LEN).unwrap();
    let mut now = vec![0; LEN];
    let mut saved = vec![(
        now.clone(),
        session.checkpoint().unwrap().commit.to_string(),
    )];
    let mut opened = 0;
    for step in 0..60 {
        let seed = &mut seed;
        match next(seed) % 10 {
            0..=3 => scribble(seed, &segment, &mut now),
            4..=6 => {
                let rounds = [Rounds::Auto, Rounds::Off][next(seed) % 2];
                let done = session.checkpoint_with(rounds).unwrap();
                saved.push((now.clone(), done.commit.to_string()));
            }
            7 => {
                let done = session.suspend().unwrap();
                saved.push((now.clone(), done.commit.to_string()));
                opened += 1;
                session = open(store.path(), engine(opened));
                segment = session.segment("memory", LEN).unwrap();
            }
            8 => {
                drop(session);
                opened += 1;
                session = open(store.path(), engine(opened));
                segment = session.segment("memory", LEN).unwrap();
                now.clone_from(&saved.last().unwrap().0);
            }
            _ => {
                let (bytes, commit) = &saved[next(seed) % saved.len()];
                session.restore(&commit[..12]).unwrap();
                now.clone_from(bytes);
                saved.push((
                    now.clone(),
                    session.checkpoint().unwrap().commit.to_string(),
                ));
            }
        }
        if step % 5 == 0 {
            same(&content(&segment), &now, &format!("step {step}"));
        }
    }
    for (bytes, commit) in &saved {
        session.restore(&commit[..12]).unwrap();
        same(&content(&segment), bytes, commit);
    }
}

#[test]
fn random_histories_agree_with_a_model_by_each_engine() {
    for engine in Engine::ALL {
        for seed in 1..=2 {
            history(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), |_| engine);
        }
    }
}

/// An image knows no engine: whoever opens it next may have another, in the same process too.
#[test]
fn engines_take_turns_on_one_image() {
    let all = Engine::ALL;
    for seed in 4..=5 {
        history(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), |n| {
            all[n % all.len()]
        });
    }
}

fn word(segment: &Segment, at: usize) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= segment.len());
    // SAFETY: committed memory, aligned, and in these tests written by atomics only.
    unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(segment.as_ptr() as usize + at) }
}

/// Each writer's change puts one number in two pages; what a commit holds follows from the writers' counters.
#[test]
fn commits_under_writers_hold_whole_changes_by_each_engine() {
    const WRITERS: usize = 3;
    let place = |writer: usize, n: u64| {
        let page = 8 + (n as usize * 7 + writer * 1009 + (n as usize >> 9) * 131) % 2000;
        page * PAGE + 8 * (1 + writer)
    };
    for engine in Engine::ALL {
        let store = tempfile::tempdir().unwrap();
        let session = open(store.path(), engine);
        let segment = session.segment("memory", LEN).unwrap();
        let stop = AtomicBool::new(false);
        let mut commits = Vec::new();
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (session, segment, stop) = (&session, &segment, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let pass = match session.enter() {
                            Ok(pass) => pass,
                            Err(GateError::Closed) => return,
                            Err(error) => panic!("{error}"),
                        };
                        let n = word(segment, writer * PAGE).load(Ordering::Relaxed) + 1;
                        word(segment, place(writer, n)).store(n, Ordering::Relaxed);
                        word(segment, writer * PAGE).store(n, Ordering::Relaxed);
                        drop(pass);
                    }
                });
            }
            for n in 0..12 {
                let mode = [Rounds::Auto, Rounds::Off][n % 2];
                let saved = session.checkpoint_with(mode);
                if saved.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                commits.push(saved.unwrap().commit.to_string());
            }
            stop.store(true, Ordering::Relaxed);
        });
        let mut changes = 0;
        for commit in &commits {
            session.restore(&commit[..12]).unwrap();
            let found = content(&segment);
            let mut model = vec![0; LEN];
            changes = 0;
            for writer in 0..WRITERS {
                let count = word(&segment, writer * PAGE).load(Ordering::Relaxed);
                for n in 1..=count {
                    let at = place(writer, n);
                    model[at..at + 8].copy_from_slice(&n.to_ne_bytes());
                }
                model[writer * PAGE..writer * PAGE + 8].copy_from_slice(&count.to_ne_bytes());
                changes += count;
            }
            same(&found, &model, &format!("{engine}, commit {commit:.12}"));
        }
        println!("{engine}: {changes} changes");
        assert!(changes > 1000, "{engine}: the writers hardly ran");
    }
}

#[test]
fn announced_system_calls_write_into_segments_by_each_engine() {
    for engine in Engine::ALL {
        let store = tempfile::tempdir().unwrap();
        let session = open(store.path(), engine);
        let segment = session.segment("memory", LEN).unwrap();
        segment.write(0, &vec![1; LEN]).unwrap();
        session.checkpoint().unwrap();
        let random = File::open("/dev/urandom").unwrap();
        let (mut bytes, len) = (content(&segment), 3 * PAGE);
        for n in 0..20 {
            let at = n * 777_777 % (LEN - len);
            let leave = segment.will_write(at, len).unwrap();
            let into = ptr::with_exposed_provenance_mut(segment.as_ptr() as usize + at);
            // SAFETY: committed memory of the segment, and the leave is a pass of the gate.
            let read = unsafe { libc::read(random.as_raw_fd(), into, len) };
            let error = std::io::Error::last_os_error();
            assert_eq!(usize::try_from(read), Ok(len), "{engine}: {error}");
            drop(leave);
            let mut written = vec![0; len];
            segment.read(at, &mut written).unwrap();
            bytes[at..at + len].copy_from_slice(&written);
            session.checkpoint().unwrap();
        }
        drop(session);
        let session = open(store.path(), engine);
        let segment = session.segment("memory", LEN).unwrap();
        same(&content(&segment), &bytes, engine.name());
    }
}

const CHILD: &str = "SEGVM_ENGINES_CHILD";

/// A process that takes its engine from the environment, and dies of `kill -9` while it checkpoints.
#[test]
fn killed_sessions_come_back_by_each_engine() {
    const WORDS: usize = 512;
    if let Some(store) = std::env::var_os(CHILD) {
        let name = std::env::var("SEGVM_ENGINE").unwrap();
        let session = SessionOptions::new().store(store).open(&name).unwrap();
        let segment = session.segment("memory", LEN).unwrap();
        let stdout = std::io::stdout();
        for n in word(&segment, 0).load(Ordering::Relaxed) + 1.. {
            let pass = session.enter().unwrap();
            for k in 0..WORDS {
                word(&segment, k * 5 * PAGE).store(n, Ordering::Relaxed);
            }
            drop(pass);
            session.checkpoint().unwrap();
            std::io::Write::write_all(&mut stdout.lock(), &[n as u8]).unwrap();
            std::io::Write::flush(&mut stdout.lock()).unwrap();
        }
    }
    for engine in Engine::ALL {
        let store = tempfile::tempdir().unwrap();
        let mut promised = 0_u64;
        for life in 0..6 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "killed_sessions_come_back_by_each_engine"])
                .args(["--nocapture", "--quiet"])
                .env(CHILD, store.path())
                .env("SEGVM_ENGINE", engine.name())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = child.stdout.take().unwrap();
            let (mut one, mut heard) = ([0], 0);
            while heard < 3 + life {
                said.read_exact(&mut one).unwrap();
                // What the test's harness prints comes first.
                if u64::from(one[0]) == promised + 1 {
                    promised += 1;
                    heard += 1;
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            // An image of its own for each: segments of one name would want one place in this process.
            let options = SessionOptions::new().store(store.path()).engine(engine);
            let session = options.open(engine.name()).unwrap();
            let segment = session.segment("memory", 0).unwrap();
            let n = word(&segment, 0).load(Ordering::Relaxed);
            assert!(n >= promised, "{engine}: {n} of {promised}");
            for k in 0..WORDS {
                assert_eq!(word(&segment, k * 5 * PAGE).load(Ordering::Relaxed), n);
            }
            promised = n;
        }
    }
}

#[test]
fn an_engine_that_is_none_is_refused_by_name() {
    if std::env::var_os(CHILD).is_some() {
        let refused = Session::open("image").unwrap_err();
        assert!(matches!(refused, OpenError::World(_)));
        eprintln!("{refused}");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_engine_that_is_none_is_refused_by_name",
            "--nocapture",
        ])
        .env(CHILD, "yes")
        .env("SEGVM_ENGINE", "soft-dirty")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for word in [
        "SEGVM_ENGINE",
        "`soft-dirty`",
        "wp-async",
        "wp-sync",
        "mprotect",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
