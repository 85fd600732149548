//! Migrations on a crashing disk: the power fails at every operation, every operation fails once, the disk is full at any byte.
//! Either the old image or the new one, whole.
//!
//! A heap needs real memory, so the kernel is real; what it maps of a disk that is none is put into a file first.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
    sync::Arc,
};

use segvm::{
    BTreeMap, CommitId, Migration, OpenError, Session, SessionOptions, Text, Vec, World,
    persist::Persist,
};
use segvm_blockcache::disk::CrashDisk;
use segvm_os::{Kernel, KernelError, Mappable, PageRange, PageSize, Query, Watch, best_engine};

#[derive(Debug)]
struct MapsAnything(Arc<dyn Kernel>);

#[derive(Debug)]
struct Copied(File);

impl Mappable for Copied {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

impl Kernel for MapsAnything {
    fn page_size(&self) -> PageSize {
        self.0.page_size()
    }

    fn reserve(&self, range: PageRange) -> Result<(), KernelError> {
        self.0.reserve(range)
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.release(range) }
    }

    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.commit(range) }
    }

    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.fence(range) }
    }

    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError> {
        let mut bytes = vec![0; range.len()];
        let copied = tempfile::tempfile().unwrap();
        file.read_at(offset, &mut bytes).unwrap();
        copied.write_all_at(&bytes, 0).unwrap();
        // SAFETY: the caller's promise for the range; nobody else knows the file.
        unsafe { self.0.map_file(range, &Copied(copied), 0) }
    }

    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.fill(at, bytes) }
    }

    fn populate_read(&self, range: PageRange) -> Result<(), KernelError> {
        self.0.populate_read(range)
    }

    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.set_writable(range, writable) }
    }

    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.discard(range) }
    }

    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.seclude(range) }
    }

    fn watch(&self) -> Result<Box<dyn Watch>, KernelError> {
        self.0.watch()
    }

    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut std::vec::Vec<PageRange>,
    ) -> Result<(), KernelError> {
        self.0.scan(range, query, out)
    }

    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        self.0.copy_racing(ranges, out)
    }

    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.copy_quiet(ranges, out) }
    }
}

#[derive(Persist)]
#[repr(C)]
struct First {
    all: Vec<Text>,
    padding: Vec<u64>,
}

#[derive(Persist)]
#[repr(C)]
struct Second {
    all: Vec<Text>,
}

#[derive(Persist)]
#[repr(C)]
struct Third {
    places: BTreeMap<Text, u64>,
}

const TEXTS: u64 = 300;

fn text(n: u64) -> String {
    format!("the {n}th of some texts that fill more than one block")
}

fn options(world: &World) -> SessionOptions {
    SessionOptions::new()
        .store(Path::new("/store"))
        .world(world.clone())
}

/// Two steps, so that there is a half-way.
fn migrating(world: &World) -> SessionOptions {
    let first = Migration::from::<First, Second>("all", |old, mut new| {
        new.all.extend(old.all.iter().map(|text| text.to_string()));
    });
    let second = Migration::from::<Second, Third>("all", |old, mut new| {
        for (n, text) in (0..).zip(&old.all) {
            new.places.insert(text.as_str(), n);
        }
    });
    options(world).migration(first).migration(second)
}

/// An image of the first version, suspended.
fn begin(world: &World) -> CommitId {
    let session = options(world).open("image").unwrap();
    let root = session.root::<First>("all").unwrap();
    {
        let mut guard = root.write();
        let mut first = guard.as_mut();
        first.all.extend((0..TEXTS).map(text));
        first.padding.extend(0..20_000);
    }
    *session.root::<u64>("other").unwrap().write() = 42;
    session.suspend().unwrap().commit
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Old,
    New,
}

