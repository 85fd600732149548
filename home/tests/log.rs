//! What a log's bytes are.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::disk::{Disk, MemDisk, Open};
use segvm_home::{Commit, DirHome, Holder, ImageName, Timestamp, lease::Token};

/// Two records, the second of two sectors, without the zeros that follow.
const GOLDEN: &[u8] = include_bytes!("golden/log-v1.bin");
/// The same as they are written since a record states its token.
const WITH_TOKENS: &[u8] = include_bytes!("golden/log-v1-tokens.bin");
/// The lease that they were written under, which was stolen.
const LEASE: &[u8] = include_bytes!("golden/lease-v1.bin");
const LOG: &str = "/store/images/notes/log";
const LEASE_FILE: &str = "/store/images/notes/lease";

fn image() -> ImageName {
    "notes".parse().unwrap()
}

fn commits() -> [Commit; 2] {
    let first = Commit {
        host: "box".into(),
        program: "immortal".into(),
        time: Timestamp::new(1_795_609_800, 5).unwrap(),
        generation: 1,
        page_size_log2: 12,
        pointer_width: 8,
        ..Commit::default()
    };
    let mut second = first.clone();
    second.parents = vec![first.id().unwrap()];
    let value = (0..251).cycle().take(600).collect();
    second.attributes.insert("painted".into(), value);
    [first, second]
}

fn home(disk: &MemDisk) -> DirHome {
    DirHome::open(Arc::new(disk.clone()), PathBuf::from("/store"))
}

fn holder(pid: u32) -> Holder {
    Holder {
        pid,
        host: "box".into(),
        program: "test".into(),
        since: Timestamp::new(1_795_609_800, 5).unwrap(),
    }
}

fn read(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn put(disk: &MemDisk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.open(path, Open::Create).unwrap();
    file.write_at(0, bytes).unwrap();
}

#[test]
fn the_golden_log_is_written_again_byte_for_byte() {
    let disk = MemDisk::new();
    let home = home(&disk);
    let [first, second] = commits();
    let mut lease = home.acquire(&image(), holder(1)).unwrap();
    lease.publish(&first, b"mark").unwrap();
    let mut thief = home.steal(&image(), holder(2)).unwrap();
    thief.publish(&second, b"mark").unwrap();
    let bytes = read(&disk, LOG);
    assert_eq!(bytes.len(), 4 << 10);
    let (records, rest) = bytes.split_at(1536);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert!(records == WITH_TOKENS, "the format changed");
    assert!(read(&disk, LEASE_FILE) == LEASE, "the format changed");
}

#[test]
fn the_golden_lease_is_read_for_ever() {
    let disk = MemDisk::new();
    put(&disk, LOG, WITH_TOKENS);
    put(&disk, LEASE_FILE, LEASE);
    let tokens: Vec<u64> = home(&disk)
        .log(&image())
        .unwrap()
        .map(|record| record.unwrap().token.number())
        .collect();
    assert_eq!(tokens, [2, 1]);
    // It names the lock that says whether its holder lives.
    let lock = disk.try_lock(Path::new("/store/images/notes/lock-2"));
    let held = home(&disk).holder(&image()).unwrap();
    assert_eq!(held.map(|holder| holder.pid), Some(std::process::id()));
    drop(lock);
    assert_eq!(home(&disk).holder(&image()).unwrap(), None);
    let lease = home(&disk).acquire(&image(), holder(3)).unwrap();
    assert_eq!(lease.token().number(), 3);
}

#[test]
fn without_the_lease_file_the_log_says_which_tokens_were_granted() {
    let disk = MemDisk::new();
    put(&disk, LOG, WITH_TOKENS);
    let lease = home(&disk).acquire(&image(), holder(3)).unwrap();
    assert_eq!(lease.token().number(), 3);
}

#[test]
fn the_golden_log_is_read_for_ever() {
    let disk = MemDisk::new();
    put(&disk, LOG, GOLDEN);
    let found: Vec<_> = home(&disk)
        .log(&image())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let [first, second] = commits();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].seq, &found[0].commit), (1, &second));
    assert_eq!((found[1].seq, &found[1].commit), (0, &first));
    assert!(found.iter().all(|record| record.mark == b"mark"));
    assert!(found.iter().all(|record| record.token == Token::NONE));
    assert_eq!(found[1].commit_id, first.id().unwrap());
}

/// However long the log is and wherever in it the head lies, a reader who comes then finds it.
#[test]
fn a_log_grows_by_doubling_and_its_head_is_found_at_each_length() {
    let disk = MemDisk::new();
    let home = self::home(&disk);
    let [mut commit, _] = commits();
    let mut lease = home.acquire(&image(), holder(1)).unwrap();
    let mut lengths = Vec::new();
    for seq in 0..300 {
        commit.generation = seq;
        lease.publish(&commit, &[7; 200]).unwrap();
        let len = read(&disk, LOG).len();
        if lengths.last() != Some(&len) {
            lengths.push(len);
        }
        let found = self::home(&disk).image(&image()).unwrap().unwrap();
        assert_eq!(found.head.unwrap().seq, seq);
    }
    let kib: Vec<usize> = lengths.iter().map(|len| len >> 10).collect();
    assert_eq!(kib[..6], [4, 8, 16, 32, 64, 128]);
    assert!(kib[6..].iter().all(|kib| kib.is_multiple_of(64)), "{kib:?}");
}
