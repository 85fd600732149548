//! Every operation of a session with each call on memory and each operation of the disk failing in turn: an error that says where,
//! nothing lost, nothing leaked. Checkpoints, suspends and resumes are in `simulation`, laying out in `lay_out`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{fs, sync::Arc};

use segvm::{
    Attribute, BlockSize, CommitId, Segment, SegmentOptions, Session, SessionOptions, World,
};
use segvm_blockcache::disk::CrashDisk;
use segvm_os::ModelKernel;

const LEN: usize = 128 << 10;
const REGION: usize = 16 << 10;
const AFTER: usize = LEN + 2 * REGION;

/// What memory holds when a session begins its third commit, and what it holds when something fails.
const COMMITS: [u8; 3] = [1, 2, 3];
const UNSAVED: u8 = 4;

type Said = Result<(), String>;
type Operation = fn(&Life) -> Said;
type Way = fn(SessionOptions) -> SessionOptions;

fn said<T, E: std::error::Error>(result: Result<T, E>) -> Said {
    let chain = |error: E| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        text
    };
    result.map(drop).map_err(chain)
}

struct Life {
    kernel: Arc<ModelKernel>,
    disk: CrashDisk,
    session: Session,
    segment: Segment,
    commits: Vec<CommitId>,
}

fn options(kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> SessionOptions {
    let world = World::with(Arc::<ModelKernel>::clone(kernel), Arc::new(disk.clone()));
    SessionOptions::new().store("/store").world(world)
}

fn small(reserve: usize) -> SegmentOptions {
    SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(reserve)
}

fn paint(segment: &Segment, byte: u8) {
    // The saved part: what lies behind is regions.
    segment.write(0, &vec![byte; LEN - 5000]).unwrap();
}

fn painted(segment: &Segment) -> Option<u8> {
    let mut bytes = vec![0; LEN - 5000];
    segment.read(0, &mut bytes).unwrap();
    bytes
        .iter()
        .all(|&byte| byte == bytes[0])
        .then_some(bytes[0])
}

impl Life {
    fn begin() -> Self {
        let (kernel, disk) = (Arc::new(ModelKernel::new()), CrashDisk::new(1));
        let session = options(&kernel, &disk).open("image").unwrap();
        let segment = session
            .segment_with("memory", LEN, &small(1 << 20))
            .unwrap();
        segment.region(LEN, REGION, Attribute::Drop).unwrap();
        segment
            .region(LEN + REGION, REGION, Attribute::Wipe)
            .unwrap();
        let commits = COMMITS.map(|byte| {
            paint(&segment, byte);
            session.checkpoint().unwrap().commit
        });
        session.tag("first").unwrap();
        paint(&segment, UNSAVED);
        Self {
            kernel,
            disk,
            session,
            segment,
            commits: commits.to_vec(),
        }
    }
}

fn second(life: &Life) -> SessionOptions {
    options(&Arc::new(ModelKernel::new()), &life.disk)
}

/// What a session can be asked for, each by itself.
const OPERATIONS: [(&str, Operation); 18] = [
    ("branch", |life| said(life.session.branch("branch"))),
    ("branch_from", |life| {
        said(life.session.branch_from("-1", "branch"))
    }),
    ("branch_here", |life| {
        said(life.session.branch_here("branch"))
    }),
    ("restore", |life| said(life.session.restore("-1"))),
    ("tag", |life| said(life.session.tag("second"))),
    ("tag_at", |life| said(life.session.tag_at("-2", "third"))),
    ("untag", |life| said(life.session.untag("first"))),
    ("tags", |life| said(life.session.tags())),
    ("log", |life| said(life.session.log())),
    ("new segment", |life| {
        said(life.session.segment_with("new", LEN, &small(LEN)))
    }),
    ("growth", |life| said(life.segment.grow(AFTER + REGION))),
    ("new cache", |life| {
        said(life.segment.region(AFTER, REGION, Attribute::Drop))
    }),
    ("new secret", |life| {
        said(life.segment.region(AFTER, REGION, Attribute::Wipe))
    }),
    ("use of a cache", |life| {
        let region = life.segment.region(LEN, REGION, Attribute::Drop);
        let region = region.map_err(|error| error.to_string())?;
        let mut guard = region.write().map_err(|error| error.to_string())?;
        said(guard.copy_in(5, b"cached"))
    }),
    ("discard", |life| {
        let region = life.segment.region(LEN, REGION, Attribute::Drop);
        said(region.map_err(|error| error.to_string())?.discard())
    }),
    ("wipe", |life| {
        let region = life.segment.region(LEN + REGION, REGION, Attribute::Wipe);
        said(region.map_err(|error| error.to_string())?.discard())
    }),
    ("reader", |life| {
        let reader = second(life).reader().open("image@-1");
        let reader = reader.map_err(|error| error.to_string())?;
        let segment = reader.segment_with("memory", 0, &small(1 << 20));
        assert_eq!(painted(&segment.map_err(|e| e.to_string())?), Some(2));
        said(reader.follow())
    }),
    ("theft", |life| {
        let thief = second(life).steal().open("image");
        let thief = thief.map_err(|error| error.to_string())?;
        let segment = thief.segment_with("memory", 0, &small(1 << 20));
        assert_eq!(painted(&segment.map_err(|e| e.to_string())?), Some(3));
        Ok(())
    }),
];

/// What a process has, and what must be no more afterwards: threads, handles of the disk, watches and memory of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    threads: usize,
    handles: usize,
    watches: u64,
    accessible: usize,
}

