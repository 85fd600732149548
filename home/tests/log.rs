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
use segvm_home::{Commit, DirHome, Holder, ImageName, Timestamp};

/// Two records, the second of two sectors, without the zeros that follow.
const GOLDEN: &[u8] = include_bytes!("golden/log-v1.bin");
const LOG: &str = "/store/images/notes/log";

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

#[test]
fn the_golden_log_is_written_again_byte_for_byte() {
    let disk = MemDisk::new();
    let holder = Holder {
        pid: 1,
        host: "box".into(),
        program: "test".into(),
        since: Timestamp::default(),
    };
    let mut lease = home(&disk).acquire(&image(), holder).unwrap();
    for commit in &commits() {
        lease.publish(commit, b"mark").unwrap();
    }
    let file = disk.open(Path::new(LOG), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes.len(), 64 << 10);
    let (records, rest) = bytes.split_at(1536);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert!(records == GOLDEN, "the format changed");
}

#[test]
fn the_golden_log_is_read_for_ever() {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(LOG).parent().unwrap())
        .unwrap();
    let file = disk.open(Path::new(LOG), Open::Create).unwrap();
    file.write_at(0, GOLDEN).unwrap();
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
    assert_eq!(found[1].commit_id, first.id().unwrap());
}
