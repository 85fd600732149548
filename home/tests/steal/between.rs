//! Somebody else acts between any two steps of an operation: at each call on the disk in turn.

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, DiskFile, LockAttempt, LockHolder, MemDisk, Open, PageCache},
};
use segvm_home::{AcquireError, DirHome};
use segvm_os::Mappable;

use crate::{commit, holder, line, notes, reader};

type Hook = Box<dyn FnOnce() + Send>;

/// A disk that lets somebody else act before one of its calls.
#[derive(Clone)]
struct Between {
    disk: MemDisk,
    calls: Arc<AtomicU64>,
    at: Arc<Mutex<Option<(u64, Hook)>>>,
}

impl Between {
    fn call(&self) -> &MemDisk {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut at = self.at.lock().unwrap();
        let due = at.take_if(|(when, _)| *when == call);
        drop(at);
        if let Some((_, hook)) = due {
            hook();
        }
        &self.disk
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Between {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.call().open(path, how)?;
        let disk = self.clone();
        Ok(Arc::new(BetweenFile { disk, file }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call().create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call().sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call().list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call().remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.call().exists(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.call().try_lock(path)
    }

    fn try_share(&self, path: &Path) -> io::Result<LockAttempt> {
        self.call().try_share(path)
    }

    fn locked_by(&self, path: &Path) -> io::Result<Option<LockHolder>> {
        self.call().locked_by(path)
    }
}

#[derive(Debug)]
struct BetweenFile {
    disk: Between,
    file: Arc<dyn DiskFile>,
}

impl Mappable for BetweenFile {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.call();
        self.file.read_at(offset, buf)
    }
}

impl DiskFile for BetweenFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.call();
        self.file.len()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.call();
        self.file.write_at(offset, bytes)
    }

    fn page_cache(&self, how: PageCache) -> bool {
        self.file.page_cache(how)
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.preallocate(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call();
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.call();
        self.file.sync()
    }

    fn as_mappable(&self) -> &dyn Mappable {
        self
    }
}

struct World {
    disk: Between,
    home: DirHome,
}

impl World {
    fn new() -> Self {
        let disk = Between {
            disk: MemDisk::new(),
            calls: Arc::default(),
            at: Arc::default(),
        };
        let home = DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"));
        let home = home.with_patience(Duration::ZERO);
        Self { disk, home }
    }
}

/// What came of an operation: the commit that was promised.
type Outcome = Option<CommitId>;

/// What somebody else did: whether it got its turn, and the commit that was promised.
type Other = fn(&DirHome) -> (bool, Outcome);

fn steal(home: &DirHome) -> (bool, Outcome) {
    match home.steal(&notes(), holder("thief")) {
        Ok(mut thief) => {
            let parent = thief.head().map(|head| head.commit_id);
            // Refused if it was stolen from in turn.
            (true, thief.publish(&commit(50, parent), b"").ok())
        }
        Err(AcquireError::Busy { .. }) => (false, None),
        Err(other) => panic!("{other}"),
    }
}

fn write(home: &DirHome) -> (bool, Outcome) {
    match home.acquire(&notes(), holder("writer")) {
        Ok(mut lease) => {
            let parent = lease.head().map(|head| head.commit_id);
            (true, lease.publish(&commit(51, parent), b"").ok())
        }
        Err(AcquireError::Busy { .. }) => (false, None),
        Err(AcquireError::Held { .. }) => (true, None),
        Err(other) => panic!("{other}"),
    }
}

fn read_and_commit(home: &DirHome) -> (bool, Outcome) {
    let head = home.image(&notes()).unwrap().unwrap().head.unwrap();
    let base = Some(head.commit_id);
    let answer = home.commit(&notes(), reader(base), &commit(52, base), b"");
    (true, answer.ok())
}

/// Runs `operation` on an image with one commit, once for each of its calls on the disk, with `other` acting before that
/// call; how often `other` was kept out, got in and committed.
fn between_all(
    prepare: impl Fn(&DirHome) -> Option<segvm_home::WriterLease>,
    operation: impl Fn(&DirHome, Option<segvm_home::WriterLease>, CommitId) -> Outcome,
    other: Other,
) -> (usize, usize) {
    let (mut kept_out, mut committed) = (0, 0);
    for call in 0.. {
        let world = World::new();
        let mut first = world.home.acquire(&notes(), holder("first")).unwrap();
        let base = first.publish(&commit(0, None), b"").unwrap();
        drop(first);
        let prepared = prepare(&world.home);
        let result = Arc::new(Mutex::new(None));
        let (home, answer) = (world.home.clone(), Arc::clone(&result));
        let when = world.disk.calls.load(Ordering::Relaxed) + call;
        let hook: Hook = Box::new(move || *answer.lock().unwrap() = Some(other(&home)));
        *world.disk.at.lock().unwrap() = Some((when, hook));
        let own = operation(&world.home, prepared, base);
        let Some((got_in, others)) = result.lock().unwrap().take() else {
            return (kept_out, committed);
        };
        kept_out += usize::from(!got_in);
        committed += usize::from(others.is_some());
        let found: Vec<CommitId> = line(&world.home).iter().map(|r| r.commit_id).collect();
        for promised in [own, others].into_iter().flatten() {
            assert!(found.contains(&promised), "lost at call {call}: {found:?}");
        }
        let promised = 1 + own.iter().count() + others.iter().count();
        assert_eq!(found.len(), promised, "at call {call}");
    }
    unreachable!("an operation ends")
}

#[test]
fn a_theft_between_any_two_steps_of_a_publish() {
    let publish = |_: &DirHome, lease: Option<segvm_home::WriterLease>, base| {
        let mut lease = lease.unwrap();
        lease.publish(&commit(1, Some(base)), b"").ok()
    };
    let acquire = |home: &DirHome| Some(home.acquire(&notes(), holder("old")).unwrap());
    let (kept_out, committed) = between_all(acquire, publish, steal);
    assert!(kept_out >= 5 && committed >= 1, "{kept_out}, {committed}");
}

#[test]
fn anything_between_any_two_steps_of_opening_and_writing() {
    let open = |home: &DirHome, _, _| {
        let mut lease = home.acquire(&notes(), holder("old")).ok()?;
        let parent = lease.head().map(|head| head.commit_id);
        lease.publish(&commit(1, parent), b"").ok()
    };
    for (other, least) in [(steal as Other, 2), (write, 1), (read_and_commit, 1)] {
        let (_, committed) = between_all(|_| None, open, other);
        assert!(committed >= least, "{committed}");
    }
}

#[test]
fn anything_between_any_two_steps_of_a_theft() {
    let thief = |home: &DirHome, _: Option<segvm_home::WriterLease>, _| steal(home).1;
    let acquire = |home: &DirHome| Some(home.acquire(&notes(), holder("old")).unwrap());
    for (other, least) in [(steal as Other, 1), (write, 0)] {
        let (_, committed) = between_all(acquire, thief, other);
        assert!(committed >= least);
    }
}

#[test]
fn anything_between_any_two_steps_of_a_commit_without_a_lease() {
    let reader = |home: &DirHome, _, base| {
        let base = Some(base);
        home.commit(&notes(), reader(base), &commit(1, base), b"")
            .ok()
    };
    for other in [steal as Other, write, read_and_commit] {
        let (_, committed) = between_all(|_| None, reader, other);
        assert!(committed >= 1);
    }
}