fn held(kernel: &ModelKernel, disk: &CrashDisk) -> Held {
    Held {
        threads: fs::read_dir("/proc/self/task").unwrap().count(),
        handles: disk.handles(),
        watches: kernel.watching(),
        accessible: kernel.accessible(),
    }
}

/// After an operation failed, or did not: memory is what it was (or what it was restored to), it can be saved, every commit is
/// there, and nothing is left behind.
fn check(when: &str, name: &str, outcome: &Said, life: Life, before: &Held) {
    let when = format!("{name}, {when} ({outcome:?})");
    let restored = name == "restore" && life.session.resumed().is_some();
    // Said by the next checkpoint where a restore stopped half-way: memory is half one state and half the other.
    let broken = outcome.is_err()
        && life
            .session
            .checkpoint()
            .is_err_and(|error| error.to_string().contains("open the image again"));
    let now = if broken { None } else { painted(&life.segment) };
    if !broken {
        let allowed = if restored { 2 } else { UNSAVED };
        assert_eq!(now, Some(allowed), "{when}: memory");
    }
    let Life {
        kernel,
        disk,
        session,
        segment,
        commits,
    } = life;
    let image = session.image();
    let stolen = name == "theft";
    let mut image_now = None;
    if !broken {
        match session.checkpoint() {
            Ok(_) => image_now = Some(image),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("branch_here"), "{when}: then {text}");
                assert!(stolen || text.contains("sync"), "{when}: then {text}");
                let rescued = session.branch_here("rescued");
                rescued.unwrap_or_else(|error| panic!("{when}: not even a branch: {error}"));
                image_now = Some("rescued".to_owned());
            }
        }
    }
    drop((session, segment));
    assert_eq!(&held(&kernel, &disk), before, "{when}: left behind");

    // Every commit is there, and so is what was saved last.
    let open = |image: &str| {
        let options = options(&Arc::new(ModelKernel::new()), &disk);
        let session = options
            .open(image)
            .unwrap_or_else(|error| panic!("{when}: then {image} does not open: {error}"));
        let segment = session.segment_with("memory", 0, &small(1 << 20)).unwrap();
        (session, segment)
    };
    if let Some(image) = image_now {
        assert_eq!(
            painted(&open(&image).1),
            now,
            "{when}: {image} as saved last"
        );
    }
    drop(open("image"));
    for (commit, byte) in commits.iter().zip(COMMITS) {
        let reader = options(&Arc::new(ModelKernel::new()), &disk).reader();
        let session = reader.open(&format!("image@{commit}"));
        let session =
            session.unwrap_or_else(|error| panic!("{when}: commit {byte} is gone: {error}"));
        let segment = session.segment_with("memory", 0, &small(1 << 20)).unwrap();
        assert_eq!(painted(&segment), Some(byte), "{when}: commit {byte}");
    }
}

/// What a whole life holds that ended well: what is left is what every other life may leave.
fn left_by_a_life() -> Held {
    let life = Life::begin();
    life.session.checkpoint().unwrap();
    let (kernel, disk) = (Arc::clone(&life.kernel), life.disk.clone());
    drop(life);
    let left = held(&kernel, &disk);
    assert_eq!((left.watches, left.accessible), (0, 0), "{left:?}");
    left
}

