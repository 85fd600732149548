//! What only an engine has whose writers wait for a thread: system calls that wait as well, and the thread under load.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::AsRawFd,
    ptr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use segvm_os::{Engine, Kernel, PageRange, Query, Without, probe};

use super::{
    by_ledger::{ALL, OLD, kernel_and_place},
    harness::*,
};

fn place(without: Without, len: usize) -> (Arc<dyn Kernel>, PageRange) {
    kernel_and_place((Engine::WpSync, without), len)
}

/// One `read(2)` of random bytes into the range: what it answers.
fn read_into(at: usize, len: usize) -> Result<usize, Option<i32>> {
    let random = File::open("/dev/urandom").unwrap();
    let into = ptr::with_exposed_provenance_mut(at);
    // SAFETY: the kernel writes into the test's own memory, of which no reference exists.
    let done = unsafe { libc::read(random.as_raw_fd(), into, len) };
    usize::try_from(done).map_err(|_negative| std::io::Error::last_os_error().raw_os_error())
}

fn hears_of_system_calls() -> bool {
    let faults = probe().kernel_faults;
    if !faults.is_available() {
        eprintln!("skipped: {faults}");
    }
    faults.is_available()
}

/// The point of the engine: nobody has to announce anything, where memory is anonymous.
#[test]
fn the_kernel_writes_into_armed_pages_unannounced() {
    if !hears_of_system_calls() {
        return;
    }
    let (kernel, range) = place(ALL, 8 * MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let failed = AtomicUsize::new(0);
    let reads = |range: PageRange, seed: &mut u64| {
        // Crosses pages, begins anywhere.
        let len = (next(seed) % 9000 + 1) as usize;
        let at = range.start() + next(seed) as usize % (range.len() - len);
        failed.fetch_add(
            usize::from(read_into(at, len) != Ok(len)),
            Ordering::Relaxed,
        );
    };
    nothing_is_lost_by_late_notes(&*kernel, range, 2, reads, || {});
    assert_eq!(failed.into_inner(), 0, "reads that failed");
}

/// Where the descriptor hears of the program's own faults alone, and where memory is a file's: an error, and no wait.
#[test]
fn what_cannot_wait_is_refused() {
    for (without, prepare) in [(OLD, commit as fn(&dyn Kernel, PageRange)), (ALL, map)] {
        let (kernel, range) = place(without, MIB);
        prepare(&*kernel, range);
        let watch = watch(&*kernel, range);
        arm(&*watch, range);
        assert_eq!(read_into(range.start(), 100), Err(Some(libc::EFAULT)));
        let mut runs = Vec::new();
        kernel.scan(range, Query::Written, &mut runs).unwrap();
        assert_eq!(runs, []);
        // And the program's own writes go on.
        word(range, 0).store(1, Ordering::Relaxed);
        kernel.scan(range, Query::Written, &mut runs).unwrap();
        assert_eq!(runs.len(), 1);
    }
}

/// Eight threads that meet protected pages at once, all of them one page after the other: each is let through, each is noted.
#[test]
fn eight_threads_on_the_same_pages_are_all_let_through() {
    const THREADS: usize = 8;
    for without in [ALL, OLD] {
        let (kernel, range) = place(without, 4 * MIB);
        commit(&*kernel, range);
        let watch = watch(&*kernel, range);
        let size = kernel.page_size().bytes();
        let (together, mut found) = (Barrier::new(THREADS + 1), Vec::new());
        thread::scope(|scope| {
            for me in 0..THREADS {
                let together = &together;
                scope.spawn(move || {
                    for round in 1..=5_u64 {
                        together.wait();
                        for page in 0..range.len() / size {
                            word(range, (page * size / 8 + me) as u64)
                                .store(round, Ordering::Relaxed);
                        }
                        together.wait();
                    }
                });
            }
            for _round in 1..=5 {
                arm(&*watch, range);
                together.wait();
                together.wait();
                // Looked at when all are done: a panic here would leave the others waiting.
                found.push(Vec::new());
                let runs = found.last_mut().unwrap();
                kernel.scan(range, Query::Written, runs).unwrap();
            }
        });
        assert!(found.iter().all(|runs| *runs == [range]), "{found:?}");
    }
}

#[test]
fn huge_pages_split_under_writers() {
    let (kernel, _) = place(ALL, MIB);
    let range = PageRange::new(kernel.page_size(), HUGE_BASE + (1 << 40), 16 * MIB).unwrap();
    kernel.reserve(range).unwrap();
    commit(&*kernel, range);
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: changes how the test's own memory is backed.
    unsafe { rustix::mm::madvise(at, range.len(), rustix::mm::Advice::LinuxHugepage) }.unwrap();
    // Every other one is written, so that the rest is shown by the huge page of zeros once it is armed.
    for page in (0..(range.len() / 4096) as u64).filter(|page| page / 512 % 2 == 0) {
        word(range, page * 512).store(page, Ordering::Relaxed);
    }
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    nothing_is_lost_by_late_notes(&*kernel, range, 2, store, || {});
}

#[test]
fn discarded_pages_are_reported() {
    for without in [ALL, OLD] {
        let (kernel, range) = place(without, 8 * MIB);
        commit(&*kernel, range);
        // Nobody writes into the part that is discarded.
        let size = kernel.page_size().bytes();
        let [calm, busy] = [0, 1].map(|half| {
            let start = range.start() + half * range.len() / 2;
            PageRange::new(kernel.page_size(), start, range.len() / 2).unwrap()
        });
        for page in 0..calm.len() / size {
            word(calm, (page * size / 8) as u64).store(1, Ordering::Relaxed);
        }
        let watch = watch(&*kernel, range);
        arm(&*watch, range);
        let mut shadow = Shadow::of(&*kernel, range);
        let mut seed = 5;
        for _ in 0..20 {
            while_writing(busy, 2, store, || {
                for _ in 0..3 {
                    let at =
                        calm.start() + next(&mut seed) as usize % (calm.len() - MIB) / size * size;
                    let some = PageRange::new(kernel.page_size(), at, MIB / 2).unwrap();
                    // SAFETY: committed above, and nobody refers to it.
                    unsafe { kernel.discard(some) }.unwrap();
                    shadow.round(&*kernel);
                    // What was discarded and armed again is tracked as all else.
                    word(some, 512).store(next(&mut seed), Ordering::Relaxed);
                }
            });
            shadow.round(&*kernel);
            assert_eq!(shadow.lost(&*kernel), 0);
        }
    }
}

/// Protection by the page table splits no map, whatever the pattern.
#[test]
fn scattered_writes_split_no_map() {
    let (kernel, range) = place(ALL, 64 * MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let count = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let start =
            |line: &&str| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        let inside = maps
            .lines()
            .filter(|line| (range.start()..range.end()).contains(&start(line)));
        inside.count()
    };
    let before = count();
    let size = kernel.page_size().bytes();
    for page in (0..range.len() / size).step_by(2) {
        word(range, (page * size / 8) as u64).store(1, Ordering::Relaxed);
    }
    let mut runs = Vec::new();
    kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
    assert_eq!(runs.len(), range.len() / size / 2);
    assert!(runs.iter().all(|run| run.len() == size));
    assert_eq!(count(), before);
}

fn attendants() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One may end while we look.
    let name =
        |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let names = tasks.map(|task| name(task.unwrap()));
    names
        .filter(|name| name.starts_with("segvm-faults"))
        .count()
}

