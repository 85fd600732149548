//! One suite that every [`Disk`] obeys, the doubles included: what the rooms above may rely on.

use std::{
    io::{self, ErrorKind},
    path::Path,
    process,
    sync::Arc,
};

use proptest::prelude::*;

use super::{CrashDisk, Disk, DiskFile, LockAttempt, MemDisk, Open, PageCache, RealDisk};

fn on_each_disk(check: impl Fn(&dyn Disk, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&RealDisk, dir.path());
    // Memory as a file system answers O_DIRECT and fallocate in its own way.
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => check(&RealDisk, dir.path()),
        Err(error) => println!("not run on /dev/shm: {error}"),
    }
    let mem = MemDisk::new();
    mem.create_dir_all(Path::new("/d")).unwrap();
    check(&mem, Path::new("/d"));
    let crash = CrashDisk::new(1);
    crash.create_dir_all(Path::new("/d")).unwrap();
    check(&crash, Path::new("/d"));
}

/// Bytes of a prime period, so that a swapped or shifted piece shows.
fn painted(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

fn all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    let mut names = disk.list(dir).unwrap();
    names.sort();
    names
}

#[test]
fn how_a_file_is_opened() {
    on_each_disk(|disk, root| {
        let path = root.join("file");
        assert_eq!(kind(disk.open(&path, Open::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open(&path, Open::Write)), ErrorKind::NotFound);
        assert!(!disk.exists(&path).unwrap());
        let file = disk.open(&path, Open::CreateNew).unwrap();
        file.write_at(0, b"kept").unwrap();
        assert!(disk.exists(&path).unwrap() && disk.exists(root).unwrap());
        assert_eq!(
            kind(disk.open(&path, Open::CreateNew)),
            ErrorKind::AlreadyExists
        );
        for how in [Open::Read, Open::Write, Open::Create] {
            assert_eq!(
                all(&*disk.open(&path, how).unwrap()),
                b"kept",
                "{disk:?} {how:?}"
            );
        }
        let reader = disk.open(&path, Open::Read).unwrap();
        assert!(
            reader.write_at(0, b"x").is_err(),
            "{disk:?} wrote through a reader"
        );
        let orphan = root.join("missing/file");
        assert_eq!(kind(disk.open(&orphan, Open::Create)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open(root, Open::Read)), ErrorKind::IsADirectory);
    });
}

#[test]
fn directories_and_names() {
    on_each_disk(|disk, root| {
        let deep = root.join("a/b");
        assert_eq!(kind(disk.list(&deep)), ErrorKind::NotFound);
        assert_eq!(kind(disk.sync_dir(&deep)), ErrorKind::NotFound);
        disk.create_dir_all(&deep).unwrap();
        disk.create_dir_all(&deep).unwrap();
        disk.sync_dir(&deep).unwrap();
        let (x, y) = (deep.join("x"), deep.join("y"));
        disk.open(&x, Open::Create)
            .unwrap()
            .write_at(0, b"x")
            .unwrap();
        let old = disk.open(&y, Open::Create).unwrap();
        old.write_at(0, b"y").unwrap();
        assert_eq!(names(disk, &deep), ["x", "y"]);
        assert_eq!(names(disk, &root.join("a")), ["b"]);
        disk.rename(&x, &y).unwrap();
        assert_eq!(names(disk, &deep), ["y"]);
        assert_eq!(all(&*disk.open(&y, Open::Read).unwrap()), b"x");
        assert_eq!(all(&*old), b"y", "an open file outlives its name");
        assert_eq!(kind(disk.rename(&x, &y)), ErrorKind::NotFound);
        disk.remove(&y).unwrap();
        assert_eq!(kind(disk.remove(&y)), ErrorKind::NotFound);
        assert!(names(disk, &deep).is_empty() && !disk.exists(&y).unwrap());
        assert!(
            disk.remove(&deep).is_err(),
            "{disk:?} removed a directory as a file"
        );
    });
}

#[test]
fn reads_end_where_the_file_does() {
    on_each_disk(|disk, root| {
        let file = disk.open(&root.join("file"), Open::Create).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(10, b"end").unwrap();
        assert_eq!(file.len().unwrap(), 13);
        let mut buf = [1; 13];
        file.read_at(0, &mut buf).unwrap();
        assert_eq!(buf, *b"\0\0\0\0\0\0\0\0\0\0end");
        file.read_at(13, &mut []).unwrap();
        assert_eq!(kind(file.read_at(1, &mut buf)), ErrorKind::UnexpectedEof);
        assert_eq!(
            kind(file.read_at(1 << 40, &mut buf)),
            ErrorKind::UnexpectedEof
        );
        file.preallocate(0, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 13, "preallocation keeps the length");
        file.set_len(11).unwrap();
        file.set_len(13).unwrap();
        file.read_at(0, &mut buf).unwrap();
        assert_eq!(
            buf, *b"\0\0\0\0\0\0\0\0\0\0e\0\0",
            "what was cut off comes back as zeros"
        );
        file.sync().unwrap();
    });
}

#[test]
fn direct_and_ordinary_writes_of_one_file_agree() {
    on_each_disk(|disk, root| {
        let file = disk.open(&root.join("file"), Open::Create).unwrap();
        file.page_cache(PageCache::Bypass);
        let source = painted(5 * 4096);
        let skew = source.as_ptr().align_offset(4096);
        let mut slow = vec![0; 64 << 10];
        for (at, from, len) in [
            (0, skew, 8192),
            (8192, skew, 4096),
            (4096, skew + 1, 4096),
            (4097, skew, 4096),
            (8192, skew, 100),
            (40_960, skew, 12_288),
            (45_056, skew + 7, 5000),
        ] {
            let piece = &source[from..][..len];
            file.write_at(at as u64, piece).unwrap();
            slow[at..][..len].copy_from_slice(piece);
        }
        slow.truncate(53_248);
        assert!(all(&*file) == slow, "{disk:?}");
    });
}

#[test]
fn direct_and_ordinary_reads_of_one_file_agree() {
    on_each_disk(|disk, root| {
        let file = disk.open(&root.join("file"), Open::Create).unwrap();
        let content = painted(5 * 4096 + 100);
        file.write_at(0, &content).unwrap();
        let mut memory = vec![0; 6 * 4096];
        let skew = memory.as_ptr().align_offset(4096);
        for (at, skew, len) in [
            (0, skew, 8192),
            (4096, skew, 4 * 4096 + 100),
            (4096, skew + 1, 4096),
            (100, skew, 4096),
            (5 * 4096, skew, 0),
        ] {
            let buf = &mut memory[skew..][..len];
            file.read_direct(at as u64, buf).unwrap();
            assert_eq!(buf, &content[at..][..len], "{disk:?} at {at}");
        }
        let past = &mut memory[skew..][..8192];
        let end = file.read_direct(4 * 4096, past);
        assert_eq!(kind(end), ErrorKind::UnexpectedEof, "{disk:?}");
    });
}

#[test]
fn a_second_lock_of_one_process_is_refused_with_its_own_pid() {
    on_each_disk(|disk, root| {
        let path = root.join("lock");
        assert_eq!(disk.locked_by(&path).unwrap(), None);
        assert!(!disk.exists(&path).unwrap(), "asking made it");
        let LockAttempt::Held(lock) = disk.try_lock(&path).unwrap() else {
            panic!("{disk:?}: nobody holds it")
        };
        for _ in 0..2 {
            match disk.try_lock(&path).unwrap() {
                LockAttempt::Refused(holder) => assert_eq!(holder.pid, process::id()),
                LockAttempt::Held(_) => panic!("{disk:?} gave one lock twice"),
            }
            // Asking neither takes the lock nor drops it.
            let holder = disk.locked_by(&path).unwrap().unwrap();
            assert_eq!(holder.pid, process::id());
        }
        let other = disk.try_lock(&root.join("other")).unwrap();
        assert!(matches!(other, LockAttempt::Held(_)));
        drop(lock);
        assert_eq!(disk.locked_by(&path).unwrap(), None);
        assert!(matches!(
            disk.try_lock(&path).unwrap(),
            LockAttempt::Held(_)
        ));
    });
}

#[test]
fn shares_of_a_lock_keep_out_whoever_wants_it_alone() {
    on_each_disk(|disk, root| {
        let path = root.join("lock");
        let held = |attempt: io::Result<LockAttempt>| match attempt.unwrap() {
            LockAttempt::Held(lock) => lock,
            LockAttempt::Refused(holder) => panic!("{disk:?}: held by {holder:?}"),
        };
        let refused = |attempt: io::Result<LockAttempt>| match attempt.unwrap() {
            LockAttempt::Refused(holder) => assert_eq!(holder.pid, process::id()),
            LockAttempt::Held(_) => panic!("{disk:?} gave it twice"),
        };
        let one = held(disk.try_share(&path));
        let two = held(disk.try_share(&path));
        refused(disk.try_lock(&path));
        drop(one);
        refused(disk.try_lock(&path));
        let three = held(disk.try_share(&path));
        drop((two, three));
        let alone = held(disk.try_lock(&path));
        refused(disk.try_share(&path));
        refused(disk.try_lock(&path));
        drop(alone);
        drop(held(disk.try_share(&path)));
        drop(held(disk.try_lock(&path)));
    });
}

/// Set in the process that [`a_share_of_another_process_keeps_this_one_out`] starts.
const SHARED: &str = "SEGVM_TEST_SHARED_LOCK";

#[test]
fn a_share_of_another_process_keeps_this_one_out() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Command, Stdio},
    };
    if let Some(path) = std::env::var_os(SHARED) {
        let _share = RealDisk.try_share(Path::new(&path)).unwrap();
        println!("\nheld");
        // Until the parent has gone or kills this.
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "disk::conformance::a_share_of_another_process_keeps_this_one_out",
            "--exact",
            "--nocapture",
        ])
        .env(SHARED, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    match RealDisk.try_lock(&path).unwrap() {
        LockAttempt::Refused(holder) => assert_eq!(holder.pid, child.id()),
        LockAttempt::Held(_) => panic!("the other process has a share"),
    }
    let share = RealDisk.try_share(&path).unwrap();
    assert!(matches!(share, LockAttempt::Held(_)));
    drop(share);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(
        RealDisk.try_lock(&path).unwrap(),
        LockAttempt::Held(_)
    ));
}

