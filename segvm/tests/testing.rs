//! What `segvm::testing` offers to the tests of others, used by ours.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::time::Duration;

use segvm::{
    CheckpointError, SessionOptions,
    testing::{Lives, scratch},
};

fn counted(session: &segvm::Session) -> u64 {
    *session.root::<u64>("count").unwrap().read()
}

fn count(session: &segvm::Session) {
    *session.root::<u64>("count").unwrap().write() += 1;
}

#[test]
fn scratch_sessions_live_beside_each_other_and_leave_nothing() {
    let sessions = [scratch(), scratch(), scratch()];
    let stores: Vec<_> = sessions.iter().map(|s| s.store().to_owned()).collect();
    for session in sessions {
        count(&session);
        session.checkpoint().unwrap();
        count(&session);
        let session = session.reopened();
        assert_eq!(counted(&session), 1);
    }
    assert!(stores.iter().all(|store| !store.exists()));
}

#[test]
fn what_was_checkpointed_survives_kill_9_and_nothing_else() {
    let session = Lives::of("what_was_checkpointed_survives_kill_9_and_nothing_else")
        .life(|session| {
            assert!(session.is_new());
            count(session);
            session.checkpoint().unwrap();
            count(session);
        })
        .life(|session| {
            assert_eq!(counted(session), 1);
            count(session);
            session.checkpoint().unwrap();
        })
        // Wherever it is after a moment.
        .life_within(Duration::from_millis(200), |session| {
            loop {
                count(session);
                session.checkpoint().unwrap();
            }
        })
        .survivor();
    let saved = session.log().unwrap().len() as u64;
    // One more where the record was durable and its checkpoint had not returned: the log tells of it too.
    assert!(counted(&session) >= 2 && counted(&session) == saved);
}

/// Stolen by another process on the real kernel, killed before it is told; and told, and killed in its branch.
#[test]
fn a_stolen_program_that_is_killed_leaves_its_branch() {
    let session = Lives::of("a_stolen_program_that_is_killed_leaves_its_branch")
        .life(|session| {
            count(session);
            session.checkpoint().unwrap();
            count(session);
            // This process cannot open it a second time, but for the lease: the addresses are in use.
            let options =
                SessionOptions::new().store(std::env::var_os("SEGVM_TESTING_STORE").unwrap());
            options.clone().steal().open(&session.image()).unwrap_err();
            let error = session.checkpoint().unwrap_err();
            assert!(matches!(error, CheckpointError::Orphaned { .. }), "{error}");
            session.branch_here("rescued").unwrap();
            count(session);
            session.checkpoint().unwrap();
        })
        .survivor();
    assert_eq!(counted(&session), 1);
    let store = session.store().to_owned();
    let reader = || SessionOptions::new().store(&store).reader().open("rescued");
    // Its addresses are those of the image that it was branched off.
    assert!(reader().is_err());
    session.branch_here("away").unwrap();
    let error = reader().unwrap_err().to_string();
    assert!(error.contains("`away`"), "{error}");
}

#[test]
#[should_panic(expected = "ended by itself")]
fn a_life_that_fails_fails_the_test() {
    Lives::of("a_life_that_fails_fails_the_test")
        .life(|session| {
            session.restore("-7").unwrap();
        })
        .survivor();
}
