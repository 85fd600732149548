//! The gate's rules on whole sessions: who is refused, with which word, and that the session goes on afterwards.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::{
    env, mem,
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use segvm::{
    Automatic, CheckpointError, ClaimError, Error, OpenError, Root, Session, SessionOptions,
    gate::GateError,
    root::{GuardError, RootError},
};

/// Names the store to the other process.
const STORE: &str = "SEGVM_TEST_STORE";

/// Longer than anything here takes: a wait of this length is a deadlock that was told.
const NEVER: Duration = Duration::from_secs(60);

fn open(store: &Path) -> Session {
    open_with(store, NEVER)
}

fn open_with(store: &Path, gate_timeout: Duration) -> Session {
    let options = SessionOptions::new()
        .store(store)
        .gate_timeout(gate_timeout);
    options.open("rules").unwrap()
}

fn count(session: &Session) -> Root<u64> {
    session.root("count").unwrap()
}

/// A checkpoint that must succeed, and what it saved must be there in the next session.
fn goes_on(store: &Path, session: Session, root: &Root<u64>) {
    *root.write() = 4711;
    session.suspend().unwrap();
    let session = open(store);
    assert_eq!(*count(&session).read(), 4711);
}

#[test]
fn a_second_guard_on_one_thread_is_refused_and_the_first_one_still_works() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    let mut guard = root.write();
    assert!(matches!(
        root.try_write().unwrap_err(),
        GuardError::HeldHere { .. }
    ));
    assert!(matches!(
        root.try_read().unwrap_err(),
        GuardError::HeldHere { .. }
    ));
    // The root is found again by name, and is the same one.
    assert!(matches!(
        count(&session).try_write().unwrap_err(),
        GuardError::HeldHere { .. }
    ));
    *guard = 7;
    drop(guard);
    assert_eq!(*root.read(), 7);
    goes_on(store.path(), session, &root);
}

#[test]
fn checkpoint_suspend_and_restore_under_a_guard_name_it_and_the_session_goes_on() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 1;
    let first = session.checkpoint().unwrap().commit.to_string();
    let began = Instant::now();

    let guard = root.write();
    let held = GateError::HeldHere {
        what: "count".into(),
    };
    match session.checkpoint().unwrap_err() {
        CheckpointError::Gate(error) => assert_eq!(error, held),
        other => panic!("{other}"),
    }
    match session.restore(&first[..12]).unwrap_err() {
        OpenError::Gate(error) | OpenError::Checkpoint(CheckpointError::Gate(error)) => {
            assert_eq!(error, held)
        }
        other => panic!("{other}"),
    }
    let error = session.suspend().unwrap_err();
    assert!(error.to_string().contains("count"), "{error}");
    let session = error.into_session();
    drop(guard);

    // Readers keep suspend and restore waiting, but not checkpoints.
    let guard = root.read();
    session.checkpoint().unwrap();
    assert!(
        session
            .restore(&first[..12])
            .unwrap_err()
            .to_string()
            .contains("count")
    );
    let error = session.suspend().unwrap_err();
    assert!(error.to_string().contains("count"), "{error}");
    let session = error.into_session();
    drop(guard);

    assert!(began.elapsed() < NEVER, "somebody waited for this thread");
    session.restore(&first[..12]).unwrap();
    goes_on(store.path(), session, &root);
}

/// The checkpoint beside the program waits for this thread, and this thread must not wait for it in turn.
#[test]
fn suspend_and_restore_under_a_guard_do_not_wait_for_a_checkpoint_that_waits_for_it() {
    let store = tempfile::tempdir().unwrap();
    let session = open_with(store.path(), Duration::from_secs(2));
    let root = count(&session);
    *root.write() = 1;
    let first = session.checkpoint().unwrap().commit.to_string();
    let guard = root.write();
    let running = session.start_checkpoint().unwrap();
    let began = Instant::now();
    session.restore(&first[..12]).unwrap_err();
    let session = session.suspend().unwrap_err().into_session();
    let took = began.elapsed();
    drop(guard);
    assert!(took < Duration::from_secs(1), "refused after {took:?}");
    running.wait().unwrap();
    goes_on(store.path(), session, &root);
}

