//! An image is removed while each operation fails, or the power goes off in it: it is whole or gone, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, sync::Arc};

use segvm_blockcache::{CommitId, disk::CrashDisk};
use segvm_home::{Commit, DirHome, Holder, ImageName, Ref, RemoveError, Timestamp, lease::Token};

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0).unwrap()
}

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        host: "box".into(),
        program: "test".into(),
        since: at(1_795_609_800),
    }
}

fn home(disk: &CrashDisk) -> DirHome {
    DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"))
}

/// Adds commits to an image; answers them and the token that they were made under.
fn write(home: &DirHome, image: &str, count: u64) -> (Vec<CommitId>, Token) {
    let mut lease = home.acquire(&name(image), holder()).unwrap();
    let ids = (0..count).map(|n| {
        let commit = Commit {
            parents: lease
                .head()
                .map(|head| head.commit_id)
                .into_iter()
                .collect(),
            time: at(1000 * i64::try_from(n).unwrap()),
            host: image.to_owned(),
            program: "test".into(),
            generation: n,
            page_size_log2: 12,
            pointer_width: 8,
            ..Commit::default()
        };
        lease.publish(&commit, b"mark").unwrap()
    });
    let ids = ids.collect();
    (ids, lease.token())
}

fn line(home: &DirHome, image: &str) -> Vec<CommitId> {
    let log = home.log(&name(image)).unwrap();
    let mut ids: Vec<CommitId> = log.map(|record| record.unwrap().commit_id).collect();
    ids.reverse();
    ids
}

struct Scene {
    disk: CrashDisk,
    doomed: Vec<CommitId>,
    token: Token,
    other: Vec<CommitId>,
}

fn scene(seed: u64) -> Scene {
    let disk = CrashDisk::new(seed);
    let home = home(&disk);
    let (doomed, token) = write(&home, "doomed", 3);
    home.tag(&name("doomed"), &name("v1"), &Ref::Back(1), at(0))
        .unwrap();
    let (other, _) = write(&home, "other", 2);
    Scene {
        disk,
        doomed,
        token,
        other,
    }
}

/// Whole or gone; the name can be used again, with none of what was there before and a token of its own.
fn settled(scene: &Scene, disk: &CrashDisk, promised_gone: bool, when: &str) {
    let home = home(disk);
    assert_eq!(line(&home, "other"), scene.other, "{when}: another image");
    let tags = home.tags(&name("doomed"));
    if home.images().unwrap().contains(&name("doomed")) {
        assert!(!promised_gone, "{when}: it is there still");
        assert_eq!(line(&home, "doomed"), scene.doomed, "{when}");
        assert_eq!(tags.unwrap().len(), 1, "{when}: its tag");
        home.remove(&name("doomed"), &holder())
            .unwrap_or_else(|error| panic!("{when}: and cannot be removed: {error}"));
    }
    let again = home.remove(&name("doomed"), &holder()).unwrap_err();
    assert!(
        matches!(again, RemoveError::NoImage { .. }),
        "{when}: {again}"
    );
    let (ids, token) = write(&home, "doomed", 1);
    assert!(
        token > scene.token,
        "{when}: {token:?} after {:?}",
        scene.token
    );
    assert_eq!(line(&home, "doomed"), ids, "{when}: the next of that name");
    assert_eq!(home.tags(&name("doomed")).unwrap(), [], "{when}: old tags");
}

fn remove(scene: &Scene) -> Result<(), RemoveError> {
    home(&scene.disk).remove(&name("doomed"), &holder())
}

#[test]
fn any_failing_operation_leaves_it_whole_or_gone() {
    let whole = scene(1);
    let first = whole.disk.operations();
    remove(&whole).unwrap();
    let operations = whole.disk.operations() - first;
    settled(&whole, &whole.disk, true, "nothing failed");
    let mut failed = 0;
    for nth in 0..operations {
        for errno in [28, 5] {
            let scene = scene(nth);
            scene.disk.fail_operation(first + nth, errno);
            let outcome = remove(&scene);
            if let Err(error) = &outcome {
                failed += 1;
                let mut text = error.to_string();
                if let Some(source) = std::error::Error::source(error) {
                    text = format!("{text}: {source}");
                }
                assert!(text.contains("/store"), "no path in: {text}");
            }
            let when = format!("errno {errno} at {nth} of {operations}: {outcome:?}");
            settled(&scene, &scene.disk, outcome.is_ok(), &when);
        }
    }
    assert!(
        failed >= 6,
        "only {failed} failures of {operations} operations"
    );
}

#[test]
fn a_power_cut_at_any_operation_leaves_it_whole_or_gone() {
    let whole = scene(1);
    let first = whole.disk.operations();
    remove(&whole).unwrap();
    let operations = whole.disk.operations() - first;
    for nth in 0..=operations {
        for seed in 0..8 {
            let scene = scene(seed * 1000 + nth);
            if nth < operations {
                scene.disk.power_off_at(first + nth);
            }
            let promised = remove(&scene).is_ok();
            for outcome in 0..3 {
                let when = format!("cut at {nth} of {operations}, seed {seed}, {outcome}");
                settled(&scene, &scene.disk.crash(), promised, &when);
            }
        }
    }
}
