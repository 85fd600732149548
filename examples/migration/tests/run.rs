//! Runs the two versions one after the other; the guide shows them as they are.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::{path::Path, process::Command};

/// What a version prints, and whether it succeeded.
fn run(store: &Path, program: &str, notes: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(notes)
        .env("SEGVM_HOME", store)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_second_version_goes_on_where_the_first_one_was() {
    let store = tempfile::tempdir().unwrap();
    let (v1, v2) = (
        env!("CARGO_BIN_EXE_notes-v1"),
        env!("CARGO_BIN_EXE_notes-v2"),
    );
    let (done, said) = run(store.path(), v1, &["milk", "bread"]);
    assert!(done && said == "- milk\n- bread\n", "{said}");
    let (done, said) = run(store.path(), v2, &["lemons"]);
    assert!(
        done && said == "- milk \n- bread \n- lemons ***\n",
        "{said}"
    );
    // Nothing to migrate any more.
    let (done, again) = run(store.path(), v2, &[]);
    assert!(done && again == said, "{again}");
    let (done, said) = run(store.path(), v1, &[]);
    assert!(
        !done && said.contains("all[]: retyped, from Note to text"),
        "{said}"
    );
}

#[test]
fn the_guide_shows_the_programs() {
    let guide = include_str!("../../../docs/guide/schema-change.md");
    for program in [include_str!("../src/v1.rs"), include_str!("../src/v2.rs")] {
        let (_head, code) = program.split_once("use segvm").unwrap();
        assert!(guide.contains(code), "{code}");
    }
}
