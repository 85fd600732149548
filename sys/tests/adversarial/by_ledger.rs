//! The same attacks where a signal handler or a thread notes what is written, and those that are about either.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use segvm_os::{Engine, Kernel, KernelError, PageRange, Query, Without, open_engine_without};

use super::harness::*;

/// Where no other room's ranges are.
const PLACE: usize = 0x5d00_0010_1000;

pub(crate) const ALL: Without = Without {
    pagemap_scan: false,
    process_vm_readv: false,
    wp_unpopulated: false,
    kernel_faults: false,
};

pub(crate) const OLD: Without = Without {
    pagemap_scan: true,
    process_vm_readv: true,
    wp_unpopulated: true,
    kernel_faults: true,
};

/// An engine, and what it is not to use.
pub(crate) type By = (Engine, Without);

pub(crate) fn kernel_and_place(by: By, len: usize) -> (Arc<dyn Kernel>, PageRange) {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let kernel = open_engine_without(by.0, by.1).unwrap();
    // The last page of one GiB and the first of the next lie in it.
    let base = PLACE + CALLS.fetch_add(1, Ordering::Relaxed) * (16 << 30) + (1 << 30) - 4 * MIB;
    let range = PageRange::new(kernel.page_size(), base, len).unwrap();
    kernel.reserve(range).unwrap();
    (kernel, range)
}

macro_rules! attacks {
    ($($by:ident: $engine:ident, $without:ident;)*) => {
        $(mod $by {
            use super::Engine;

            attacks!(@ (Engine::$engine, super::$without),
                writers_at_full_speed_on_anonymous_memory
                writers_at_full_speed_on_a_mapped_file
                writers_that_crowd_on_few_pages
                cold_to_warm_while_others_write
                unregistering_under_writers_kills_nobody
                announced_system_calls_are_never_refused
                a_forked_child_writes_to_its_own_and_can_do_nothing_else
                forks_during_the_scans
                other_signals_during_faults_wait_for_their_turn
            );
        })*
    };
    (@ $by:expr, $($attack:ident)*) => {
        $(#[test]
        fn $attack() {
            super::$attack($by);
        })*
    };
}

attacks! {
    mprotect: Mprotect, ALL;
    mprotect_on_an_old_kernel: Mprotect, OLD;
    wp_sync: WpSync, ALL;
    wp_sync_on_an_old_kernel: WpSync, OLD;
}

fn attack(by: By, kernel: &dyn Kernel, range: PageRange, writers: u64, between: impl FnMut()) {
    match by.0 {
        Engine::WpSync => nothing_is_lost_by_late_notes(kernel, range, writers, store, between),
        _ => nothing_is_lost(kernel, range, writers, store, between),
    }
}

