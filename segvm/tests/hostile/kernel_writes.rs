//! System calls that write into a segment, and those that change what its pages are.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use segvm::{Rounds, Segment, Session};

use super::harness::{
    BLOCK, PAGE, content, each_commit, get_in, memory, mix, open, put, put_in, same, word,
};

const LEN: usize = 8 << 20;
const PIECE: usize = 3 * PAGE;
const PIECES: u64 = ((LEN - (1 << 20)) / PIECE) as u64;
const RUN: Duration = Duration::from_millis(600);

/// Where change `n` goes; the counter lies in front of all of them.
fn place(n: u64) -> usize {
    // A neighbourhood that moves on.
    let near = mix(n) % if n.is_multiple_of(16) { PIECES } else { 24 };
    (1 << 20) + ((n / 64 * 17 + near) % PIECES) as usize * PIECE
}

fn piece(n: u64) -> Vec<u8> {
    (0..PIECE as u64)
        .map(|i| ((n * 31 + i) % 251) as u8)
        .collect()
}

fn model(bytes: &mut [u8], from: u64, to: u64) {
    for n in from + 1..=to {
        let at = place(n);
        bytes[at..at + PIECE].copy_from_slice(&piece(n));
    }
    put_in(bytes, 0, to);
}

fn read_into(segment: &Segment, at: usize, from: &File, offset: Option<i64>) {
    let into = ptr::with_exposed_provenance_mut(segment.as_ptr() as usize + at);
    let fd = from.as_raw_fd();
    let _leave = segment.will_write(at, PIECE).unwrap();
    let read = match offset {
        // SAFETY: the piece is committed memory of the segment, and the caller is inside the gate.
        Some(offset) => unsafe { libc::pread(fd, into, PIECE, offset) },
        // SAFETY: as above.
        None => unsafe { libc::read(fd, into, PIECE) },
    };
    assert_eq!(read, PIECE as isize, "{}", std::io::Error::last_os_error());
}

/// Files that hold the next piece, and the descriptors that it is read by.
struct Sources {
    file: File,
    direct: Option<File>,
    pipe: (std::io::PipeReader, std::io::PipeWriter),
}

impl Sources {
    fn new(directory: &Path) -> Self {
        let path = directory.join("source");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        // Not every file system has it.
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .ok();
        Self {
            file,
            direct,
            pipe: std::io::pipe().unwrap(),
        }
    }

    /// One change, by one of three ways, inside the gate.
    fn change(&mut self, session: &Session, segment: &Segment) {
        let pass = session.enter().unwrap();
        let n = word(segment, 0).load(Ordering::Relaxed) + 1;
        match (n % 3, &self.direct) {
            (0, Some(direct)) => {
                self.file.write_all_at(&piece(n), 0).unwrap();
                read_into(segment, place(n), direct, Some(0));
            }
            (1, _) => {
                self.pipe.1.write_all(&piece(n)).unwrap();
                let reader =
                    File::from(std::os::fd::OwnedFd::from(self.pipe.0.try_clone().unwrap()));
                read_into(segment, place(n), &reader, None);
            }
            _ => {
                self.file.write_all_at(&piece(n), 0).unwrap();
                read_into(segment, place(n), &self.file, Some(0));
            }
        }
        put(segment, 0, n);
        drop(pass);
    }
}

fn commits_are_exact(store: &Path, at_least: usize) {
    let session = open(store);
    let segment = memory(&session, LEN);
    let mut bytes = vec![0; LEN];
    let mut n = 0;
    let commits = each_commit(&session, &segment, |commit, found| {
        let to = get_in(found, 0);
        model(&mut bytes, n, to);
        n = to;
        same(found, &bytes, &format!("commit {commit:.12}, change {to}"));
    });
    assert!(commits >= at_least, "only {commits} commits");
}

/// Writes by the kernel while checkpoints follow each other, with `advice` given to the whole range again and again.
fn attack(advice: impl Fn(&Segment) + Sync) {
    let store = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for life in 0..2 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let directory = scratch.path().join(life.to_string());
                fs::create_dir(&directory).unwrap();
                let mut sources = Sources::new(&directory);
                while !stop.load(Ordering::Relaxed) {
                    sources.change(&session, &segment);
                }
            });
            let began = Instant::now();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for n in 0.. {
                    advice(&segment);
                    let mode = if n % 2 == 0 {
                        Rounds::Auto
                    } else {
                        Rounds::Off
                    };
                    session.checkpoint_with(mode).unwrap();
                    // Each commit is looked at afterwards, so there are not too many.
                    if n == 15 || (n >= 3 && began.elapsed() > RUN) {
                        break;
                    }
                }
            }));
            stop.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        session.suspend().unwrap();
    }
    commits_are_exact(store.path(), 6);
}