/// Waits until there are so many: one gives itself its name, and is seen for another moment when it was joined.
#[track_caller]
fn has_attendants(expected: usize) {
    let began = Instant::now();
    while attendants() != expected {
        let now = attendants();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{now} threads, not {expected}"
        );
        thread::yield_now();
    }
}

fn userfaultfds() -> BTreeSet<i32> {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = links.filter_map(|link| {
        let link = link.unwrap();
        let is_one = fs::read_link(link.path()).ok()?.to_str()? == "anon_inode:[userfaultfd]";
        is_one.then(|| link.file_name().to_str().unwrap().parse().unwrap())
    });
    numbers.collect()
}

/// The thread lives as long as somebody may need it, and no longer.
#[test]
fn the_thread_ends_with_the_last_who_needs_it() {
    let before = attendants();
    let (kernel, range) = place(ALL, MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    has_attendants(before + 1);
    drop(kernel);
    word(range, 0).store(1, Ordering::Relaxed);
    // A child drops what it inherited; the thread is its parent's.
    // SAFETY: the child drops and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(watch);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    word(range, 512).store(1, Ordering::Relaxed);
    drop(watch);
    has_attendants(before);
    // Nothing is protected any more, or this would wait for ever.
    word(range, 1024).store(1, Ordering::Relaxed);
}

/// A signal's handler may write to an armed page, and whoever does that waits for the thread: so it takes no signals.
#[test]
fn the_thread_takes_no_signals() {
    let before = attendants();
    let (_kernel, _) = place(ALL, MIB);
    has_attendants(before + 1);
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.starts_with("segvm-faults") {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let blocked = u64::from_str_radix(blocked.unwrap().trim(), 16).unwrap();
            // All but those that cannot be, and the two that the C library keeps for itself.
            let not = [libc::SIGKILL, libc::SIGSTOP, 32, 33].map(|signal| 1 << (signal - 1));
            assert_eq!(blocked | not.iter().sum::<u64>(), u64::MAX);
        }
    }
    // SAFETY: all zero is a set.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: only reads; a whole set to write into.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
    // SAFETY: a whole set to look into.
    let usr1 = unsafe { libc::sigismember(&raw const mask, libc::SIGUSR1) };
    assert_eq!(usr1, 0, "who made it takes signals as before");
}

