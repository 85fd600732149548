//! The real kernel under hostile programs: nothing that was written may be missing from a copy.
//!
//! One process per test (nextest). A scanner copies what [`Query::WrittenRearm`] reports into a shadow while others
//! write; after they stop, one more scan must make the shadow equal to memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a failed test panics"
)]
use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    ptr,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use segvm_os::{Kernel, KernelError, Mappable, PageRange, Query, RealKernel, Watch};

const MIB: usize = 1 << 20;
/// Not aligned to a huge page where a test does not say so.
const BASE: usize = 0x5b00_0010_1000;
const HUGE_BASE: usize = 0x5b00_4000_0000;
const RUN: Duration = Duration::from_millis(700);

#[derive(Debug)]
struct Painted(File);

impl Mappable for Painted {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

fn kernel_and_range(base: usize, len: usize) -> (RealKernel, PageRange) {
    let kernel = RealKernel::new().unwrap();
    let range = PageRange::new(kernel.page_size(), base, len).unwrap();
    kernel.reserve(range).unwrap();
    (kernel, range)
}

fn commit(kernel: &RealKernel, range: PageRange) {
    // SAFETY: the test reserved the range and does not use it yet.
    unsafe { kernel.commit(range) }.unwrap();
}

fn map(kernel: &RealKernel, range: PageRange) {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(range.len()).collect();
    file.write_all(&bytes).unwrap();
    // SAFETY: the test reserved the range and does not use it yet; nobody writes to the temporary file.
    unsafe { kernel.map_file(range, &Painted(file), 0) }.unwrap();
}

fn watch(kernel: &RealKernel, range: PageRange) -> Box<dyn Watch> {
    let watch = kernel.watch().unwrap();
    // SAFETY: the test reserved the range.
    unsafe { watch.register(range) }.unwrap();
    watch
}

fn arm(watch: &dyn Watch, range: PageRange) {
    // SAFETY: the test reserved the range.
    unsafe { watch.arm(range) }.unwrap();
}

/// A word of the range, shared by all who write.
fn word(range: PageRange, index: u64) -> &'static AtomicU64 {
    let words = (range.len() / 8) as u64;
    let at = range.start() + 8 * (index % words) as usize;
    // SAFETY: committed or mapped for the life of the process, aligned, and accessed by atomics and the kernel only.
    unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(at) }
}

fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// What the scanner knows of the range.
struct Shadow {
    range: PageRange,
    bytes: Vec<u8>,
    pages: usize,
}

impl Shadow {
    /// As memory is now, when nobody writes.
    fn of(kernel: &RealKernel, range: PageRange) -> Self {
        let mut bytes = vec![0; range.len()];
        kernel.copy_racing(&[range], &mut bytes).unwrap();
        Self {
            range,
            bytes,
            pages: 0,
        }
    }

    fn copy(&mut self, kernel: &RealKernel, runs: &[PageRange]) {
        let len = runs.iter().map(|run| run.len()).sum();
        let mut copy = vec![0; len];
        kernel.copy_racing(runs, &mut copy).unwrap();
        let mut rest = &copy[..];
        for run in runs {
            let (now, after) = rest.split_at(run.len());
            let at = run.start() - self.range.start();
            self.bytes[at..at + run.len()].copy_from_slice(now);
            rest = after;
        }
        self.pages += len / kernel.page_size().bytes();
    }

    fn round(&mut self, kernel: &RealKernel) -> usize {
        let mut runs = Vec::new();
        kernel
            .scan(self.range, Query::WrittenRearm, &mut runs)
            .unwrap();
        self.copy(kernel, &runs);
        runs.len()
    }

    /// Pages that differ from memory, when nobody writes.
    fn lost(&self, kernel: &RealKernel) -> usize {
        let now = Self::of(kernel, self.range).bytes;
        let size = kernel.page_size().bytes();
        let pairs = now.chunks(size).zip(self.bytes.chunks(size));
        pairs.filter(|(now, then)| now != then).count()
    }
}

