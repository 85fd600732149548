//! Runs the two versions, and every command of docs/guide/schema-change.md in its order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

const GUIDE: &str = include_str!("../../../docs/guide/schema-change.md");

/// A command of the guide, as a command of this build.
fn command(name: &str) -> Command {
    match name {
        "notes-v1" => Command::new(env!("CARGO_BIN_EXE_notes-v1")),
        "notes-v2" => Command::new(env!("CARGO_BIN_EXE_notes-v2")),
        "segvm" => {
            // Another package's: beside these where the whole workspace is tested, else it has to be built.
            let beside = Path::new(env!("CARGO_BIN_EXE_notes-v1")).with_file_name("segvm");
            if beside.exists() {
                return Command::new(beside);
            }
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args([
                "run",
                "--quiet",
                "--package",
                "segvm-cli",
                "--bin",
                "segvm",
                "--",
            ]);
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            cargo
        }
        other => panic!("the guide runs {other:?}, which this test does not know"),
    }
}

fn run(store: &Path, line: &str) -> Output {
    let mut words = line.split(' ');
    let mut command = command(words.next().unwrap());
    command.args(words).env("SEGVM_HOME", store);
    command.output().unwrap()
}

/// Commits have other ids each time: what follows `@` or stands alone as one is not compared.
fn comparable(text: &str) -> String {
    let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = |line: &str| {
        let parts = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
        parts
            .map(|part| {
                let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                match is_id(word) {
                    true => part.replacen(word, "ID", 1),
                    false => part.to_owned(),
                }
            })
            .collect::<String>()
    };
    let lines = text.lines().map(|line| words(line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The guide's blocks of `console`: a line with `$ ` is run, and what follows must be in what it prints, line by line;
/// `...` stands for any lines.
#[test]
fn the_guide_says_what_happens() {
    let store = tempfile::tempdir().unwrap();
    let mut commands = 0;
    for block in GUIDE.split("```console\n").skip(1) {
        let (block, _rest) = block.split_once("```").unwrap();
        for part in block.split("$ ").skip(1) {
            let (line, shown) = part.split_once('\n').unwrap();
            let ran = run(store.path(), line);
            let out = String::from_utf8(ran.stdout).unwrap();
            let err = String::from_utf8(ran.stderr).unwrap();
            let printed = comparable(&format!("{out}{err}"));
            let mut rest = &*printed;
            for piece in comparable(&format!("\n{shown}")).split("\n...") {
                let piece = piece.trim_matches('\n').trim_end_matches("...");
                let Some(at) = rest.find(piece) else {
                    panic!("`{line}` does not print\n{piece}\n---- but\n{out}{err}");
                };
                rest = &rest[at + piece.len()..];
            }
            commands += 1;
        }
    }
    assert!(commands > 5, "{commands} commands are no guide");
}

/// The programs in the guide are those that are run.
#[test]
fn the_guide_shows_the_programs() {
    for program in [include_str!("../src/v1.rs"), include_str!("../src/v2.rs")] {
        let (_types, main) = program.split_once("fn main()").unwrap();
        let (shown, _rest) = main.split_once(".open(\"notes\")?;").unwrap();
        let lines = shown.lines().filter(|line| !line.trim().starts_with("//"));
        let shown = lines.collect::<String>();
        let flat = |text: &str| text.split_whitespace().collect::<String>();
        assert!(flat(GUIDE).contains(&flat(&shown)), "{shown}");
    }
}
