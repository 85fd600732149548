//! The lease on a real file system, between processes; and what a home answers about its images.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::{
        signal::{self, Signal},
        wait::{self, WaitStatus},
    },
    unistd::{self, ForkResult, Pid},
};
use segvm_blockcache::disk::RealDisk;
use segvm_home::{
    AcquireError, Commit, DirHome, Holder, Home, ImageName, PublishError, Ref, ResolveError,
    Timestamp,
};

fn image(name: &str) -> ImageName {
    name.parse().unwrap()
}

fn holder() -> Holder {
    Holder {
        pid: process::id(),
        host: "box".into(),
        program: "codesearch".into(),
        since: Timestamp::parse("2026-11-25T12:30:00Z").unwrap(),
    }
}

fn home(dir: &Path) -> DirHome {
    DirHome::open(Arc::new(RealDisk), dir.to_owned())
}

fn commit(n: u64) -> Commit {
    Commit {
        generation: n,
        time: Timestamp::new(1000 * i64::try_from(n).unwrap(), 0).unwrap(),
        page_size_log2: 12,
        pointer_width: 8,
        ..Commit::default()
    }
}

/// Runs `child` in a forked process, which ends with the number that it returns; answers that number.
fn in_a_fork(child: impl FnOnce() -> i32) -> i32 {
    let pid = fork(child);
    match wait::waitpid(pid, None).unwrap() {
        WaitStatus::Exited(_, code) => code,
        other => panic!("the child ended otherwise: {other:?}"),
    }
}

fn fork(child: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the test's only other thread is the harness's, which waits and holds no lock that the child takes
    // (nextest runs each test in a process of its own); the child leaves by `_exit`.
    match unsafe { unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: `_exit` may be called at any time; nothing of this copy of the process is needed after it.
            unsafe { libc::_exit(outcome.unwrap_or(101)) }
        }
    }
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let lease = home.acquire(&image("notes"), holder()).unwrap();
    for _ in 0..2 {
        let error = home.acquire(&image("notes"), holder()).unwrap_err();
        let own = process::id();
        assert_eq!(
            error.to_string(),
            format!(
                "image notes is open for writing by codesearch, process {own} on box, since 2026-11-25T12:30:00Z"
            )
        );
        assert!(matches!(error, AcquireError::Held { pid, .. } if pid == own));
    }
    home.acquire(&image("other"), holder()).unwrap();
    drop(lease);
    home.acquire(&image("notes"), holder()).unwrap();
}

#[test]
fn another_process_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let parent = process::id();
    let lease = home.acquire(&image("notes"), holder()).unwrap();
    let refused = |home: &DirHome| match home.acquire(&image("notes"), holder()) {
        Err(AcquireError::Held { pid, program, .. }) if pid == parent => {
            i32::from(program != "codesearch")
        }
        other => {
            eprintln!("{other:?}");
            2
        }
    };
    assert_eq!(in_a_fork(|| refused(&home)), 0);
    // A lease's file that somebody else wrote is not believed: the lock's word counts.
    let other = Holder {
        pid: 1,
        ..self::holder()
    };
    let elsewhere = self::home(&dir.path().join("elsewhere"));
    drop(elsewhere.acquire(&image("notes"), other).unwrap());
    let (from, to) = ("elsewhere/images/notes/lease", "images/notes/lease");
    fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    assert_eq!(in_a_fork(|| refused(&home)), 1);
    drop(lease);
    assert_eq!(in_a_fork(|| refused(&home)), 2, "it is free now");
}

#[test]
fn a_forked_child_can_neither_publish_nor_release() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut lease = home.acquire(&image("notes"), holder()).unwrap();
    lease.publish(&commit(0), b"").unwrap();
    let code = in_a_fork(|| {
        let forked = matches!(
            lease.publish(&commit(1), b""),
            Err(PublishError::Forked { .. })
        );
        drop(lease);
        i32::from(!forked)
    });
    assert_eq!(code, 0);
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_parents_lease() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut lease = Some(home.acquire(&image("notes"), holder()).unwrap());
    let code = in_a_fork(|| {
        lease.take();
        0
    });
    assert_eq!(code, 0);
    let other = in_a_fork(|| match home.acquire(&image("notes"), holder()) {
        Err(AcquireError::Held { .. }) => 0,
        _ => 1,
    });
    assert_eq!(other, 0, "the child's drop released the parent's lease");
    lease.unwrap().publish(&commit(0), b"").unwrap();
}