#[test]
fn any_failing_operation_of_the_disk_is_an_error_with_a_place_and_loses_and_leaks_nothing() {
    let before = left_by_a_life();
    for (name, operation) in OPERATIONS {
        let life = Life::begin();
        let first = life.disk.operations();
        operation(&life).unwrap_or_else(|error| panic!("{name} fails by itself: {error}"));
        let operations = life.disk.operations() - first;
        check("nothing failed", name, &Ok(()), life, &before);
        let mut failed = 0;
        for nth in 0..operations {
            for errno in [28, 5] {
                let life = Life::begin();
                life.disk.fail_operation(first + nth, errno);
                let outcome = operation(&life);
                if let Err(error) = &outcome {
                    failed += 1;
                    assert!(error.contains(" /"), "{name}: no path in: {error}");
                }
                check(
                    &format!("errno {errno} at {nth}"),
                    name,
                    &outcome,
                    life,
                    &before,
                );
            }
        }
        println!("{name}: {failed} failures of {operations} operations");
    }
}

#[test]
fn any_failing_call_on_memory_is_an_error_and_loses_and_leaks_nothing() {
    let before = left_by_a_life();
    for (name, operation) in OPERATIONS {
        let life = Life::begin();
        let first = life.kernel.calls();
        let address = |life: &Life| {
            let new = life.session.segment_with("new", LEN, &small(LEN));
            new.unwrap().as_ptr() as usize
        };
        operation(&life).unwrap();
        let calls = life.kernel.calls() - first;
        let unfailed = (name == "new segment").then(|| address(&life));
        check("nothing failed", name, &Ok(()), life, &before);
        let mut failed = 0;
        for nth in 1..=calls {
            let life = Life::begin();
            life.kernel.fail_nth(nth, 12);
            let outcome = operation(&life);
            life.kernel.stop_failing();
            failed += usize::from(outcome.is_err());
            if let Some(unfailed) = unfailed {
                // A range that was claimed for one that failed is free for the next.
                assert_eq!(address(&life), unfailed, "{name}, call {nth}: {outcome:?}");
            }
            check(&format!("call {nth}"), name, &outcome, life, &before);
        }
        println!("{name}: {failed} failures of {calls} calls");
    }
}

/// As the image's next writer, as a reader beside its writer, as a thief.
const WAYS: [(&str, Way); 3] = [
    ("write", |options| options),
    ("read", SessionOptions::reader),
    ("steal", SessionOptions::steal),
];

#[test]
fn an_open_that_fails_gives_everything_back_and_the_next_one_works_in_the_same_process() {
    for (name, way) in WAYS {
        let begin = || {
            let life = Life::begin();
            life.session.checkpoint().unwrap();
            let (disk, kernel) = (life.disk.clone(), Arc::new(ModelKernel::new()));
            let other = (name != "write").then_some(life);
            let options = way(options(&kernel, &disk));
            (other, disk, kernel, options)
        };
        let opened = |options: &SessionOptions| {
            let session = options.open("image").map_err(|error| error.to_string())?;
            let segment = session.segment_with("memory", 0, &small(1 << 20));
            assert_eq!(painted(&segment.unwrap()), Some(UNSAVED), "{name}");
            Ok::<_, String>(session)
        };
        let (other, disk, kernel, options) = begin();
        let first = disk.operations();
        drop(opened(&options).unwrap());
        // What closing does is not what is asked about, and the read above is one call more.
        let (calls, operations) = (kernel.calls(), disk.operations() - first);
        drop(other);
        let mut failed = 0;
        for nth in 0..calls + operations {
            let (other, disk, kernel, options) = begin();
            let before = held(&kernel, &disk);
            if nth < calls {
                kernel.fail_nth(nth + 1, 12);
            } else {
                disk.fail_operation(first + nth - calls, 5);
            }
            let outcome = options.open("image");
            kernel.stop_failing();
            let when = format!("{name}: {nth} of {calls} calls and {operations} operations");
            match outcome {
                Ok(session) => drop(session),
                Err(error) => {
                    failed += 1;
                    let after = held(&kernel, &disk);
                    assert_eq!(after, before, "{when}: {error}");
                }
            }
            let again = opened(&options);
            drop(again.unwrap_or_else(|error| panic!("{when}: the next one: {error}")));
            drop(other);
        }
        println!("{name}: {failed} failures of {calls} calls and {operations} operations");
        assert!(failed > 5, "{name}: only {failed} opens failed");
    }
}
