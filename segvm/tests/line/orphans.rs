//! Who loses its image goes on, is told, and may branch; who took it is never kept out by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use segvm::{Automatic, Cause, CheckpointError, OpenError};

use super::*;

fn taken(error: &CheckpointError) -> (String, u32) {
    match error {
        CheckpointError::Orphaned { by } => {
            assert!(by.since.is_some());
            (by.image.clone(), by.pid)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_stolen_session_is_told_by_whom_and_keeps_its_memory_in_a_branch() {
    let disk = MemDisk::new();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "saved");
    let last = victim.checkpoint().unwrap().commit;
    say(&memory, "not saved yet");

    let (thief, stolen) = steal(&disk, "notes");
    assert_eq!(said(&stolen), "saved");
    assert_eq!(thief.resumed().unwrap().cause, Cause::Clone);
    say(&stolen, "the thief's");
    thief.checkpoint().unwrap();

    for _ in 0..2 {
        let error = victim.checkpoint().unwrap_err();
        assert_eq!(taken(&error), ("notes".to_owned(), std::process::id()));
        let text = error.to_string();
        assert!(text.contains("Session::branch_here"), "{text}");
    }
    assert_eq!(said(&memory), "not saved yet", "the program goes on");
    assert_eq!(victim.head(), Some(last));

    victim.branch_here("rescued").unwrap();
    assert_eq!(victim.image(), "rescued");
    assert_eq!(victim.resumed().unwrap().cause, Cause::Branch);
    assert_eq!(victim.log().unwrap().len(), 1);
    assert_eq!(victim.log().unwrap()[0].commit.parents, [last]);
    say(&memory, "and on");
    victim.checkpoint().unwrap();
    // Back to before the branch, into what it shares with the thief.
    victim.restore("-2").unwrap();
    assert_eq!(said(&memory), "saved");
    victim.restore("-1").unwrap();
    assert_eq!(said(&memory), "not saved yet");
    drop((victim, thief));

    assert_eq!(said(&write(&disk, "notes").1), "the thief's");
    let (rescued, memory) = write(&disk, "rescued");
    assert_eq!(said(&memory), "and on");
    assert_eq!(rescued.resumed().unwrap().cause, Cause::Resume);
}

#[test]
fn the_thief_opens_and_reopens_while_its_victim_sleeps() {
    let disk = MemDisk::new();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "one");
    victim.checkpoint().unwrap();
    say(&memory, "two");
    victim.checkpoint().unwrap();
    // The victim says nothing at all meanwhile: its pack stays open behind the mark.
    let (thief, stolen) = steal(&disk, "notes");
    assert_eq!(said(&stolen), "two");
    drop(thief);
    for round in 0..3 {
        let (next, memory) = write(&disk, "notes");
        let before = if round == 0 {
            "two".to_owned()
        } else {
            format!("round {}", round - 1)
        };
        assert_eq!(said(&memory), before);
        say(&memory, &format!("round {round}"));
        next.checkpoint().unwrap();
        if round == 1 {
            next.restore("-3").unwrap();
            assert_eq!(
                said(&memory),
                "one",
                "older commits lie in the sleeper's pack"
            );
            next.restore("-0").unwrap();
        }
        next.suspend().unwrap();
    }
    // It dies without ever having been told: now its pack is sealed by whoever comes, and nothing was lost.
    drop(victim);
    let (next, memory) = write(&disk, "notes");
    assert_eq!(said(&memory), "round 2");
    // Before it: one more that notes the restore, then rounds 1 and 0, then two.
    next.restore("-5").unwrap();
    assert_eq!(said(&memory), "one");
}

#[test]
fn an_orphan_that_was_told_lets_its_pack_be_mapped() {
    let disk = MemDisk::new();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "saved");
    victim.checkpoint().unwrap();
    drop(steal(&disk, "notes"));
    say(&memory, "lost");
    taken(&victim.checkpoint().unwrap_err());
    // Only who is a thief's victim and lives would have made this a copy.
    let (next, memory) = write(&disk, "notes");
    assert_eq!(said(&memory), "saved");
    assert_eq!(next.resumed().unwrap().cause, Cause::Resume);
    next.suspend().unwrap();
    drop(victim);
}

#[test]
fn a_refused_branch_leaves_the_orphan_what_it_was() {
    let disk = MemDisk::new();
    let (other, _) = write(&disk, "other");
    other.checkpoint().unwrap();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "saved");
    victim.checkpoint().unwrap();
    let (_thief, _) = steal(&disk, "notes");
    say(&memory, "kept");
    taken(&victim.checkpoint().unwrap_err());
    let error = victim.branch_here("other").unwrap_err();
    assert!(matches!(error, OpenError::Lease(_)), "{error}");
    drop(other);
    let error = victim.branch_here("other").unwrap_err();
    assert!(matches!(error, OpenError::Exists { .. }), "{error}");
    assert_eq!(victim.image(), "notes");
    taken(&victim.checkpoint().unwrap_err());
    victim.branch_here("free").unwrap();
    drop(victim);
    assert_eq!(said(&write(&disk, "free").1), "kept");
}

#[test]
fn automatic_checkpoints_of_an_orphan_stop_with_one_message_and_go_on_with_its_branch() {
    let disk = MemDisk::new();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "saved");
    victim.checkpoint().unwrap();
    let (told, hear) = mpsc::channel();
    let refusals = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&refusals);
    let when = Automatic::every(Duration::from_millis(1)).on_done(move |done| match done {
        Ok(saved) if saved.changed => told.send("saved").unwrap(),
        Ok(_) => {}
        Err(CheckpointError::Orphaned { .. }) => {
            count.fetch_add(1, Ordering::Relaxed);
            told.send("orphaned").unwrap();
        }
        Err(other) => panic!("{other}"),
    });
    victim.automatic(when).unwrap();
    let (_thief, _) = steal(&disk, "notes");
    say(&memory, "mine");
    let wait = Duration::from_secs(60);
    while hear.recv_timeout(wait).unwrap() != "orphaned" {}
    // It would have asked hundreds of times; a handle waits for the thread's next turn, and is refused too.
    taken(&victim.start_checkpoint().unwrap().wait().unwrap_err());
    assert!(hear.recv_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(refusals.load(Ordering::Relaxed), 1);
    victim.branch_here("rescued").unwrap();
    say(&memory, "mine, later");
    while hear.recv_timeout(wait).unwrap() != "saved" {}
    drop(victim);
    assert_eq!(said(&write(&disk, "rescued").1), "mine, later");
}

#[test]
fn a_writer_that_branches_here_leaves_its_image_to_others() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    say(&memory, "saved");
    session.checkpoint().unwrap();
    say(&memory, "tried");
    session.branch_here("try").unwrap();
    let (_other, notes) = write(&disk, "notes");
    assert_eq!(said(&notes), "saved");
    say(&memory, "tried more");
    session.suspend().unwrap();
    assert_eq!(said(&write(&disk, "try").1), "tried more");
}

#[test]
fn a_session_that_saved_nothing_yet_branches_to_an_image_of_its_own() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    say(&memory, "new");
    session.branch_here("other").unwrap();
    assert_eq!(session.log().unwrap()[0].commit.parents, []);
    drop(session);
    let (other, memory) = write(&disk, "other");
    assert_eq!(said(&memory), "new");
    assert_eq!(other.resumed().unwrap().cause, Cause::Resume);
    assert!(matches!(
        refused(&process(&disk).reader(), "notes"),
        OpenError::NoImage { .. }
    ));
}
