//! Tags, history through branch points, who wrote what, and removal.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::{
    CommitId,
    disk::{CrashDisk, Disk, MemDisk, Open, RealDisk},
};
use segvm_home::{
    Author, BRANCHED_FROM, Commit, DirHome, History, Holder, Home, HomeError, ImageName,
    PublishError, Ref, RemoveError, ResolveError, Tag, TagError, TagFileError, Timestamp, authors,
    lease::Checkout,
};

const GOLDEN_TAG: &[u8] = include_bytes!("golden/tag-v1.bin");

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

fn home(disk: impl Disk + 'static) -> DirHome {
    DirHome::open(Arc::new(disk), PathBuf::from("/store"))
}

/// Commit number `n`, made at second 1000 `n`.
fn commit(n: u64, parent: Option<CommitId>) -> Commit {
    Commit {
        parents: parent.into_iter().collect(),
        time: at(1000 * i64::try_from(n).unwrap()),
        host: format!("host-{}", n / 3),
        program: "notes".into(),
        generation: n,
        page_size_log2: 12,
        pointer_width: 8,
        ..Commit::default()
    }
}

/// Adds commits `from..to` to an image.
fn write(home: &DirHome, image: &str, from: u64, to: u64) -> Vec<CommitId> {
    let mut lease = home.acquire(&name(image), holder()).unwrap();
    (from..to)
        .map(|n| {
            let parent = lease.head().map(|head| head.commit_id);
            lease.publish(&commit(n, parent), b"mark").unwrap()
        })
        .collect()
}

/// Branches `to` off a commit of `from`; its first commit is number `n`.
fn branch(home: &DirHome, from: &str, parent: CommitId, to: &str, n: u64) -> CommitId {
    let mut first = commit(n, Some(parent));
    first
        .attributes
        .insert(BRANCHED_FROM.into(), from.as_bytes().to_vec());
    let mut lease = home.acquire(&name(to), holder()).unwrap();
    lease.publish(&first, b"mark").unwrap()
}

fn generations(home: &DirHome, image: &str) -> Vec<u64> {
    let history = History::of(home, &name(image)).unwrap();
    history
        .map(|record| record.unwrap().commit.generation)
        .collect()
}

fn resolve(home: &DirHome, image: &str, reference: &str) -> Result<u64, ResolveError> {
    let reference: Ref = reference.parse().unwrap();
    home.resolve(&name(image), &reference, at(9000))
        .map(|record| record.commit.generation)
}

#[test]
fn history_goes_on_behind_a_branch_point() {
    let home = home(MemDisk::new());
    let first = write(&home, "a", 0, 4);
    branch(&home, "a", first[1], "b", 4);
    write(&home, "a", 5, 7);
    assert_eq!(generations(&home, "b"), [4, 1, 0], "`a` went on without it");
    assert_eq!(resolve(&home, "b", "-0").unwrap(), 4);
    assert_eq!(resolve(&home, "b", "-1").unwrap(), 1);
    assert_eq!(resolve(&home, "b", "-2").unwrap(), 0);
    assert!(resolve(&home, "b", "-3").is_err());
    assert_eq!(resolve(&home, "b", &format!("{:.8}", first[0])).unwrap(), 0);
    let other_line = format!("{:.8}", first[2]);
    assert!(resolve(&home, "b", &other_line).is_err());
    assert_eq!(resolve(&home, "a", &other_line).unwrap(), 2);
    // Now is second 9,000.
    assert_eq!(resolve(&home, "b", "2h").unwrap(), 1);
    assert_eq!(resolve(&home, "b", "1970-01-01T00:00:00Z").unwrap(), 0);
    assert_eq!(
        resolve(&home, "b", "1970-01-01T02:06:40.5+02:00").unwrap(),
        0
    );

    let second = write(&home, "b", 7, 9);
    branch(&home, "b", second[0], "c", 9);
    assert_eq!(generations(&home, "c"), [9, 7, 4, 1, 0]);
    assert_eq!(resolve(&home, "c", "-4").unwrap(), 0);
}