#[test]
fn a_forked_child_does_not_keep_the_lease_of_a_killed_parent() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let (said, say) = io_pipe();
    let (hold, release) = io_pipe();
    let mut release = Some(release);
    let holder_pid = fork(|| {
        let _lease = home.acquire(&image("notes"), holder()).unwrap();
        // The grandchild has a copy of every descriptor and outlives its parent.
        fork(|| {
            release.take();
            (&say).write_all(b"!").unwrap();
            (&hold).read_to_end(&mut Vec::new()).unwrap();
            0
        });
        loop {
            unistd::pause();
        }
    });
    (&said).read_exact(&mut [0]).unwrap();
    assert!(matches!(
        home.acquire(&image("notes"), holder()),
        Err(AcquireError::Held { .. })
    ));
    signal::kill(holder_pid, Signal::SIGKILL).unwrap();
    wait::waitpid(holder_pid, None).unwrap();
    // The grandchild is still there: it waits for the end of a pipe that is open here.
    home.acquire(&image("notes"), holder())
        .expect("the lease died with its holder");
    drop(release);
}

fn io_pipe() -> (fs::File, fs::File) {
    let (read, write) = unistd::pipe().unwrap();
    (read.into(), write.into())
}

#[test]
fn what_was_published_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir.path().join("deep/store"));
    assert_eq!(home.images().unwrap(), []);
    assert_eq!(home.image(&image("notes")).unwrap(), None);
    let mut lease = home.acquire(&image("notes"), holder()).unwrap();
    assert_eq!(
        home.images().unwrap(),
        [],
        "an image begins with its first commit"
    );
    let ids: Vec<_> = (1..=300)
        .map(|n| lease.publish(&commit(n), &n.to_le_bytes()).unwrap())
        .collect();
    drop(lease);
    home.acquire(&image("a"), holder())
        .unwrap()
        .publish(&commit(0), b"")
        .unwrap();
    fs::create_dir(dir.path().join("deep/store/images/No Image")).unwrap();
    assert_eq!(home.images().unwrap(), [image("a"), image("notes")]);

    let head = home.image(&image("notes")).unwrap().unwrap().head.unwrap();
    assert_eq!((head.seq, head.commit_id), (299, ids[299]));
    let now = Timestamp::new(150_500, 0).unwrap();
    let resolve = |at: &str| {
        let at: Ref = at.parse().unwrap();
        let home: &dyn Home = &home;
        home.resolve(&image("notes"), &at, now)
            .map(|record| record.commit.generation)
    };
    assert_eq!(resolve("-0").unwrap(), 300);
    assert_eq!(resolve("-299").unwrap(), 1);
    assert!(matches!(
        resolve("-300"),
        Err(ResolveError::NotFound { .. })
    ));
    assert_eq!(resolve(&format!("{:.10}", ids[41])).unwrap(), 42);
    assert_eq!(resolve("10m").unwrap(), 149);
    assert_eq!(resolve("1970-01-02").unwrap(), 86);
    assert!(matches!(resolve("3d"), Err(ResolveError::NotFound { .. })));
    assert!(matches!(resolve("v1"), Err(ResolveError::NotFound { .. })));
    let unknown = Home::resolve(&home, &image("none"), &Ref::Ago(Duration::ZERO), now);
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "image none has no commit 0s"
    );
}

#[test]
fn a_reader_beside_the_writer_sees_whole_records_only() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let mut lease = home.acquire(&image("notes"), holder()).unwrap();
    lease.publish(&commit(0), b"").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..200 {
                lease.publish(&commit(n), &n.to_le_bytes()).unwrap();
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let head = home.image(&image("notes")).unwrap().unwrap().head.unwrap();
            assert!(head.seq >= last && head.commit.generation == head.seq);
            last = head.seq;
        }
    });
    assert_eq!(home.log(&image("notes")).unwrap().count(), 200);
}

#[test]
fn a_store_may_be_named_from_where_the_process_is() {
    let dir = tempfile::tempdir().unwrap();
    std::env::set_current_dir(dir.path()).unwrap();
    let home = home(Path::new("store"));
    let mut lease = home.acquire(&image("notes"), holder()).unwrap();
    lease.publish(&commit(0), b"").unwrap();
    assert!(dir.path().join("store/images/notes/log").exists());
}
