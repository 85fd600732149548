//! Children: a child has no session, whatever it does with what it inherited, and the parent does not notice it.

use std::{
    mem, panic,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use segvm::{
    CheckpointError, Error, OpenError, Segment, Session, SessionOptions, gate::GateError,
    root::GuardError,
};

use super::harness::{PAGE, content, each_commit, get_in, memory, open, put, put_in, same, word};

const LEN: usize = 8 << 20;

/// Runs `work` in a forked child and answers its exit status. A child that hangs is ended by the alarm clock.
fn in_child(work: impl FnOnce()) -> i32 {
    // SAFETY: the child has one thread; it touches what the test gives it and ends without running the parent's exit
    // handlers. Its allocator is usable: glibc resets its locks in the child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::alarm(5) };
        let failed = panic::catch_unwind(panic::AssertUnwindSafe(work)).is_err();
        // SAFETY: ends the child on the spot.
        unsafe { libc::_exit(i32::from(failed)) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for the answer.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

/// Change `n`: one word in each 64th page, all of them in one pass.
fn change(session: &Session, segment: &Segment) {
    let _pass = session.enter().unwrap();
    let n = word(segment, 0).load(Ordering::Relaxed) + 1;
    for page in (0..LEN / PAGE).step_by(64) {
        put(segment, page * PAGE, n);
        put(segment, page * PAGE + 8 * (1 + n as usize % 500), n);
    }
}

/// Brings what memory was after change `from` to what it is after change `to`.
fn advance(bytes: &mut [u8], from: u64, to: u64) {
    for n in from + 1..=to {
        for page in (0..LEN / PAGE).step_by(64) {
            put_in(bytes, page * PAGE, n);
            put_in(bytes, page * PAGE + 8 * (1 + n as usize % 500), n);
        }
    }
}

#[test]
fn children_that_end_at_once_change_no_commit() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let stop = AtomicBool::new(false);
    let children = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change(&session, &segment);
            }
        });
        let forks = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(in_child(|| ()), 0);
                children.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            // Each commit is looked at afterwards, so there are not too many.
            let mut commits = 0;
            while commits < 40 {
                // A busy machine may be done with all of them before it makes one child.
                while children.load(Ordering::Relaxed) < commits.min(6) && !forks.is_finished() {
                    thread::yield_now();
                }
                // Without a change there is no new commit: the writer may not have had its turn.
                commits += usize::from(session.checkpoint().unwrap().changed);
                if commits > 6 && began.elapsed() > Duration::from_millis(700) {
                    break;
                }
                assert!(
                    began.elapsed() < Duration::from_secs(100),
                    "{commits} commits"
                );
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap();
        forks.join().unwrap();
    });
    assert!(children.into_inner() > 5);
    session.suspend().unwrap();
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let (mut bytes, mut n) = (vec![0; LEN], 0);
    let commits = each_commit(&session, &segment, |commit, found| {
        let to = get_in(found, 0);
        advance(&mut bytes, n, to);
        n = to;
        same(found, &bytes, &format!("commit {commit:.12}"));
    });
    assert!(commits > 5, "only {commits} commits");
}