#[test]
fn where_history_ends_because_an_image_is_gone_is_said() {
    let home = home(MemDisk::new());
    let first = write(&home, "a", 0, 2);
    branch(&home, "a", first[1], "b", 2);
    home.remove(&name("a"), &holder()).unwrap();
    // The name is used again, by something else.
    write(&home, "a", 5, 6);
    assert_eq!(generations(&home, "b"), [2]);
    let error = resolve(&home, "b", "-1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "image b has no commit -1: it was branched off image a, which is not there any more"
    );
}

#[test]
fn everybody_who_wrote_into_an_image_is_listed() {
    let home = home(MemDisk::new());
    let first = write(&home, "a", 0, 5);
    branch(&home, "a", first[4], "b", 6);
    let author = |host: &str, commits, first, last| Author {
        host: host.into(),
        program: "notes".into(),
        commits,
        first: at(first),
        last: at(last),
    };
    assert_eq!(
        authors(&home, &name("b")).unwrap(),
        [
            author("host-2", 1, 6000, 6000),
            author("host-1", 2, 3000, 4000),
            author("host-0", 3, 0, 2000),
        ]
    );
    let home: &dyn Home = &home;
    assert_eq!(authors(home, &name("none")).unwrap(), []);
}

#[test]
fn a_tag_names_a_commit_until_it_is_taken_away() {
    let home = home(MemDisk::new());
    let ids = write(&home, "a", 0, 4);
    let tag = |tag: &str, reference: &str| {
        home.tag(&name("a"), &name(tag), &reference.parse().unwrap(), at(77))
    };
    let set = tag("v1.0", "-2").unwrap();
    assert_eq!((set.record.commit_id, set.at), (ids[1], at(77)));
    tag("good", "v1.0").unwrap();
    assert_eq!(resolve(&home, "a", "v1.0").unwrap(), 1);
    write(&home, "a", 4, 5);
    assert_eq!(resolve(&home, "a", "good").unwrap(), 1);
    let names = |home: &DirHome| -> Vec<String> {
        let tags = home.tags(&name("a")).unwrap();
        tags.iter().map(|tag| tag.name.to_string()).collect()
    };
    assert_eq!(names(&home), ["good", "v1.0"]);
    assert_eq!(home.tags(&name("a")).unwrap()[1], set);

    // Once more is fine; another commit is not.
    tag("v1.0", &format!("{:.10}", ids[1])).unwrap();
    let error = tag("v1.0", "-0").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "image a has a tag v1.0 already, for commit {:.12}: remove it first, or choose another name",
            ids[1]
        )
    );
    // A name that would be read as something else could never be used.
    for shadowed in ["abcdef", "2h", "yesterday", "2026-11-25", "-1"] {
        let error = tag(shadowed, "-0").unwrap_err();
        assert!(matches!(error, TagError::Shadowed { .. }), "{shadowed}");
    }
    assert!(matches!(
        tag("v2", "-99").unwrap_err(),
        TagError::Resolve(ResolveError::NotFound { .. })
    ));
    let none = home.tag(&name("none"), &name("v1"), &Ref::Back(0), at(0));
    assert!(matches!(none, Err(TagError::NoImage { .. })));

    home.untag(&name("a"), &name("v1.0")).unwrap();
    assert_eq!(names(&home), ["good"]);
    assert!(resolve(&home, "a", "v1.0").is_err());
    let again = home.untag(&name("a"), &name("v1.0")).unwrap_err();
    assert!(matches!(again, TagError::NotFound { .. }), "{again}");
    tag("v1.0", "-0").unwrap();
    assert_eq!(resolve(&home, "a", "v1.0").unwrap(), 4);
}

#[test]
fn a_tag_behind_a_branch_point_outlives_the_image_there() {
    let home = home(MemDisk::new());
    let first = write(&home, "a", 0, 3);
    branch(&home, "a", first[2], "b", 3);
    home.tag(&name("b"), &name("old"), &Ref::Back(3), at(0))
        .unwrap();
    home.remove(&name("a"), &holder()).unwrap();
    assert_eq!(resolve(&home, "b", "old").unwrap(), 0);
    let tagged = home.tagged(&name("b"), &name("old")).unwrap().unwrap();
    assert_eq!(tagged.record.commit_id, first[0]);
}