/// Lets `writers` threads write while `scanner` runs, and stops them when it returns.
fn while_writing(
    range: PageRange,
    writers: u64,
    write: impl Fn(PageRange, &mut u64) + Sync,
    scanner: impl FnOnce(),
) -> u64 {
    let stop = AtomicBool::new(false);
    let begin = Barrier::new(writers as usize + 1);
    let writes = AtomicU64::new(0);
    thread::scope(|scope| {
        for writer in 0..writers {
            let (stop, begin, writes, write) = (&stop, &begin, &writes, &write);
            scope.spawn(move || {
                let mut seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(writer + 1) | 1;
                write(range, &mut seed);
                begin.wait();
                while !stop.load(Ordering::Relaxed) {
                    write(range, &mut seed);
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        begin.wait();
        scanner();
        stop.store(true, Ordering::Relaxed);
    });
    writes.into_inner()
}

fn store(range: PageRange, seed: &mut u64) {
    for _ in 0..64 {
        let at = next(seed);
        word(range, at).store(next(seed), Ordering::Relaxed);
    }
}

/// Many times: some rounds under writers, one when they are gone, and then nothing may be missing.
///
/// Often, because a later write to the same page hides that an earlier one was lost.
fn nothing_is_lost(
    kernel: &RealKernel,
    range: PageRange,
    writers: u64,
    write: impl Fn(PageRange, &mut u64) + Sync,
    mut between: impl FnMut(),
) {
    let mut shadow = Shadow::of(kernel, range);
    let (mut rounds, mut writes, mut stops) = (0, 0, 0);
    let begin = Instant::now();
    while begin.elapsed() < RUN || stops < 3 {
        writes += while_writing(range, writers, &write, || {
            for _ in 0..3 {
                shadow.round(kernel);
                between();
                rounds += 1;
            }
        });
        stops += 1;
        shadow.round(kernel);
        assert_eq!(shadow.lost(kernel), 0, "pages lost before stop {stops}");
        assert_eq!(shadow.round(kernel), 0, "dirt from nothing");
    }
    println!(
        "{writes} writes, {rounds} rounds, {stops} stops, {} pages copied",
        shadow.pages
    );
    assert!(shadow.pages > 1000, "the test did not work hard");
}

#[test]
fn writers_at_full_speed_on_anonymous_memory() {
    let (kernel, range) = kernel_and_range(BASE, 16 * MIB);
    commit(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    nothing_is_lost(&kernel, range, 4, store, || {});
}

#[test]
fn writers_at_full_speed_on_a_mapped_file() {
    let (kernel, range) = kernel_and_range(BASE, 16 * MIB);
    map(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    nothing_is_lost(&kernel, range, 4, store, || {});
}

#[test]
fn huge_pages_split_under_writers() {
    let (kernel, range) = kernel_and_range(HUGE_BASE, 16 * MIB);
    commit(&kernel, range);
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: changes how the test's own memory is backed.
    unsafe { rustix::mm::madvise(at, range.len(), rustix::mm::Advice::LinuxHugepage) }.unwrap();
    for page in 0..(range.len() / 4096) as u64 {
        word(range, page * 512).store(page, Ordering::Relaxed);
    }
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    nothing_is_lost(&kernel, range, 2, store, || {});
}

#[test]
fn the_kernel_writes_into_armed_pages() {
    let (kernel, range) = kernel_and_range(BASE, 8 * MIB);
    map(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    let random = File::open("/dev/urandom").unwrap();
    let failed = AtomicUsize::new(0);
    let read_into = |range: PageRange, seed: &mut u64| {
        // Crosses pages, begins anywhere.
        let len = (next(seed) % 9000 + 1) as usize;
        let at = range.start() + next(seed) as usize % (range.len() - len);
        let into = ptr::with_exposed_provenance_mut(at);
        // SAFETY: the kernel writes into the test's own memory, of which no reference exists.
        if unsafe { libc::read(random.as_raw_fd(), into, len) } < 0 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    };
    nothing_is_lost(&kernel, range, 2, read_into, || {});
    assert_eq!(failed.into_inner(), 0, "reads that failed");
}

#[test]
fn forks_during_the_scans() {
    let (kernel, range) = kernel_and_range(BASE, 8 * MIB);
    commit(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    let mut forks = 0;
    nothing_is_lost(&kernel, range, 2, store, || {
        // SAFETY: the child of a process with threads does nothing but system calls and stores to its own copy.
        match unsafe { libc::fork() } {
            0 => {
                let mut seed = 77;
                for _ in 0..4 {
                    store(range, &mut seed);
                }
                let mut runs = Vec::new();
                let refused = matches!(
                    kernel.scan(range, Query::WrittenRearm, &mut runs),
                    Err(KernelError::Forked { .. })
                );
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            child => {
                assert!(child > 0);
                let mut status = 0;
                // SAFETY: waits for the child made above.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "the child was let to scan its parent");
                forks += 1;
            }
        }
    });
    assert!(forks >= 3, "{forks} forks");
}

#[test]
fn discarded_pages_are_reported() {
    let (kernel, range) = kernel_and_range(BASE, 8 * MIB);
    commit(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    let mut seed = 5;
    nothing_is_lost(&kernel, range, 2, store, || {
        let at = range.start() + next(&mut seed) as usize % (range.len() - MIB) / 4096 * 4096;
        let at = ptr::with_exposed_provenance_mut(at);
        // SAFETY: the test's own memory; what lay there may go.
        unsafe { rustix::mm::madvise(at, MIB / 2, rustix::mm::Advice::LinuxDontNeed) }.unwrap();
    });
}

/// From cold to warm while others write, piece by piece, by one of the exact orders.
fn to_warm(order: impl Fn(&RealKernel, &dyn Watch, PageRange, &mut Vec<PageRange>)) {
    for trial in 0..12 {
        let (kernel, range) = kernel_and_range(BASE + trial * 64 * MIB, 4 * MIB);
        map(&kernel, range);
        let mut shadow = Shadow::of(&kernel, range);
        let watch = watch(&kernel, range);
        let slowly = |range: PageRange, seed: &mut u64| {
            let at = next(seed);
            word(range, at).store(next(seed), Ordering::Relaxed);
            std::hint::spin_loop();
        };
        while_writing(range, 2, slowly, || {
            for piece in range.windows(256 << 10) {
                kernel.populate_read(piece).unwrap();
                let mut runs = Vec::new();
                order(&kernel, &*watch, piece, &mut runs);
                shadow.copy(&kernel, &runs);
            }
        });
        shadow.round(&kernel);
        assert_eq!(shadow.lost(&kernel), 0, "pages lost in trial {trial}");
    }
}

#[test]
fn cold_to_warm_by_one_scan_that_arms_everything() {
    to_warm(|kernel, _, piece, runs| kernel.scan(piece, Query::ArmAll, runs).unwrap());
}

#[test]
fn cold_to_warm_by_arming_and_then_asking_what_is_private() {
    to_warm(|kernel, watch, piece, runs| {
        arm(watch, piece);
        kernel.scan(piece, Query::Private, runs).unwrap();
    });
}

#[test]
fn a_forked_child_can_do_nothing() {
    let (kernel, range) = kernel_and_range(BASE, MIB);
    commit(&kernel, range);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    word(range, 0).store(1, Ordering::Relaxed);
    // SAFETY: the child does nothing but system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut runs = Vec::with_capacity(8);
        let mut out = [0; 4096];
        let one = PageRange::new(kernel.page_size(), range.start(), 4096).unwrap();
        let answers = [
            kernel.scan(range, Query::WrittenRearm, &mut runs),
            kernel.copy_racing(&[one], &mut out),
            kernel.populate_read(range),
            kernel.watch().map(drop),
            // SAFETY: the child's copy of the range.
            unsafe { watch.arm(range) },
            // SAFETY: as above.
            unsafe { watch.register(range) },
            // SAFETY: as above.
            unsafe { watch.unregister(range) },
            // SAFETY: as above.
            unsafe { watch.install(range.start(), &out) },
            // SAFETY: as above.
            unsafe { kernel.fence(range) },
        ];
        let forked = |answer: &Result<(), _>| matches!(answer, Err(KernelError::Forked { .. }));
        let all = answers.iter().all(forked);
        drop(watch);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!all)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "a call in the child was not refused");
    let mut runs = Vec::new();
    kernel.scan(range, Query::Written, &mut runs).unwrap();
    assert_eq!(runs.len(), 1, "the parent's watch lives on: {runs:?}");
    assert_eq!(runs[0].len(), kernel.page_size().bytes());
}

#[test]
fn a_vector_that_fills_is_continued() {
    let (kernel, range) = kernel_and_range(BASE, 64 * MIB);
    commit(&kernel, range);
    let size = kernel.page_size().bytes();
    let pages = range.len() / size;
    let write_half = || {
        for page in (0..pages).step_by(2) {
            word(range, (page * size / 8) as u64).store(1, Ordering::Relaxed);
        }
    };
    // More regions than the kernel collects at a time, and more than the vector holds; each page once, in order.
    let mut runs = Vec::new();
    let mut check = |query| {
        for len in [600, 4096, 4097, pages / 2] {
            let part = PageRange::new(kernel.page_size(), range.start(), 2 * len * size).unwrap();
            runs.clear();
            kernel.scan(part, query, &mut runs).unwrap();
            assert_eq!(runs.len(), len, "{query:?}");
            assert!(runs.is_sorted() && runs.iter().all(|run| run.len() == size));
        }
    };
    write_half();
    check(Query::Private);
    let watch = watch(&kernel, range);
    arm(&*watch, range);
    write_half();
    check(Query::Written);
    runs.clear();
    kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
    assert!(runs.len() == pages / 2 && runs.is_sorted());
    // More pieces than one call of process_vm_readv takes.
    let mut out = vec![0; runs.len() * size];
    kernel.copy_racing(&runs, &mut out).unwrap();
    assert!(out.chunks(size).all(|page| page[0] == 1));
    runs.clear();
    kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
    assert!(runs.is_empty());
}