fn advise(segment: &Segment, at: usize, len: usize, advice: i32) -> std::io::Result<()> {
    let start = ptr::with_exposed_provenance_mut(segment.as_ptr() as usize + at);
    // SAFETY: the range is the segment's own; the tests that use destructive advice say what they expect.
    match unsafe { libc::madvise(start, len, advice) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn what_read_and_direct_reads_bring_in_is_in_the_commits() {
    attack(|_| ());
}

/// Reads past the page cache that are in flight while rounds look and copy: the disk writes behind the page table, so a page is
/// noted as written when the read begins and holds what was read only when it ends.
#[test]
fn direct_reads_in_flight_while_rounds_copy_are_in_the_commits() {
    const READ: usize = 1 << 20;
    const MEMORY: usize = 16 * READ;
    const KINDS: u64 = 7;
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("source");
    let kind = |n: u64| vec![n as u8 + 1; READ];
    fs::write(&path, (0..KINDS).flat_map(kind).collect::<Vec<u8>>()).unwrap();
    let source = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let Ok(source) = source else {
        println!(
            "skipped: the file system of {} has no O_DIRECT",
            path.display()
        );
        return;
    };
    let place = |n: u64| BLOCK + (n as usize * 5 % 16) * READ;
    let session = open(store.path());
    let segment = memory(&session, MEMORY + BLOCK);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2 {
            let (session, segment, source, stop) = (&session, &segment, &source, &stop);
            scope.spawn(move || {
                // Each has every second number, and so every second place.
                for n in (reader..).step_by(2) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = place(n);
                    let into = ptr::with_exposed_provenance_mut(segment.as_ptr() as usize + at);
                    let pass = session.enter().unwrap();
                    // SAFETY: the piece is committed memory of the segment, inside the gate.
                    let read = unsafe {
                        libc::pread(
                            source.as_raw_fd(),
                            into,
                            READ,
                            ((n % KINDS) as usize * READ) as i64,
                        )
                    };
                    assert_eq!(read, READ as isize, "{}", std::io::Error::last_os_error());
                    put(segment, 8 * reader as usize, n + 1);
                    drop(pass);
                }
            });
        }
        let began = Instant::now();
        let mut rounds = 0;
        let reads = || {
            let [one, two] = [0, 8].map(|at| word(&segment, at).load(Ordering::Relaxed));
            one.min(two)
        };
        for n in 0..40 {
            // Both have read 4 MiB and more: enough for a round that stores.
            let before = reads();
            while reads() < before + 12 {
                thread::yield_now();
            }
            rounds += session.checkpoint().unwrap().rounds;
            if n >= 8 && began.elapsed() > 3 * RUN {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rounds > 4, "only {rounds} rounds");
    });
    let commits = each_commit(&session, &segment, |commit, found| {
        let mut expected = vec![0; MEMORY + BLOCK];
        let counts = [get_in(found, 0), get_in(found, 8)];
        for n in 0..counts[0].max(counts[1]) {
            if n < counts[(n % 2) as usize] {
                expected[place(n)..][..READ].fill((n % KINDS) as u8 + 1);
            }
        }
        put_in(&mut expected, 0, counts[0]);
        put_in(&mut expected, 8, counts[1]);
        same(
            found,
            &expected,
            &format!("commit {commit:.12}, reads {counts:?}"),
        );
    });
    assert!(commits >= 6, "only {commits} commits");
}

#[test]
fn huge_pages_lose_nothing() {
    attack(|segment| {
        // A kernel without huge pages refuses; then this is the test above.
        let _refused = advise(segment, 0, segment.len(), libc::MADV_HUGEPAGE);
        let _refused = advise(segment, 0, segment.len(), libc::MADV_COLLAPSE);
    });
}

#[test]
fn pages_that_are_marked_cold_and_paged_out_lose_nothing() {
    attack(|segment| {
        let _refused = advise(segment, 0, segment.len(), libc::MADV_COLD);
        let _refused = advise(segment, 0, segment.len(), libc::MADV_PAGEOUT);
    });
}

#[test]
fn locked_and_populated_pages_lose_nothing() {
    attack(|segment| {
        let start = ptr::with_exposed_provenance(segment.as_ptr() as usize);
        // The limit on locked memory may be lower.
        // SAFETY: locking changes no content.
        let _limit = unsafe { libc::mlock(start, segment.len()) };
        let _refused = advise(segment, 0, segment.len(), libc::MADV_POPULATE_WRITE);
        // SAFETY: as above.
        let _limit = unsafe { libc::munlock(start, segment.len()) };
    });
}

/// `MADV_DONTNEED` is the one call that tracking cannot see. The rule: old content may be back in that range, at page
/// granularity; all else is exact, and the store stays whole.
#[test]
fn dropped_pages_bring_old_content_back_and_harm_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let paint = |epoch: u8| vec![epoch; LEN];
    for life in 1..=3_u8 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        segment.write(0, &paint(life * 2)).unwrap();
        session.checkpoint().unwrap();
        segment.write(LEN / 2, &[life * 2 + 1; 1 << 20]).unwrap();
        advise(&segment, 1 << 20, 1 << 20, libc::MADV_DONTNEED).unwrap();
        advise(&segment, LEN / 2, 64 << 10, libc::MADV_DONTNEED).unwrap();
        // Next to what was dropped, in its blocks: their neighbours are copied from memory.
        segment.write((1 << 20) + PAGE, &[99; PAGE]).unwrap();
        session.checkpoint().unwrap();
        session.suspend().unwrap();
    }
    let session = open(store.path());
    let segment = memory(&session, LEN);
    each_commit(&session, &segment, |commit, found| {
        let newest = found[0];
        let dropped = |at: usize| {
            ((1 << 20)..(2 << 20)).contains(&at) || (LEN / 2..LEN / 2 + (64 << 10)).contains(&at)
        };
        for (page, bytes) in found.chunks(PAGE).enumerate() {
            let at = page * PAGE;
            assert!(
                bytes.iter().all(|&byte| byte == bytes[0]),
                "commit {commit:.12}: page {page} is torn"
            );
            let later = (LEN / 2..LEN / 2 + (1 << 20)).contains(&at) && bytes[0] == newest + 1;
            let written = at == (1 << 20) + PAGE && bytes[0] == 99;
            let old = dropped(at) && bytes[0] < newest;
            assert!(
                bytes[0] == newest || later || written || old,
                "commit {commit:.12}: page {page} is {} in epoch {newest}",
                bytes[0]
            );
        }
    });
    // And memory of this session can be changed and saved as ever.
    segment.write(0, &paint(200)).unwrap();
    session.suspend().unwrap();
    let session = open(store.path());
    assert!(content(&memory(&session, LEN)) == paint(200));
}
