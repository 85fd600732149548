//! Hooks on whole sessions: order, what they are told, and that no hook takes the program or a checkpoint down with it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    env,
    error::Error as _,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use segvm::{
    Cause, CheckpointError, Error, OpenError, Rounds, Session, SessionOptions,
    hooks::{Flush, HookFailure, HookKind, Reason},
};

/// Names the store to the other process.
const STORE: &str = "SEGVM_TEST_STORE";

/// What happened, in order.
type Diary = Arc<Mutex<Vec<String>>>;

fn note(diary: &Diary, line: impl Into<String>) {
    diary.lock().unwrap().push(line.into());
}

fn read(diary: &Diary) -> Vec<String> {
    std::mem::take(&mut *diary.lock().unwrap())
}

fn options(store: &Path) -> SessionOptions {
    SessionOptions::new().store(store)
}

/// Writes down what it is told under each of two names.
fn told(store: &Path, diary: &Diary) -> SessionOptions {
    let mut options = options(store);
    for name in ["a", "b"] {
        let (flushed, resumed) = (Arc::clone(diary), Arc::clone(diary));
        options = options
            .on_flush(name, move |flush| {
                note(&flushed, format!("{name} flush {:?}", flush.reason()));
                flush.dropped(7);
                flush.dropped(if name == "a" { 1 } else { 2 });
            })
            .on_resume(name, move |told| {
                if told.cause != Cause::Failed {
                    let told_by_session = told.session.resumed().unwrap();
                    assert_eq!(told.cause, told_by_session.cause);
                    assert_eq!(told.generation, told_by_session.generation);
                }
                note(&resumed, format!("{name} {:?}", told.cause));
            });
    }
    options
}

fn set(session: &Session, to: u64) {
    *session.root::<u64>("count").unwrap().write() = to;
}

fn get(session: &Session) -> u64 {
    *session.root::<u64>("count").unwrap().read()
}

/// What a flush hook is to do, told from outside.
const WELL: u32 = 0;
const PANIC: u32 = 1;
const ERR: u32 = 2;
const OVERRUN: u32 = 3;

