//! What a real core file has of a session: what docs/guide/debugging.md says.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{fs, path::Path, process::Command};

use segvm_e2e::mark;

/// Runs the victim, with core files as this machine writes them, and with this filter.
fn victim(store: &Path, work: &Path, filter: &str) -> bool {
    let script = format!(
        "ulimit -c unlimited; echo {filter} > /proc/self/coredump_filter; exec \"$0\" dump"
    );
    Command::new("/bin/sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_victim")])
        .current_dir(work)
        .env("SEGVM_HOME", store)
        .status()
        .unwrap()
        .success()
}

/// The core file that the victim left in `work`.
fn core(work: &Path) -> Option<Vec<u8>> {
    let mut files = fs::read_dir(work)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = files.find(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("core")
    })?;
    // Two segments and regions, and the addresses reserved for them: 64 GiB each.
    let len = fs::metadata(&file).unwrap().len();
    assert!(len < 200 << 20, "a core file of {len} bytes");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(file).unwrap();
    Some(bytes)
}

fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    // Most places are told by their first byte.
    let places = bytes
        .windows(wanted.len())
        .filter(|window| window[0] == wanted[0]);
    places.filter(|window| *window == wanted).count()
}

#[test]
fn a_core_file_has_what_was_touched_and_no_secret() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.contains('|') || pattern.contains('/') {
        println!(
            "skipped: this machine sends core files elsewhere: {}",
            pattern.trim()
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, work) = (dir.path().join("store"), dir.path().join("work"));
    fs::create_dir(&work).unwrap();
    assert!(victim(&store, &work, "0x33"), "the first life");

    assert!(!victim(&store, &work, "0x33"), "the second one dies");
    let Some(usual) = core(&work) else {
        println!(
            "skipped: no core file was left: a hard limit, or core_pattern {}",
            pattern.trim()
        );
        return;
    };
    let of = |bytes: &[u8]| {
        (1..=6)
            .map(|n| count(bytes, &mark(n)) > 0)
            .collect::<Vec<_>>()
    };
    //                    saved before and touched, saved and only mapped, written, cache, secret region, secret
    assert_eq!(of(&usual), [true, false, true, true, false, false]);

    assert!(!victim(&store, &work, "0x37"), "the third one dies");
    assert_eq!(
        of(&core(&work).unwrap()),
        [true, true, true, true, false, false]
    );
}