/// A child that lives on has a copy of the descriptor: what its parent lets go of is let go of nevertheless.
#[test]
fn a_child_that_lives_on_holds_no_writer_up() {
    let (kernel, range) = place(ALL, MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    // SAFETY: the child waits, and is killed below.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    drop((watch, kernel));
    for page in 0..range.len() as u64 / 4096 {
        word(range, page * 512).store(1, Ordering::Relaxed);
    }
    // SAFETY: the child made above.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child);
}

/// Threads that wait for the descriptor's attendant, and a scan that cannot go on when the descriptor is gone: everything is
/// dirty then, and nobody hangs.
#[test]
fn a_descriptor_that_somebody_closed_is_an_error_and_no_silence() {
    let before = userfaultfds();
    let (kernel, range) = place(ALL, MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let uffd = userfaultfds();
    let uffd = *uffd.difference(&before).next().unwrap();
    // SAFETY: it is not this test's to close, and that is what is tested.
    assert_eq!(unsafe { libc::close(uffd) }, 0);
    // Before anybody met a page: the thread has not noticed.
    let refused = kernel.scan(range, Query::WrittenRearm, &mut Vec::new());
    refused.unwrap_err();
    for page in 0..range.len() as u64 / 4096 {
        word(range, page * 512).store(1, Ordering::Relaxed);
    }
    let refused = kernel.scan(range, Query::WrittenRearm, &mut Vec::new());
    refused.unwrap_err();
    // SAFETY: the test's own range.
    unsafe { watch.arm(range) }.unwrap_err();
    std::mem::forget((kernel, watch));
}

/// Between `vfork` and `exec` a child shares memory: it may write to armed pages, and what it wrote is its parent's.
#[test]
fn a_child_that_shares_memory_is_let_through() {
    extern "C" fn child(at: *mut libc::c_void) -> i32 {
        for page in 0..8 {
            let at = ptr::with_exposed_provenance::<AtomicUsize>(at.addr() + page * 4096);
            // SAFETY: a word of the test's range, accessed by atomics only.
            let word = unsafe { &*at };
            word.store(7, Ordering::Relaxed);
        }
        0
    }
    let (kernel, range) = place(ALL, MIB);
    commit(&*kernel, range);
    let watch = watch(&*kernel, range);
    arm(&*watch, range);
    let mut stack = vec![0_u64; 8192];
    let top = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: the child has a stack of its own, aligned, and stores into the test's range; this thread waits until it ends.
    let pid = unsafe { libc::clone(child, top, flags, at) };
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    let mut runs = Vec::new();
    kernel.scan(range, Query::WrittenRearm, &mut runs).unwrap();
    assert_eq!(
        runs,
        [PageRange::new(kernel.page_size(), range.start(), 8 * 4096).unwrap()]
    );
    // What is executed has neither descriptor nor thread.
    let listing = std::process::Command::new("/bin/ls")
        .args(["-l", "/proc/self/fd"])
        .output();
    let listing = String::from_utf8_lossy(&listing.unwrap().stdout).into_owned();
    assert!(
        listing.contains("->") && !listing.contains("userfaultfd"),
        "{listing}"
    );
}