fn behave(mode: u32, flush: &Flush<'_>) -> Result<(), std::io::Error> {
    match mode {
        PANIC => panic!("mode {mode}"),
        ERR => Err(std::io::Error::other("no room")),
        OVERRUN => {
            while !flush.left().is_zero() {
                std::hint::spin_loop();
            }
            // Past it, and not at it.
            thread::sleep(Duration::from_millis(1));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[test]
fn flush_runs_in_order_and_resume_in_reverse_and_both_are_told_why() {
    let store = tempfile::tempdir().unwrap();
    let diary = Diary::default();
    let session = told(store.path(), &diary).open("image").unwrap();
    assert_eq!(read(&diary), [""; 0], "a new image goes on from nothing");
    set(&session, 1);
    let saved = session.checkpoint().unwrap();
    assert_eq!(read(&diary), ["a flush Checkpoint", "b flush Checkpoint"]);
    let dropped: Vec<_> = saved
        .flushed
        .iter()
        .map(|f| (&*f.hook, f.dropped))
        .collect();
    assert_eq!(dropped, [("a", 8), ("b", 9)]);
    set(&session, 2);
    session.start_checkpoint().unwrap().wait().unwrap();
    assert_eq!(read(&diary), ["a flush Checkpoint", "b flush Checkpoint"]);
    assert_eq!(session.flush().unwrap().len(), 2);
    assert_eq!(
        read(&diary),
        ["a flush MemoryPressure", "b flush MemoryPressure"]
    );
    session.restore("-1").unwrap();
    assert_eq!(read(&diary), ["b Restore", "a Restore"]);
    session.branch("other").unwrap();
    let saved = session.suspend().unwrap();
    assert_eq!(saved.flushed.len(), 2);
    assert_eq!(read(&diary), ["a flush Suspend", "b flush Suspend"]);

    let session = told(store.path(), &diary).open("image").unwrap();
    assert_eq!(read(&diary), ["b Resume", "a Resume"]);
    assert_eq!(get(&session), 1);
    // A branch lies at the same addresses: it takes another process.
    let there = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_branch_is_told_once", "--nocapture"])
        .env(STORE, store.path())
        .output()
        .unwrap();
    assert!(there.status.success(), "{there:?}");
    let said = String::from_utf8_lossy(&there.stdout);
    assert!(said.contains("branch and resume were told"), "{said}");
}

#[test]
fn a_branch_is_told_once() {
    let Some(store) = env::var_os(STORE) else {
        println!("skipped: run by another test, in a process of its own");
        return;
    };
    let (store, diary) = (Path::new(&store), Diary::default());
    let session = told(store, &diary).open("other").unwrap();
    assert_eq!(read(&diary), ["b Branch", "a Branch"]);
    set(&session, 9);
    session.suspend().unwrap();
    read(&diary);
    drop(told(store, &diary).open("other").unwrap());
    assert_eq!(read(&diary), ["b Resume", "a Resume"]);
    println!("branch and resume were told");
}

#[test]
fn resume_hooks_reach_roots_before_open_returns_and_know_how_long_it_was() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    set(&session, 5);
    let begun = std::time::SystemTime::now();
    session.suspend().unwrap();
    let elapsed = Arc::new(Mutex::new(Duration::MAX));
    let seen = Arc::clone(&elapsed);
    let session = options(store.path())
        .on_resume("reseed", move |told| {
            *seen.lock().unwrap() = told.elapsed;
            assert!(told.generation > 1 && told.cause == Cause::Resume);
            *told.session.root::<u64>("count")?.write() += 2;
            Ok::<_, Error>(())
        })
        .open("image")
        .unwrap();
    assert_eq!(get(&session), 7);
    let elapsed = *elapsed.lock().unwrap();
    assert!(elapsed > Duration::ZERO && elapsed <= begun.elapsed().unwrap());
}

#[test]
fn what_a_flush_hook_changes_is_part_of_the_checkpoint() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    set(&session, 5);
    session.on_flush("forget", |flush| set(flush.session(), 0));
    session.suspend().unwrap();
    assert_eq!(get(&options(store.path()).open("image").unwrap()), 0);
}

#[test]
fn a_hook_that_panics_errs_or_overruns_fails_its_checkpoint_by_name_and_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let (diary, mode) = (Diary::default(), Arc::new(AtomicU32::new(WELL)));
    let mut session = told(store.path(), &diary)
        .hook_limit(Duration::from_millis(300))
        .open("image")
        .unwrap();
    let asked = Arc::clone(&mode);
    session.on_flush("moody", move |flush| behave(asked.load(SeqCst), flush));
    let late = Arc::clone(&diary);
    session.on_flush("late", move |_| note(&late, "late"));
    set(&session, 1);
    let good = session.checkpoint().unwrap().commit;
    read(&diary);
    for (bad, suspend) in [
        (PANIC, false),
        (ERR, false),
        (OVERRUN, false),
        (PANIC, true),
        (ERR, true),
    ] {
        mode.store(bad, SeqCst);
        set(&session, u64::from(bad) + 1);
        let failed = if suspend {
            let refused = session.suspend().unwrap_err();
            let text = refused.to_string();
            session = refused.into_session();
            text
        } else {
            let error = session.checkpoint().unwrap_err();
            let CheckpointError::Hook(hook) = &error else {
                panic!("{error}")
            };
            assert_eq!((&*hook.hook, hook.kind), ("moody", HookKind::Flush));
            assert!(hook.source().is_some());
            match &hook.failure {
                HookFailure::Panicked { message } => assert_eq!(&**message, "mode 1"),
                HookFailure::Overran { took, limit } => assert!(took > limit),
                HookFailure::Failed(source) => assert_eq!(source.to_string(), "no room"),
                other => panic!("{other}"),
            }
            error.to_string()
        };
        assert!(failed.contains("`moody`"), "{failed}");
        // Later hooks did not run; who goes on is told.
        let lines = read(&diary);
        assert_eq!(lines[2..], ["b Failed", "a Failed"], "{lines:?}");
        assert_eq!(session.head(), Some(good));
        // The gate is open, and what was changed is not lost.
        set(&session, get(&session) + 100);
    }
    mode.store(WELL, SeqCst);
    let saved = session.checkpoint().unwrap();
    assert_eq!(saved.sequence, 2, "no attempt that failed left a commit");
    drop(session);
    assert_eq!(get(&options(store.path()).open("image").unwrap()), 103);
}