fn writers(by: By, prepare: impl Fn(&dyn Kernel, PageRange)) {
    let (kernel, range) = kernel_and_place(by, 16 * MIB);
    prepare(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    attack(by, &*kernel, range, 4, || {});
}

fn writers_at_full_speed_on_anonymous_memory(by: By) {
    writers(by, commit);
}

fn writers_at_full_speed_on_a_mapped_file(by: By) {
    writers(by, map);
}

/// Few pages, so that several threads fault on one while it is armed again.
fn writers_that_crowd_on_few_pages(by: By) {
    let (kernel, range) = kernel_and_place(by, 16 * MIB);
    commit(&*kernel, range);
    let few = PageRange::new(kernel.page_size(), range.start(), 16 << 12).unwrap();
    let watch = watch(&*kernel, few);
    arm(&*watch, few);
    attack(by, &*kernel, few, 4, || {});
}

fn cold_to_warm_while_others_write(by: By) {
    for prepare in [map, commit] {
        for _trial in 0..12 {
            let (kernel, range) = kernel_and_place(by, 4 * MIB);
            prepare(&*kernel, range);
            let mut shadow = Shadow::of(&*kernel, range);
            let watch = kernel.watch().unwrap();
            let slowly = |range: PageRange, seed: &mut u64| {
                let at = next(seed);
                word(range, at).store(next(seed), Ordering::Relaxed);
                std::hint::spin_loop();
            };
            while_writing(range, 2, slowly, || {
                for piece in range.windows(256 << 10) {
                    // SAFETY: the test reserved the range.
                    unsafe { watch.register(piece) }.unwrap();
                    let mut runs = Vec::new();
                    kernel.scan(piece, Query::ArmAll, &mut runs).unwrap();
                    shadow.copy(&*kernel, &runs);
                }
            });
            shadow.round(&*kernel);
            assert_eq!(shadow.lost(&*kernel), 0);
        }
    }
}

/// A write may fault before its page is unregistered, and its handler begin after.
fn unregistering_under_writers_kills_nobody(by: By) {
    let (kernel, range) = kernel_and_place(by, MIB);
    commit(&*kernel, range);
    while_writing(range, 3, store, || {
        for _ in 0..300 {
            let watch = watch(&*kernel, range);
            arm(&*watch, range);
            // SAFETY: the test reserved the range.
            unsafe { watch.unregister(range) }.unwrap();
            let watch = self::watch(&*kernel, range);
            arm(&*watch, range);
            drop(watch);
        }
    });
}

/// System calls that write into memory, each announced, while scans arm all that is not.
fn announced_system_calls_are_never_refused(by: By) {
    let (kernel, range) = kernel_and_place(by, 8 * MIB);
    map(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let random = fs::File::open("/dev/urandom").unwrap();
    let failed = AtomicUsize::new(0);
    let read_into = |range: PageRange, seed: &mut u64| {
        let len = (next(seed) % 9000 + 1) as usize;
        let at = range.start() + next(seed) as usize % (range.len() - len);
        let pages = PageRange::covering(kernel.page_size(), at, len).unwrap();
        kernel.begin_kernel_write(pages).unwrap();
        let into = std::ptr::with_exposed_provenance_mut(at);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&random);
        // SAFETY: the kernel writes into the test's own memory, of which no reference exists.
        if unsafe { libc::read(fd, into, len) } < 0 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        kernel.end_kernel_write(pages);
    };
    // What was announced is reported once more than it was written, so that "dirt from nothing" does not hold here.
    let mut shadow = Shadow::of(&*kernel, range);
    for _ in 0..10 {
        while_writing(range, 2, read_into, || {
            for _ in 0..3 {
                shadow.round(&*kernel);
            }
        });
        shadow.round(&*kernel);
        assert_eq!(shadow.lost(&*kernel), 0);
    }
    assert_eq!(failed.into_inner(), 0, "reads that failed");
}

/// The price of this engine, and that it is an error and no signal.
#[test]
fn a_system_call_that_was_not_announced_is_refused() {
    let (kernel, range) = kernel_and_place((Engine::Mprotect, ALL), MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let random = fs::File::open("/dev/urandom").unwrap();
    let into = std::ptr::with_exposed_provenance_mut(range.start());
    let fd = std::os::fd::AsRawFd::as_raw_fd(&random);
    // SAFETY: the kernel writes into the test's own memory, of which no reference exists.
    let done = unsafe { libc::read(fd, into, 100) };
    let error = std::io::Error::last_os_error();
    assert_eq!((done, error.raw_os_error()), (-1, Some(libc::EFAULT)));
    let mut runs = Vec::new();
    kernel.scan(range, Query::Written, &mut runs).unwrap();
    assert_eq!(runs, []);
}

/// Each page that is let through alone may split a map in three, and a process may have 65,530.
#[test]
fn scattered_writes_leave_maps_for_others() {
    let (kernel, range) = kernel_and_place((Engine::Mprotect, ALL), 160 * MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    let size = kernel.page_size().bytes();
    for round in 0..3_u64 {
        arm(&*watch, range);
        let mut expected = BTreeSet::new();
        for page in (0..range.len() / size).step_by(2) {
            word(range, (page * size / 8) as u64).store(round, Ordering::Relaxed);
            expected.insert(range.start() + page * size);
        }
        let maps = fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count();
        println!("{maps} maps for {} scattered pages", expected.len());
        assert!(maps < 9500, "{maps} maps");
        let mut runs = Vec::new();
        kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
        for run in runs {
            for at in (run.start()..run.end()).step_by(size) {
                expected.remove(&at);
            }
        }
        assert_eq!(expected.len(), 0, "pages lost");
        // Arming puts the maps together again.
        let maps = fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count();
        assert!(maps < 500, "{maps} maps");
    }
}

/// A child's pages, handler and notes are copies: it writes, and the parent's stay as they are.
fn a_forked_child_writes_to_its_own_and_can_do_nothing_else(by: By) {
    let (kernel, range) = kernel_and_place(by, MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    word(range, 0).store(1, Ordering::Relaxed);
    // SAFETY: the child does nothing but system calls and stores to its own copy.
    let child = unsafe { libc::fork() };
    if child == 0 {
        for page in 1..200 {
            word(range, page * 512).store(7, Ordering::Relaxed);
        }
        let mut runs = Vec::with_capacity(8);
        let answers = [
            kernel.scan(range, Query::WrittenRearm, &mut runs),
            kernel.begin_kernel_write(range),
            kernel.watch().map(drop),
            // SAFETY: the child's copy of the range.
            unsafe { watch.arm(range) },
            // SAFETY: as above.
            unsafe { watch.register(range) },
            // SAFETY: as above.
            unsafe { watch.unregister(range) },
            // SAFETY: as above.
            unsafe { kernel.fence(range) },
            // SAFETY: as above.
            unsafe { kernel.set_writable(range, false) },
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
    assert_eq!(
        status, 0,
        "a call in the child was not refused, or its writes killed it"
    );
    let mut runs = Vec::new();
    kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
    let first = PageRange::new(kernel.page_size(), range.start(), 4096).unwrap();
    assert_eq!(runs, [first]);
    assert_eq!(word(range, 512).load(Ordering::Relaxed), 0);
}

fn forks_during_the_scans(by: By) {
    let (kernel, range) = kernel_and_place(by, 8 * MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    attack(by, &*kernel, range, 2, || {
        // SAFETY: the child of a process with threads does nothing but stores to its own copy.
        match unsafe { libc::fork() } {
            0 => {
                let mut seed = 77;
                for _ in 0..4 {
                    store(range, &mut seed);
                }
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) };
            }
            child => {
                assert!(child > 0);
                let mut status = 0;
                // SAFETY: waits for the child made above.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "the child died");
            }
        }
    });
}

/// Signals come in the middle of faults; their handlers write to armed pages too.
fn other_signals_during_faults_wait_for_their_turn(by: By) {
    static WORD: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn on_alarm(_: libc::c_int) {
        let at = WORD.load(Ordering::Relaxed);
        // SAFETY: a word of the test's range, accessed by atomics only.
        let word = unsafe { &*std::ptr::with_exposed_provenance::<AtomicUsize>(at) };
        word.fetch_add(1, Ordering::Relaxed);
    }
    let (kernel, range) = kernel_and_place(by, 2 * MIB);
    commit(&*kernel, range);
    // Its last word is the signal handler's.
    WORD.store(range.end() - 8, Ordering::Relaxed);
    // SAFETY: all zero is a sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = on_alarm;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: a whole sigaction with a handler that is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let (stop, writer) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: asks for a number.
            let this = unsafe { libc::pthread_self() };
            writer.store(this as usize, Ordering::Release);
            while !stop.load(Ordering::Relaxed) {
                for page in 0..500 {
                    word(range, page * 512).store(page, Ordering::Relaxed);
                }
            }
        });
        let thread = loop {
            match writer.load(Ordering::Acquire) {
                0 => thread::yield_now(),
                thread => break thread as libc::pthread_t,
            }
        };
        for _ in 0..5000 {
            kernel
                .scan(range, Query::WrittenRearm, &mut Vec::new())
                .unwrap();
            // The writer is faulting on one page after the other now.
            // SAFETY: the thread lives: it stops only when told below.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(word(range, (range.len() / 8 - 1) as u64).load(Ordering::Relaxed) > 0);
}
