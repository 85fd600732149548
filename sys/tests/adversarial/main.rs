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
mod by_ledger;
mod harness;
mod wp_sync;

use std::{
    fs::File,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use segvm_os::{Kernel, KernelError, PageRange, Query, RealKernel, Watch};

use harness::*;

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
