//! The power goes, or an operation fails, at every step of a theft and of what surrounds it.

use std::{path::PathBuf, sync::Arc};

use segvm_blockcache::{CommitId, disk::CrashDisk};
use segvm_home::{DirHome, PublishError, lease::Token};

use crate::{commit, holder, line, notes, reader};

fn home(disk: &CrashDisk) -> DirHome {
    DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"))
}

/// What was promised to anybody.
#[derive(Default)]
struct Promised {
    commits: Vec<CommitId>,
    /// The highest token under which something durable was said.
    token: Token,
    orphans: usize,
}

/// Two writers, the second of which steals, and a reader; goes on after errors as programs do.
fn history(home: &DirHome) -> Promised {
    let mut promised = Promised::default();
    let old = home.acquire(&notes(), holder("old"));
    let mut n = 0;
    let mut publish = |lease: &mut segvm_home::WriterLease, promised: &mut Promised| {
        n += 1;
        let parent = lease.head().map(|head| head.commit_id);
        match lease.publish(&commit(n, parent), b"m") {
            Ok(id) => {
                promised.commits.push(id);
                promised.token = promised.token.max(lease.token());
            }
            Err(PublishError::Orphaned { .. }) => promised.orphans += 1,
            Err(_) => {}
        }
    };
    let mut old = old.ok();
    if let Some(old) = &mut old {
        publish(old, &mut promised);
        publish(old, &mut promised);
    }
    let mut thief = home.steal(&notes(), holder("thief")).ok();
    if let Some(thief) = &thief {
        promised.token = promised.token.max(thief.token());
    }
    for _ in 0..2 {
        // Both believe that they may.
        if let Some(old) = &mut old {
            publish(old, &mut promised);
        }
        if let Some(thief) = &mut thief {
            publish(thief, &mut promised);
        }
    }
    drop((old, thief));
    if let Ok(image) = home.image(&notes()) {
        let base = image
            .and_then(|image| image.head)
            .map(|head| head.commit_id);
        if let Ok(id) = home.commit(&notes(), reader(base), &commit(100, base), b"m") {
            promised.commits.push(id);
        }
    }
    promised
}

/// Asserts that all that was promised is there in one line, and that life goes on with a token of its own.
fn intact(home: &DirHome, promised: &Promised, context: &str) {
    let found: Vec<CommitId> = line(home).iter().map(|record| record.commit_id).collect();
    let kept: Vec<CommitId> = found
        .iter()
        .copied()
        .filter(|id| promised.commits.contains(id))
        .collect();
    assert_eq!(kept, promised.commits, "{context}");
    let mut lease = home.acquire(&notes(), holder("next")).unwrap();
    assert!(lease.token() > promised.token, "{context}: a token again");
    assert!(line(home).iter().all(|record| record.token < lease.token()));
    let parent = lease.head().map(|head| head.commit_id);
    lease.publish(&commit(1000, parent), b"m").unwrap();
    assert_eq!(line(home).len(), found.len() + 1, "{context}");
}

#[test]
fn a_power_cut_at_any_step_of_a_theft_keeps_the_line_and_the_tokens() {
    let whole = CrashDisk::new(0);
    let all = history(&home(&whole));
    assert_eq!((all.commits.len(), all.orphans), (5, 2));
    for at in 0..whole.operations() {
        for seed in 0..12 {
            let disk = CrashDisk::new(seed * 1000 + at);
            disk.power_off_at(at);
            let promised = history(&home(&disk));
            for outcome in 0..4 {
                let context = format!("operation {at}, seed {seed}, outcome {outcome}");
                intact(&home(&disk.crash()), &promised, &context);
            }
        }
    }
}

#[test]
fn any_failing_operation_of_a_theft_keeps_the_line_and_the_tokens() {
    const EIO: i32 = 5;
    let whole = CrashDisk::new(0);
    history(&home(&whole));
    for at in 0..whole.operations() {
        let disk = CrashDisk::new(at);
        disk.fail_operation(at, EIO);
        let promised = history(&home(&disk));
        let context = format!("operation {at} fails");
        intact(&home(&disk), &promised, &context);
        intact(&home(&disk.crash()), &Promised::default(), &context);
    }
}
