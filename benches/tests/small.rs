//! Rows run, at a thousandth of their size: what they say does not count, that they say something does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, process::Command};

/// Runs rows and checks that each has a number for our side. Those that need the command `segvm` need it built.
fn run(arguments: &[&str], rows: &[&str]) {
    let program = env!("CARGO_BIN_EXE_segvm-benches");
    let output = Command::new(program)
        .args(["--scale", "1/1024", "--json", "--rows", &rows.join(",")])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complained}");
    for row in rows {
        let line = said.lines().find(|line| line.contains(&format!("{row}\"")));
        let line = line.unwrap_or_else(|| panic!("{row} is missing: {said}"));
        let built = Path::new(program).with_file_name("segvm").exists();
        if !built && line.contains("cargo build -p segvm-cli") {
            eprintln!("skipped: {row}: the command `segvm` is not built beside this test");
            continue;
        }
        assert!(!line.contains("\"ours\": null"), "{line}");
        assert!(line.contains("\"scaled\": true"), "{line}");
    }
}

#[test]
fn rows_of_what_a_session_promises() {
    run(
        &[],
        &[
            "core.hookless-checkpoint",
            "core.images-10000",
            "core.open-among-10000",
            "core.branch-4gib",
            "core.readers-200",
            "core.fsck-deep",
        ],
    );
}

#[test]
fn rows_with_an_engine_forced() {
    let rows = [
        "core-mprotect.clean-warm",
        "core-mprotect.durable",
        "core-mprotect.resume-256m",
    ];
    run(&["--engine", "mprotect"], &rows);
    run(&["core-mprotect"], &rows);
}