/// What is there: one of the two, with everything that belongs to it, or a failed test.
fn look(world: &World, old: CommitId, when: &str) -> Found {
    let session = options(world)
        .open("image")
        .unwrap_or_else(|error| panic!("{when}: it cannot be opened: {error}"));
    assert_eq!(*session.root::<u64>("other").unwrap().read(), 42, "{when}");
    let log = session.log().unwrap();
    assert_eq!(log.last().unwrap().commit_id, old, "{when}");
    session.heap("heap").unwrap().heap().check().unwrap();
    if let Ok(third) = session.root::<Third>("all") {
        assert_eq!(log.len(), 2, "{when}: one commit");
        let third = third.read();
        assert_eq!(third.places.len() as u64, TEXTS, "{when}");
        let there = |n| third.places.get(&*text(n)) == Some(&n);
        assert!((0..TEXTS).all(there), "{when}");
        let tags = session.tags().unwrap();
        assert_eq!(tags.len(), 1, "{when}");
        assert_eq!(tags[0].record.commit_id, old, "{when}");
        return Found::New;
    }
    let first = session
        .root::<First>("all")
        .unwrap_or_else(|error| panic!("{when}: neither old nor new: {error}"));
    assert_eq!(log.len(), 1, "{when}");
    let first = first.read();
    let as_written = |(n, found): (u64, &Text)| **found == text(n);
    assert!((0..TEXTS).zip(&first.all).all(as_written), "{when}");
    assert_eq!(first.all.len() as u64, TEXTS, "{when}");
    assert!((0..20_000).eq(first.padding.iter().copied()), "{when}");
    Found::Old
}

fn world() -> Option<World> {
    match best_engine() {
        Ok((_, kernel)) => Some(World::with(
            Arc::new(MapsAnything(kernel)),
            Arc::new(CrashDisk::new(0)),
        )),
        Err(error) => {
            println!("skipped: no engine works here: {error}");
            None
        }
    }
}

/// How many operations the disk sees while an image is migrated.
fn operations(world: &World) -> u64 {
    let disk = CrashDisk::new(1);
    let world = world.with_disk(Arc::new(disk.clone()));
    let old = begin(&world);
    let before = disk.operations();
    drop(migrating(&world).open("image").unwrap());
    let operations = disk.operations() - before;
    assert_eq!(look(&world, old, "undisturbed"), Found::New);
    assert!(operations > 10, "{operations} operations are no migration");
    operations
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_image_or_the_new_one() {
    let Some(world) = world() else { return };
    let mut found = std::vec::Vec::new();
    for at in 0..operations(&world) {
        for seed in [3, 4] {
            let when = format!("power cut at {at}, seed {seed}");
            let disk = CrashDisk::new(seed * 1000 + at);
            let running = world.with_disk(Arc::new(disk.clone()));
            let old = begin(&running);
            disk.power_off_at(disk.operations() + at);
            let opened = migrating(&running).open("image").map(drop);
            let left = world.with_disk(Arc::new(disk.crash()));
            let is = look(&left, old, &when);
            // Acknowledged is durable.
            assert!(opened.is_err() || is == Found::New, "{when}");
            found.push(is);
            // And the next try comes to the same end.
            drop(migrating(&left).open("image").unwrap());
            assert_eq!(look(&left, old, &when), Found::New);
        }
    }
    assert!(found.contains(&Found::Old) && found.contains(&Found::New));
}

#[test]
fn any_failing_operation_leaves_the_old_image_or_the_new_one() {
    let Some(world) = world() else { return };
    let (mut refused, operations) = (0, operations(&world));
    for errno in [28, 5] {
        for at in 0..operations {
            let when = format!("errno {errno} at {at}");
            let disk = CrashDisk::new(1);
            let running = world.with_disk(Arc::new(disk.clone()));
            let old = begin(&running);
            disk.fail_operation(disk.operations() + at, errno);
            let opened: Result<Session, OpenError> = migrating(&running).open("image");
            refused += u64::from(opened.is_err());
            let acknowledged = opened.map(drop).is_ok();
            let is = look(&running, old, &when);
            assert!(!acknowledged || is == Found::New, "{when}");
            drop(migrating(&running).open("image").unwrap());
            assert_eq!(look(&running, old, &when), Found::New);
        }
    }
    assert!(refused > operations / 2, "only {refused} failed");
}

#[test]
fn a_full_disk_leaves_the_old_image() {
    let Some(world) = world() else { return };
    let disk = CrashDisk::new(1);
    let running = world.with_disk(Arc::new(disk.clone()));
    let old = begin(&running);
    for room in [0, 600, 5000, 20_000] {
        disk.fill_after(Some(room));
        let error = migrating(&running).open("image").unwrap_err().to_string();
        disk.fill_after(None);
        assert!(error.contains("/store"), "no path in: {error}");
        assert_eq!(look(&running, old, "full"), Found::Old);
    }
    drop(migrating(&running).open("image").unwrap());
    assert_eq!(look(&running, old, "with room"), Found::New);
}