#[test]
fn the_golden_tag_is_read_and_written_for_ever() {
    let disk = MemDisk::new();
    let home = home(disk.clone());
    let ids = write(&home, "a", 0, 2);
    home.tag(&name("a"), &name("v1"), &Ref::Back(0), at(1_795_609_800))
        .unwrap();
    let path = Path::new("/store/images/a/tags/v1");
    let read = |disk: &MemDisk| {
        let file = disk.open(path, Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    assert!(read(&disk) == GOLDEN_TAG, "the format changed");
    let tags = home.tags(&name("a")).unwrap();
    assert_eq!(tags[0].record.commit_id, ids[1]);
    // Every flipped bit and every cut is found.
    let file = disk.open(path, Open::Write).unwrap();
    for bit in 0..GOLDEN_TAG.len() * 8 {
        let mut bytes = GOLDEN_TAG.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        file.write_at(0, &bytes).unwrap();
        let error = home.tags(&name("a")).unwrap_err();
        assert!(
            matches!(&error, HomeError::Tag(TagFileError::Damaged { path: at }) if at == path),
            "bit {bit}: {error}"
        );
    }
    file.write_at(0, GOLDEN_TAG).unwrap();
    for len in 0..GOLDEN_TAG.len() as u64 {
        file.set_len(len).unwrap();
        assert!(home.tags(&name("a")).is_err(), "cut at {len}");
    }
}

#[test]
fn a_removed_image_is_gone_and_its_name_is_free() {
    let disk = MemDisk::new();
    let home = home(disk.clone());
    let ids = write(&home, "a", 0, 3);
    home.tag(&name("a"), &name("v1"), &Ref::Back(0), at(0))
        .unwrap();
    write(&home, "b", 0, 1);
    let mut lease = home.acquire(&name("a"), holder()).unwrap();
    let token = lease.token();
    let held = home.remove(&name("a"), &holder()).unwrap_err();
    assert!(
        matches!(&held, RemoveError::Held { program, .. } if program == "test"),
        "{held}"
    );
    assert_eq!(home.images().unwrap(), [name("a"), name("b")]);
    lease.publish(&commit(3, Some(ids[2])), b"").unwrap();
    drop(lease);

    home.remove(&name("a"), &holder()).unwrap();
    assert_eq!(home.images().unwrap(), [name("b")]);
    assert_eq!(home.image(&name("a")).unwrap(), None);
    assert_eq!(home.log(&name("a")).unwrap().count(), 0);
    assert_eq!(home.tags(&name("a")).unwrap(), []);
    let again = home.remove(&name("a"), &holder()).unwrap_err();
    assert!(matches!(again, RemoveError::NoImage { .. }), "{again}");
    let never = home.remove(&name("never"), &holder()).unwrap_err();
    assert!(matches!(never, RemoveError::NoImage { .. }), "{never}");
    assert!(!disk.exists(Path::new("/store/images/never")).unwrap());

    // Who had it once does not write into another one of that name.
    let old = Checkout {
        token: Some(token),
        base: None,
    };
    let refused = home.commit(&name("a"), old, &commit(9, None), b"");
    assert!(matches!(refused, Err(PublishError::Orphaned { .. })));
    let mut lease = home.acquire(&name("a"), holder()).unwrap();
    assert!(lease.token() > token && lease.head().is_none());
    lease.publish(&commit(9, None), b"").unwrap();
    assert_eq!(home.tags(&name("a")).unwrap(), [], "a tag of another life");
    assert_eq!(generations(&home, "a"), [9]);
}

#[test]
fn a_stolen_holder_does_not_bring_a_removed_image_back() {
    let home = home(MemDisk::new());
    let mut old = home.acquire(&name("a"), holder()).unwrap();
    let first = old.publish(&commit(0, None), b"").unwrap();
    drop(home.steal(&name("a"), holder()).unwrap());
    home.remove(&name("a"), &holder()).unwrap();
    let refused = old.publish(&commit(1, Some(first)), b"").unwrap_err();
    assert!(
        matches!(refused, PublishError::Orphaned { .. }),
        "{refused}"
    );
    assert_eq!(home.images().unwrap(), []);
}

#[test]
fn a_real_directory_does_as_the_one_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DirHome::open(Arc::new(RealDisk), dir.path().to_owned());
    write(&open(), "a", 0, 3);
    let tag = |name: &ImageName| open().tag(&"a".parse().unwrap(), name, &Ref::Back(1), at(5));
    tag(&name("v1")).unwrap();
    tag(&name("v2")).unwrap();
    open().untag(&name("a"), &name("v1")).unwrap();
    let tags = open().tags(&name("a")).unwrap();
    assert_eq!((tags.len(), tags[0].name.as_str()), (1, "v2"));
    assert_eq!(resolve(&open(), "a", "v2").unwrap(), 1);
    let lease = open().acquire(&name("a"), holder()).unwrap();
    assert!(open().remove(&name("a"), &holder()).is_err());
    drop(lease);
    open().remove(&name("a"), &holder()).unwrap();
    assert_eq!(open().images().unwrap(), []);
    let mut left: Vec<String> = std::fs::read_dir(dir.path().join("images/a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["lease", "lock", "tags", "turn"]);
    write(&open(), "a", 7, 8);
    assert_eq!(generations(&open(), "a"), [7]);
}

/// What an image may look like while it is tagged, untagged and removed.
#[derive(Debug, PartialEq)]
struct Shown {
    generations: Vec<u64>,
    tags: Vec<Tag>,
}

fn shown(home: &DirHome) -> Shown {
    Shown {
        generations: generations(home, "a"),
        tags: home.tags(&name("a")).unwrap(),
    }
}

/// Runs `steps` until one fails; after each, what the image looked like.
fn run(home: &DirHome, steps: &[fn(&DirHome) -> bool]) -> usize {
    steps.iter().take_while(|step| step(home)).count()
}

#[test]
fn a_power_cut_while_tagging_or_removing_leaves_before_or_after() {
    let steps: [fn(&DirHome) -> bool; 5] = [
        |home| {
            home.tag(&name("a"), &name("v1"), &Ref::Back(1), at(5))
                .is_ok()
        },
        |home| {
            home.tag(&name("a"), &name("v2"), &Ref::Back(0), at(6))
                .is_ok()
        },
        |home| home.untag(&name("a"), &name("v1")).is_ok(),
        |home| home.remove(&name("a"), &holder()).is_ok(),
        |home| {
            let Ok(mut lease) = home.acquire(&name("a"), holder()) else {
                return false;
            };
            lease.publish(&commit(7, None), b"").is_ok()
        },
    ];
    let begin = |seed| {
        let disk = CrashDisk::new(seed);
        write(&home(disk.clone()), "a", 0, 3);
        disk
    };
    let whole = begin(0);
    let (first, mut states) = (whole.operations(), vec![shown(&home(whole.clone()))]);
    for step in &steps {
        assert!(step(&home(whole.clone())));
        states.push(shown(&home(whole.clone())));
    }
    assert_eq!((states[4].generations.len(), states[5].tags.len()), (0, 0));
    let mut between = 0;
    for at in first..whole.operations() {
        for seed in 0..10 {
            let disk = begin(seed * 1000 + at);
            disk.power_off_at(at);
            let done = run(&home(disk.clone()), &steps);
            for outcome in 0..4 {
                let after = home(disk.crash());
                let found = shown(&after);
                let context = format!("operation {at}, seed {seed}, outcome {outcome}");
                let wanted = &states[done..(done + 2).min(states.len())];
                assert!(wanted.contains(&found), "{context}: {done} done, {found:?}");
                between += usize::from(found == states[done]);
                // Life goes on, whatever lies about.
                if found.generations.is_empty() {
                    assert!(steps[4](&after), "{context}");
                    assert_eq!(shown(&after), states[5], "{context}");
                } else {
                    let tag =
                        after.tag(&name("a"), &name("v3"), &Ref::Back(0), Timestamp::default());
                    assert_eq!(tag.unwrap().name, name("v3"), "{context}");
                    after.remove(&name("a"), &holder()).unwrap();
                    assert_eq!(after.images().unwrap(), [], "{context}");
                }
            }
        }
    }
    assert!(between > 100, "the dice spared everything: {between}");
}