#[test]
fn a_name_for_a_lock_that_is_held_does_not_drop_it() {
    // Only the real disk has two names for one file.
    let dir = tempfile::tempdir().unwrap();
    let (path, alias) = (dir.path().join("lock"), dir.path().join("alias"));
    let lock = RealDisk.try_lock(&path).unwrap();
    std::fs::hard_link(&path, &alias).unwrap();
    assert!(matches!(
        RealDisk.try_lock(&alias).unwrap(),
        LockAttempt::Refused(_)
    ));
    drop(lock);
    assert!(matches!(
        RealDisk.try_lock(&alias).unwrap(),
        LockAttempt::Held(_)
    ));
}

#[test]
fn files_and_directories_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        dir.path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    RealDisk.create_dir_all(&dir.path().join("a/b")).unwrap();
    RealDisk
        .open(&dir.path().join("a/f"), Open::Create)
        .unwrap();
    RealDisk.try_lock(&dir.path().join("a/l")).unwrap();
    assert_eq!([mode("a"), mode("a/b")], [0o700; 2]);
    assert_eq!([mode("a/f"), mode("a/l")], [0o600; 2]);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize),
    SetLen(u64),
    Sync,
    Cache(PageCache),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40_000_u64, 0..9000_usize).prop_map(|(at, len)| Step::Write(at, len)),
        2 => (0..10_u64, 0..3_usize).prop_map(|(at, len)| Step::Write(at << 12, len << 12)),
        1 => (0..50_000_u64).prop_map(Step::SetLen),
        1 => Just(Step::Sync),
        1 => Just(Step::Cache(PageCache::Bypass)),
        1 => Just(Step::Cache(PageCache::Keep)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_disk_keeps_what_a_vec_keeps(steps in proptest::collection::vec(step(), 1..24)) {
        on_each_disk(|disk, root| {
            let file: Arc<dyn DiskFile> = disk.open(&root.join("file"), Open::Create).unwrap();
            let mut slow = Vec::new();
            for (turn, step) in steps.iter().enumerate() {
                match *step {
                    Step::Write(at, len) => {
                        let bytes = &painted(turn + len)[turn..];
                        file.write_at(at, bytes).unwrap();
                        let at = usize::try_from(at).unwrap();
                        if len > 0 {
                            slow.resize(slow.len().max(at + len), 0);
                        }
                        if len > 0 {
                            slow[at..at + len].copy_from_slice(bytes);
                        }
                    }
                    Step::SetLen(len) => {
                        file.set_len(len).unwrap();
                        slow.resize(usize::try_from(len).unwrap(), 0);
                    }
                    Step::Sync => file.sync().unwrap(),
                    Step::Cache(how) => drop(file.page_cache(how)),
                }
            }
            assert!(all(&*file) == slow, "{disk:?}");
        });
    }
}