#[test]
fn a_child_is_told_so_by_everything_and_the_parent_goes_on() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let root = session.root::<u64>("count").unwrap();
    *root.write() = 1;
    change(&session, &segment);
    let first = session.checkpoint().unwrap().commit;
    *root.write() = 2;
    change(&session, &segment);
    // A session's thread that the child will not have.
    session.start_checkpoint().unwrap().wait().unwrap();
    let mut sessions = Some(session);
    let status = in_child(|| {
        let session = sessions.take().unwrap();
        let forked = |error: &CheckpointError| matches!(error, CheckpointError::Forked { .. });
        assert!(forked(&session.checkpoint().unwrap_err()));
        assert!(forked(&session.start_checkpoint().unwrap_err()));
        assert!(forked(
            &session
                .checkpoint_every(Duration::from_millis(1))
                .unwrap_err()
        ));
        let open_forked = |error: OpenError| match error {
            OpenError::Checkpoint(error) => forked(&error),
            other => panic!("{other}"),
        };
        assert!(open_forked(
            session.restore(&first.to_string()[..12]).unwrap_err()
        ));
        assert!(open_forked(session.branch("child").unwrap_err()));
        assert!(open_forked(session.segment("other", PAGE).unwrap_err()));
        assert!(open_forked(segment.grow(2 * LEN).unwrap_err()));
        assert!(matches!(session.enter().unwrap_err(), GateError::Forked));
        assert!(matches!(
            segment.write(0, &[1]).unwrap_err(),
            GateError::Forked
        ));
        assert!(matches!(
            root.try_write().unwrap_err(),
            GuardError::Forked { .. }
        ));
        assert!(matches!(
            root.try_read().unwrap_err(),
            GuardError::Forked { .. }
        ));
        let error = session.root::<u64>("count").unwrap_err();
        assert!(
            matches!(&error, Error::Open(OpenError::Checkpoint(error)) if forked(error)),
            "{error}"
        );
        let session = match session.suspend() {
            Ok(_) => panic!("suspended"),
            Err(error) => {
                assert!(forked(&error.reason));
                error.into_session()
            }
        };
        // The drop of what it inherited does nothing.
        drop(session);
    });
    assert_eq!(status, 0, "see the child's panic");
    let session = sessions.take().unwrap();

    // The lease is still held: another process is refused.
    let refused = in_child(|| {
        let error = SessionOptions::new()
            .store(store.path())
            .open("hostile")
            .unwrap_err();
        assert!(matches!(error, OpenError::Lease(_)), "{error}");
    });
    assert_eq!(refused, 0, "see the child's panic");

    change(&session, &segment);
    *root.write() = 3;
    session.suspend().unwrap();
    let session = open(store.path());
    assert_eq!(*session.root::<u64>("count").unwrap().read(), 3);
    let mut bytes = vec![0; LEN];
    advance(&mut bytes, 0, 3);
    same(
        &content(&memory(&session, LEN)),
        &bytes,
        "after the children",
    );
}

/// A child that inherits a pass and a guard, and drops them: the parent's are not given back by that.
#[test]
fn what_a_child_drops_the_parent_still_holds() {
    let store = tempfile::tempdir().unwrap();
    let options = SessionOptions::new()
        .store(store.path())
        .gate_timeout(Duration::from_millis(50));
    let session = options.open("hostile").unwrap();
    let root = session.root::<u64>("count").unwrap();
    let mut guards = Some((session.enter().unwrap(), root.write()));
    assert_eq!(in_child(|| drop(guards.take())), 0);
    thread::scope(|scope| {
        let elsewhere = scope.spawn(|| session.checkpoint().unwrap_err());
        let error = elsewhere.join().unwrap();
        assert!(
            matches!(error, CheckpointError::Gate(GateError::TimedOut { .. })),
            "{error}"
        );
    });
    *guards.as_mut().unwrap().1 = 8;
    drop(guards);
    session.suspend().unwrap();
    assert_eq!(*open(store.path()).root::<u64>("count").unwrap().read(), 8);
}

/// A child that forgets nothing and ends while the parent is in the middle of a checkpoint.
#[test]
fn a_child_born_in_the_middle_of_a_checkpoint_drops_what_it_inherited() {
    let store = tempfile::tempdir().unwrap();
    let mut sessions = Some(open(store.path()));
    let segment = memory(sessions.as_ref().unwrap(), LEN);
    for n in 1..=10_u8 {
        let session = sessions.as_ref().unwrap();
        segment.write(0, &vec![n; LEN]).unwrap();
        let running = session.start_checkpoint().unwrap();
        while running.bytes_done() == 0 && !running.is_done() {
            thread::yield_now();
        }
        // The thread that holds the session's locks does not exist in the child.
        assert_eq!(
            in_child(|| drop(sessions.take())),
            0,
            "the child hangs or panics"
        );
        running.wait().unwrap();
    }
    mem::drop(sessions);
    let session = open(store.path());
    assert!(
        content(&memory(&session, LEN))
            .iter()
            .all(|&byte| byte == 10)
    );
}
