//! Who is refused, what they are told, and which lock says who is alive.

use std::{
    fs,
    io::{Read, Write},
    process,
    time::Duration,
};

use nix::{
    sys::{
        signal::{self, Signal},
        wait,
    },
    unistd,
};
use segvm_blockcache::disk::{Disk, LockAttempt, RealDisk};
use segvm_home::{AcquireError, LeaseFileError, PublishError, lease::Checkout};

use crate::{commit, fork, holder, home, line, notes, reader};

#[test]
fn a_stolen_holder_is_refused_and_told_by_whom_since_when_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut old = home.acquire(&notes(), holder("old")).unwrap();
    let first = old.publish(&commit(0, None), b"").unwrap();
    let mut thief = home.steal(&notes(), holder("thief")).unwrap();
    assert_eq!(thief.taken_from().unwrap().program, "old");
    assert!(thief.token() > old.token());
    let own = process::id();
    for _ in 0..2 {
        let error = old.publish(&commit(1, Some(first)), b"").unwrap_err();
        assert!(matches!(error, PublishError::Orphaned { pid, .. } if pid == own));
        assert_eq!(
            error.to_string(),
            format!(
                "image notes was taken over by thief, process {own} on box, since 2026-11-25T12:30:00Z: branch to keep \
                 what changed since"
            )
        );
    }
    let second = thief.publish(&commit(2, Some(first)), b"").unwrap();
    // Also when the thief is gone, and whatever it shows.
    drop(thief);
    let error = old.publish(&commit(3, Some(first)), b"").unwrap_err();
    assert!(matches!(error, PublishError::Orphaned { .. }), "{error}");
    let checkout = Checkout {
        token: Some(old.token()),
        base: Some(second),
    };
    let error = home.commit(&notes(), checkout, &commit(3, Some(second)), b"");
    assert!(matches!(error, Err(PublishError::Orphaned { .. })));
    assert_eq!(line(&home).len(), 2);
}

#[test]
fn a_theft_that_led_to_nothing_is_a_theft() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut old = home.acquire(&notes(), holder("old")).unwrap();
    drop(home.steal(&notes(), holder("thief")).unwrap());
    let error = old.publish(&commit(0, None), b"").unwrap_err();
    assert!(matches!(error, PublishError::Orphaned { .. }), "{error}");
}

#[test]
fn a_third_is_refused_as_long_as_the_thief_lives_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let image = dir.path().join("images/notes");
    let old = home.acquire(&notes(), holder("old")).unwrap();
    let thief = home.steal(&notes(), holder("thief")).unwrap();
    let refused = home.acquire(&notes(), holder("third")).unwrap_err();
    assert!(
        matches!(&refused, AcquireError::Held { program, .. } if program == "thief"),
        "{refused}"
    );
    assert_eq!(home.holder(&notes()).unwrap().unwrap().program, "thief");
    drop(thief);
    assert_eq!(home.holder(&notes()).unwrap(), None);
    let third = home.acquire(&notes(), holder("third")).unwrap();
    assert_eq!(third.fenced_alive(), [process::id()], "the first one");
    assert_eq!(home.holder(&notes()).unwrap().unwrap().program, "third");
    assert!(image.join("lock-2").exists(), "the old holder has `lock`");
    drop(third);
    drop(old);
    // Nobody has the ordinary lock any more: it is used again, and the other one goes.
    let mut fourth = home.acquire(&notes(), holder("fourth")).unwrap();
    assert!(!image.join("lock-2").exists());
    assert_eq!(fourth.fenced_alive(), [0; 0]);
    assert_eq!(fourth.token().number(), 4);
    fourth.publish(&commit(0, None), b"").unwrap();
    let refused = home.acquire(&notes(), holder("fifth"));
    assert!(matches!(refused, Err(AcquireError::Held { .. })));
}

#[test]
fn thieves_in_a_row_are_all_fenced_but_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut leases = vec![home.acquire(&notes(), holder("0")).unwrap()];
    for n in 1..5 {
        let lease = home.steal(&notes(), holder(&n.to_string())).unwrap();
        assert_eq!(lease.taken_from().unwrap().program, (n - 1).to_string());
        leases.push(lease);
    }
    let mut last = leases.pop().unwrap();
    for lease in &mut leases {
        let error = lease.publish(&commit(0, None), b"").unwrap_err();
        assert!(matches!(error, PublishError::Orphaned { .. }), "{error}");
    }
    assert_eq!(last.fenced_alive(), [process::id(); 4]);
    // Those who were stolen from end later than who stole from them: that frees nothing.
    leases.clear();
    let refused = home.acquire(&notes(), holder("other"));
    assert!(matches!(refused, Err(AcquireError::Held { .. })));
    last.publish(&commit(0, None), b"").unwrap();
}

#[test]
fn who_steals_what_nobody_has_fences_what_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let lease = home.acquire(&notes(), holder("gone")).unwrap();
    let checkout = Checkout {
        token: Some(lease.token()),
        base: None,
    };
    drop(lease);
    let thief = home.steal(&notes(), holder("thief")).unwrap();
    assert_eq!(thief.taken_from(), None);
    drop(thief);
    let refused = home.commit(&notes(), checkout, &commit(0, None), b"");
    assert!(matches!(refused, Err(PublishError::Orphaned { .. })));
}