#[test]
fn a_forgotten_guard_is_held_here_and_leaked_once_its_thread_has_ended() {
    let store = tempfile::tempdir().unwrap();
    let session = open_with(store.path(), Duration::from_millis(100));
    let root = count(&session);
    *root.write() = 5;
    session.checkpoint().unwrap();
    thread::scope(|scope| {
        let forgetful = thread::Builder::new().name("forgetful".into());
        let work = || {
            mem::forget(root.write());
            match session.checkpoint().unwrap_err() {
                CheckpointError::Gate(GateError::HeldHere { what }) => assert_eq!(&*what, "count"),
                other => panic!("{other}"),
            }
        };
        forgetful.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
    match session.checkpoint().unwrap_err() {
        CheckpointError::Gate(GateError::Leaked { what, thread }) => {
            assert_eq!((&*what, &*thread), ("count", "forgetful"));
        }
        other => panic!("{other}"),
    }
    // Memory may not go away under the guard, so this process keeps it; what was saved before is there for another one.
    drop(session);
    let error = SessionOptions::new()
        .store(store.path())
        .open("rules")
        .unwrap_err();
    assert!(
        matches!(error, OpenError::Range(ClaimError::Open { .. })),
        "{error}"
    );
    let other = Command::new(env::current_exe().unwrap())
        .args(["--exact", "another_process_finds_what_was_saved"])
        .env(STORE, store.path())
        .output()
        .unwrap();
    assert!(other.status.success(), "{other:?}");
}

/// Run by the test above as another process; by itself it does nothing.
#[test]
fn another_process_finds_what_was_saved() {
    if let Some(store) = env::var_os(STORE) {
        assert_eq!(*count(&open(Path::new(&store))).read(), 5);
    }
}

#[test]
fn a_guard_that_is_held_for_too_long_is_named_with_its_thread() {
    let store = tempfile::tempdir().unwrap();
    let session = open_with(store.path(), Duration::from_millis(50));
    let root = count(&session);
    let (holding, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let slow = thread::Builder::new().name("slow".into());
        let root = &root;
        let work = move || {
            let _guard = root.write();
            holding.send(()).unwrap();
            released.recv().unwrap();
        };
        slow.spawn_scoped(scope, work).unwrap();
        is_held.recv().unwrap();
        match session.checkpoint().unwrap_err() {
            CheckpointError::Gate(GateError::TimedOut {
                what,
                thread,
                waited,
            }) => {
                assert_eq!((&*what, &*thread), ("count", "slow"));
                assert!(waited >= Duration::from_millis(50));
            }
            other => panic!("{other}"),
        }
        release.send(()).unwrap();
    });
    goes_on(store.path(), session, &root);
}

#[test]
fn automatic_checkpoints_tell_of_a_guard_held_for_long_and_go_on_after_it() {
    let store = tempfile::tempdir().unwrap();
    let session = open_with(store.path(), Duration::from_millis(30));
    let root = count(&session);
    *root.write() = 1;
    let (told, outcomes) = mpsc::channel();
    let every = Automatic::every(Duration::from_millis(10)).on_done(move |done| {
        let held = |error: &CheckpointError| {
            matches!(error, CheckpointError::Gate(GateError::TimedOut { .. }))
        };
        let _ended = told.send(done.as_ref().map(|saved| saved.changed).map_err(held));
    });
    session.automatic(every).unwrap();
    let mut guard = root.write();
    *guard = 2;
    let failed = outcomes
        .iter()
        .find(|outcome: &Result<bool, bool>| outcome.is_err());
    assert_eq!(failed, Some(Err(true)), "not the gate's error");
    drop(guard);
    assert!(
        outcomes.iter().any(|outcome| outcome == Ok(true)),
        "they did not go on"
    );
    drop(session);
    assert_eq!(*count(&open(store.path())).read(), 2);
}

#[test]
fn a_refused_suspend_leaves_automatic_checkpoints_on() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    let (told, outcomes) = mpsc::channel();
    let every = Automatic::every(Duration::from_millis(5)).on_done(move |done| {
        let _ended = told.send(done.as_ref().is_ok_and(|saved| saved.changed));
    });
    session.automatic(every).unwrap();
    let guard = root.read();
    let session = session.suspend().unwrap_err().into_session();
    drop(guard);
    // What was told before the refusal is not what is asked about.
    while outcomes.try_recv().is_ok() {}
    *root.write() = 9;
    assert!(
        outcomes.iter().any(|changed| changed),
        "no automatic checkpoint since the refused suspend"
    );
    drop(session);
    assert_eq!(*count(&open(store.path())).read(), 9);
}

#[test]
fn a_panic_in_a_write_guard_keeps_checkpoints_out_until_a_restore() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 10;
    let whole = session.checkpoint().unwrap();
    thread::scope(|scope| {
        let half_way = scope.spawn(|| {
            let mut guard = root.write();
            *guard = 11;
            panic!("half way (this panic belongs to the test)");
        });
        half_way.join().unwrap_err();
    });
    let error = session.checkpoint().unwrap_err();
    assert!(
        matches!(error, CheckpointError::Gate(GateError::Poisoned { .. })),
        "{error}"
    );
    let error = session.suspend().unwrap_err();
    assert!(
        matches!(
            error.reason,
            CheckpointError::Gate(GateError::Poisoned { .. })
        ),
        "{error}"
    );
    let session = error.into_session();
    assert_eq!(session.head(), Some(whole.commit));
    session.restore(&whole.commit.to_string()[..12]).unwrap();
    assert_eq!(*root.read(), 10);
    *root.write() += 1;
    assert!(session.checkpoint().unwrap().changed);
    goes_on(store.path(), session, &root);
}

#[test]
fn a_poisoned_session_that_ends_loses_only_what_was_half_made() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 10;
    session.checkpoint().unwrap();
    thread::scope(|scope| {
        let half_way = scope.spawn(|| {
            *root.write() = 11;
            let _guard = root.write();
            panic!("half way (this panic belongs to the test)");
        });
        half_way.join().unwrap_err();
    });
    drop(session);
    assert_eq!(*count(&open(store.path())).read(), 10);
}

#[test]
fn a_root_opened_as_another_type_is_refused_with_both_names_now_and_after_a_resume() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 3;
    let refused = |session: &Session| {
        let error = session.root::<[u8; 12]>("count").unwrap_err();
        let Error::Root(RootError::WrongType { name, mismatch, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!(name, "count");
        assert_eq!(mismatch.wanted().to_string(), "[u8; 12]");
        assert_eq!(mismatch.found().unwrap().to_string(), "u64");
    };
    refused(&session);
    assert_eq!(*root.read(), 3);
    session.suspend().unwrap();
    let session = open(store.path());
    refused(&session);
    assert_eq!(*count(&session).read(), 3);
}

#[test]
fn a_root_says_that_its_session_has_ended() {
    let store = tempfile::tempdir().unwrap();
    for suspended in [true, false] {
        let session = open(store.path());
        let root = count(&session);
        if suspended {
            session.suspend().unwrap();
        } else {
            drop(session);
        }
        for error in [root.try_read().unwrap_err(), root.try_write().unwrap_err()] {
            let GuardError::Closed { root, image } = error else {
                panic!("{error}");
            };
            assert_eq!((&*root, &*image), ("count", "rules"));
        }
    }
}
