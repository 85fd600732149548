//! Stealing an image, and committing without its lease: between processes, and with the power going at every step.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod between;
mod crash;
mod fights;
mod rules;

use std::{path::Path, process, sync::Arc};

use nix::unistd::{self, ForkResult, Pid};
use segvm_blockcache::{CommitId, disk::RealDisk};
use segvm_home::{Commit, DirHome, Holder, ImageName, Record, Timestamp, lease::Checkout};

fn notes() -> ImageName {
    "notes".parse().unwrap()
}

fn holder(program: &str) -> Holder {
    Holder {
        pid: process::id(),
        host: "box".into(),
        program: program.into(),
        since: Timestamp::parse("2026-11-25T12:30:00Z").unwrap(),
    }
}

fn home(dir: &Path) -> DirHome {
    DirHome::open(Arc::new(RealDisk), dir.to_owned())
}

/// Commit number `n` on top of `parent`.
fn commit(n: u64, parent: Option<CommitId>) -> Commit {
    Commit {
        parents: parent.into_iter().collect(),
        generation: n,
        page_size_log2: 12,
        pointer_width: 8,
        ..Commit::default()
    }
}

/// All records, oldest first: each must continue the one before it, and no token may be lower than one before.
fn line(home: &DirHome) -> Vec<Record> {
    let mut records: Vec<Record> = home.log(&notes()).unwrap().map(Result::unwrap).collect();
    records.reverse();
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.seq, n as u64);
        let before = n.checked_sub(1).map(|n| &records[n]);
        let parent = before.map(|before| before.commit_id);
        assert_eq!(record.commit.parents.first().copied(), parent, "record {n}");
        assert!(before.is_none_or(|before| before.token <= record.token));
    }
    records
}

fn reader(base: Option<CommitId>) -> Checkout {
    Checkout { token: None, base }
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
