//! Memory to attack, writers, and a scanner whose copy must hold.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
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

use segvm_os::{Kernel, Mappable, PageRange, Query, RealKernel, Watch};

pub(crate) const MIB: usize = 1 << 20;
/// Not aligned to a huge page where a test does not say so.
pub(crate) const BASE: usize = 0x5b00_0010_1000;
pub(crate) const HUGE_BASE: usize = 0x5b00_4000_0000;
/// More than any test's range.
const APART: usize = 16 << 30;
pub(crate) const RUN: Duration = Duration::from_millis(700);

#[derive(Debug)]
pub(crate) struct Painted(File);

impl Mappable for Painted {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Reserves a range of its own for each call: what a test mapped stays for the life of the process, which it has to itself
/// under nextest only.
pub(crate) fn kernel_and_range(base: usize, len: usize) -> (RealKernel, PageRange) {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let base = base + CALLS.fetch_add(1, Ordering::Relaxed) * APART;
    let kernel = RealKernel::new().unwrap();
    let range = PageRange::new(kernel.page_size(), base, len).unwrap();
    kernel.reserve(range).unwrap();
    (kernel, range)
}

pub(crate) fn commit(kernel: &dyn Kernel, range: PageRange) {
    // SAFETY: the test reserved the range and does not use it yet.
    unsafe { kernel.commit(range) }.unwrap();
}

pub(crate) fn map(kernel: &dyn Kernel, range: PageRange) {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(range.len()).collect();
    file.write_all(&bytes).unwrap();
    // SAFETY: the test reserved the range and does not use it yet; nobody writes to the temporary file.
    unsafe { kernel.map_file(range, &Painted(file), 0) }.unwrap();
}

pub(crate) fn watch(kernel: &dyn Kernel, range: PageRange) -> Box<dyn Watch> {
    let watch = kernel.watch().unwrap();
    // SAFETY: the test reserved the range.
    unsafe { watch.register(range) }.unwrap();
    watch
}

pub(crate) fn arm(watch: &dyn Watch, range: PageRange) {
    // SAFETY: the test reserved the range.
    unsafe { watch.arm(range) }.unwrap();
}

/// A word of the range, shared by all who write.
pub(crate) fn word(range: PageRange, index: u64) -> &'static AtomicU64 {
    let words = (range.len() / 8) as u64;
    let at = range.start() + 8 * (index % words) as usize;
    // SAFETY: committed or mapped for the life of the process, aligned, and accessed by atomics and the kernel only.
    unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(at) }
}

pub(crate) fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// What the scanner knows of the range.
pub(crate) struct Shadow {
    range: PageRange,
    bytes: Vec<u8>,
    pages: usize,
}

impl Shadow {
    /// As memory is now, when nobody writes.
    pub(crate) fn of(kernel: &dyn Kernel, range: PageRange) -> Self {
        let mut bytes = vec![0; range.len()];
        kernel.copy_racing(&[range], &mut bytes).unwrap();
        Self {
            range,
            bytes,
            pages: 0,
        }
    }

    pub(crate) fn copy(&mut self, kernel: &dyn Kernel, runs: &[PageRange]) {
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

    pub(crate) fn round(&mut self, kernel: &dyn Kernel) -> usize {
        let mut runs = Vec::new();
        kernel
            .scan(self.range, Query::WrittenRearm, &mut runs)
            .unwrap();
        self.copy(kernel, &runs);
        runs.len()
    }

    /// Pages that differ from memory, when nobody writes.
    pub(crate) fn lost(&self, kernel: &dyn Kernel) -> usize {
        let now = Self::of(kernel, self.range).bytes;
        let size = kernel.page_size().bytes();
        let pairs = now.chunks(size).zip(self.bytes.chunks(size));
        pairs.filter(|(now, then)| now != then).count()
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets `writers` threads write while `scanner` runs, and stops them when it returns.
pub(crate) fn while_writing(
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
        // Also where the scanner panics, or the writers would write for ever.
        let _end = Stop(&stop);
        scanner();
    });
    writes.into_inner()
}

pub(crate) fn store(range: PageRange, seed: &mut u64) {
    for _ in 0..64 {
        let at = next(seed);
        word(range, at).store(next(seed), Ordering::Relaxed);
    }
}

/// Many times: some rounds under writers, one when they are gone, and then nothing may be missing.
///
/// Often, because a later write to the same page hides that an earlier one was lost.
pub(crate) fn nothing_is_lost(
    kernel: &dyn Kernel,
    range: PageRange,
    writers: u64,
    write: impl Fn(PageRange, &mut u64) + Sync,
    between: impl FnMut(),
) {
    nothing_is_lost_and(Duration::ZERO, kernel, range, writers, write, between);
}

/// As [`nothing_is_lost`], where a thread notes what is written: of two writers that waited for one page it may note the second
/// when a scan has taken the first note already. That is dirt too much, until it has caught up.
pub(crate) fn nothing_is_lost_by_late_notes(
    kernel: &dyn Kernel,
    range: PageRange,
    writers: u64,
    write: impl Fn(PageRange, &mut u64) + Sync,
    between: impl FnMut(),
) {
    nothing_is_lost_and(
        Duration::from_secs(20),
        kernel,
        range,
        writers,
        write,
        between,
    );
}

fn nothing_is_lost_and(
    late: Duration,
    kernel: &dyn Kernel,
    range: PageRange,
    writers: u64,
    write: impl Fn(PageRange, &mut u64) + Sync,
    mut between: impl FnMut(),
) {
    let mut shadow = Shadow::of(kernel, range);
    let (mut rounds, mut writes, mut stops) = (0, 0, 0);
    let begin = Instant::now();
    let idle = |pages| pages <= 1000 && begin.elapsed() < Duration::from_secs(20);
    while begin.elapsed() < RUN || stops < 3 || idle(shadow.pages) {
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
        let stopped = Instant::now();
        while shadow.round(kernel) != 0 {
            assert!(stopped.elapsed() < late, "dirt from nothing");
            thread::yield_now();
        }
    }
    println!(
        "{writes} writes, {rounds} rounds, {stops} stops, {} pages copied",
        shadow.pages
    );
    assert!(shadow.pages > 1000, "the test did not work hard");
}