#[test]
fn a_commit_without_a_lease_needs_a_free_image_that_stood_still() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut writer = home.acquire(&notes(), holder("writer")).unwrap();
    let first = writer.publish(&commit(0, None), b"m").unwrap();
    let second = commit(1, Some(first));
    let try_commit = |base, commit: &_| home.commit(&notes(), reader(base), commit, b"m");
    let held = try_commit(Some(first), &second).unwrap_err();
    assert!(matches!(held, PublishError::Held { .. }), "{held}");
    // Nor does it help to show the token of the lease that is outstanding: it is to be used by who has it.
    let own = Checkout {
        token: Some(writer.token()),
        base: Some(first),
    };
    let held = home.commit(&notes(), own, &second, b"m").unwrap_err();
    assert!(matches!(held, PublishError::Held { .. }), "{held}");
    drop(writer);
    let moved = try_commit(None, &second).unwrap_err();
    assert!(
        matches!(moved, PublishError::Moved { base: None, head, .. } if head == Some(first)),
        "{moved}"
    );
    let id = try_commit(Some(first), &second).unwrap();
    // The answer was lost: asking again changes nothing.
    assert_eq!(try_commit(Some(first), &second).unwrap(), id);
    // A session whose lease is over, and whose image went on.
    let orphan = home.commit(&notes(), own, &commit(2, Some(first)), b"m");
    assert!(matches!(orphan, Err(PublishError::Moved { .. })));
    let head = home.image(&notes()).unwrap().unwrap().head.unwrap();
    assert_eq!((head.seq, head.commit_id), (1, id));
    // And one whose image did not.
    let own = Checkout {
        base: Some(id),
        ..own
    };
    home.commit(&notes(), own, &commit(3, Some(id)), b"m")
        .unwrap();
    assert_eq!(line(&home).len(), 3);
}

#[test]
fn a_process_in_the_middle_of_a_change_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path()).with_patience(Duration::from_millis(20));
    let mut lease = home.acquire(&notes(), holder("old")).unwrap();
    let (said, say) = unistd::pipe()
        .map(|(a, b)| (fs::File::from(a), fs::File::from(b)))
        .unwrap();
    let turn = dir.path().join("images/notes/turn");
    let stopped = fork(|| {
        let LockAttempt::Held(_lock) = RealDisk.try_lock(&turn).unwrap() else {
            return 1;
        };
        (&say).write_all(b"!").unwrap();
        loop {
            unistd::pause();
        }
    });
    (&said).read_exact(&mut [0]).unwrap();
    let by = u32::try_from(stopped.as_raw()).unwrap();
    let busy = home.steal(&notes(), holder("thief")).unwrap_err();
    assert!(
        matches!(busy, AcquireError::Busy { pid, .. } if pid == by),
        "{busy}"
    );
    let busy = lease.publish(&commit(0, None), b"").unwrap_err();
    assert!(
        matches!(busy, PublishError::Busy { pid, .. } if pid == by),
        "{busy}"
    );
    signal::kill(stopped, Signal::SIGKILL).unwrap();
    wait::waitpid(stopped, None).unwrap();
    lease.publish(&commit(0, None), b"").unwrap();
}

#[test]
fn a_killed_thief_keeps_nothing_although_who_it_stole_from_lives() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut old = home.acquire(&notes(), holder("old")).unwrap();
    let (said, say) = unistd::pipe()
        .map(|(a, b)| (fs::File::from(a), fs::File::from(b)))
        .unwrap();
    let thief = fork(|| {
        let mut lease = home.steal(&notes(), holder("thief")).unwrap();
        lease.publish(&commit(0, None), b"").unwrap();
        (&say).write_all(b"!").unwrap();
        loop {
            unistd::pause();
        }
    });
    (&said).read_exact(&mut [0]).unwrap();
    let by = u32::try_from(thief.as_raw()).unwrap();
    let orphaned = old.publish(&commit(1, None), b"").unwrap_err();
    assert!(matches!(orphaned, PublishError::Orphaned { pid, .. } if pid == by));
    let held = home.acquire(&notes(), holder("third")).unwrap_err();
    assert!(
        matches!(held, AcquireError::Held { pid, .. } if pid == by),
        "{held}"
    );
    signal::kill(thief, Signal::SIGKILL).unwrap();
    wait::waitpid(thief, None).unwrap();
    let mut third = home.acquire(&notes(), holder("third")).unwrap();
    assert_eq!(third.fenced_alive(), [process::id()]);
    let head = third.head().unwrap().commit_id;
    third.publish(&commit(2, Some(head)), b"").unwrap();
    assert_eq!(line(&home).len(), 2);
}

#[test]
fn a_damaged_lease_is_named_and_nothing_is_published_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut lease = home.acquire(&notes(), holder("writer")).unwrap();
    let first = lease.publish(&commit(0, None), b"").unwrap();
    let path = dir.path().join("images/notes/lease");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = lease.publish(&commit(1, Some(first)), b"").unwrap_err();
    assert!(
        matches!(&error, PublishError::LeaseFile(LeaseFileError::Damaged { path: at }) if *at == path),
        "{error}"
    );
    for error in [
        home.acquire(&notes(), holder("other")).unwrap_err(),
        home.steal(&notes(), holder("other")).unwrap_err(),
    ] {
        assert!(matches!(error, AcquireError::LeaseFile(_)), "{error}");
    }
    // What the message says helps.
    drop(lease);
    fs::remove_file(&path).unwrap();
    let mut lease = home.acquire(&notes(), holder("other")).unwrap();
    assert_eq!(lease.token().number(), 2);
    lease.publish(&commit(1, Some(first)), b"").unwrap();
}