#[test]
fn an_automatic_checkpoint_tells_of_a_hook_that_failed_and_the_next_one_succeeds() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    let turn = AtomicU32::new(0);
    session.on_flush("moody", move |flush| {
        behave(u32::from(turn.fetch_add(1, SeqCst) == 0), flush)
    });
    let (tell, hear) = std::sync::mpsc::channel();
    set(&session, 3);
    let when = segvm::Automatic::every(Duration::from_millis(5));
    session
        .automatic(when.on_done(move |done| {
            let _over = tell.send(done.as_ref().map(|_| ()).map_err(ToString::to_string));
        }))
        .unwrap();
    let first = hear.recv().unwrap().unwrap_err();
    assert!(first.contains("`moody` panicked"), "{first}");
    hear.recv().unwrap().unwrap();
    drop(session);
    assert_eq!(get(&options(store.path()).open("image").unwrap()), 3);
}

#[test]
fn a_hook_may_not_checkpoint_its_own_session_and_may_another() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    let other = options(store.path()).open("other").unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    session.on_flush("greedy", move |flush| {
        let session = flush.session();
        let refused = |result: Result<(), CheckpointError>| match result {
            Err(CheckpointError::InHook { hook }) => assert_eq!(&*hook, "greedy"),
            other => panic!("{other:?}"),
        };
        refused(session.checkpoint().map(|_| ()));
        refused(session.checkpoint_with(Rounds::Off).map(|_| ()));
        refused(session.start_checkpoint().map(|_| ()));
        refused(session.checkpoint_every(Duration::from_secs(1)));
        refused(session.flush().map(|_| ()));
        let restore = session.restore("-0").unwrap_err();
        assert!(
            matches!(
                restore,
                OpenError::Checkpoint(CheckpointError::InHook { .. })
            ),
            "{restore}"
        );
        set(&other, 4);
        other.checkpoint().unwrap();
        counted.fetch_add(1, SeqCst);
    });
    set(&session, 1);
    session.checkpoint().unwrap();
    session.start_checkpoint().unwrap().wait().unwrap();
    assert_eq!(runs.load(SeqCst), 2);
    session.suspend().unwrap();
    assert_eq!(runs.load(SeqCst), 3);
}

#[test]
fn a_hook_that_waits_for_a_thread_that_checkpoints_is_named_and_not_waited_for_for_ever() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path())
        .gate_timeout(Duration::from_millis(50))
        .open("image")
        .unwrap();
    set(&session, 1);
    session.on_flush("tangled", |flush| {
        let session = flush.session();
        thread::scope(|scope| {
            let there = scope.spawn(|| session.checkpoint().unwrap_err());
            match there.join().unwrap() {
                CheckpointError::Hook(error) => {
                    assert_eq!(&*error.hook, "tangled");
                    assert!(matches!(error.failure, HookFailure::Busy { .. }), "{error}");
                }
                other => panic!("{other}"),
            }
        });
    });
    session.checkpoint().unwrap();
}

#[test]
fn a_resume_hook_that_fails_fails_the_open_and_gives_the_lease_back() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    set(&session, 1);
    session.suspend().unwrap();
    let diary = Diary::default();
    let error = told(store.path(), &diary)
        .on_resume("reseed", |_| Err::<(), _>("no entropy"))
        .open("image")
        .unwrap_err();
    let OpenError::Hook(hook) = &error else {
        panic!("{error}")
    };
    assert_eq!((&*hook.hook, hook.kind), ("reseed", HookKind::Resume));
    assert_eq!(
        error.to_string(),
        "the resume hook `reseed` failed: no entropy"
    );
    assert_eq!(read(&diary).len(), 2, "the others ran");

    let session = options(store.path()).open("image").unwrap();
    assert_eq!(get(&session), 1);
    // After a restore the error is told, and memory is the older commit's.
    set(&session, 2);
    session.checkpoint().unwrap();
    session.on_resume("reseed", |told| match told.cause {
        Cause::Restore => Err("no entropy"),
        _ => Ok(()),
    });
    assert!(matches!(
        session.restore("-1").unwrap_err(),
        OpenError::Hook(_)
    ));
    assert_eq!(get(&session), 1);
}

#[test]
fn two_failures_are_both_told() {
    let store = tempfile::tempdir().unwrap();
    let session = options(store.path()).open("image").unwrap();
    session.on_flush("down", |flush| match flush.reason() {
        Reason::Checkpoint => Err("one"),
        _ => Ok(()),
    });
    session.on_resume("up", |told| {
        assert_eq!(told.cause, Cause::Failed);
        Err::<(), _>("two")
    });
    set(&session, 1);
    let error = session.checkpoint().unwrap_err();
    assert!(matches!(error, CheckpointError::Twice { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the flush hook `down` failed: one; and then the resume hook `up` failed: two"
    );
    session.suspend().unwrap();
}
