//! `kill -9` at random instants while a tree is indexed: once it is done, a search finds what reading the files finds.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const FILES: u64 = 1000;
const KILLS: u64 = 8;

/// A small, seeded generator: a failure is repeated with its seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A directory of one test, empty at first.
fn directory(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _not_there = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn codesearch(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codesearch"));
    command
        .args(arguments)
        .env("SEGVM_HOME", store)
        .stdin(Stdio::null());
    command
}

/// Runs it to the end; its output.
fn finish(store: &Path, arguments: &[&str]) -> String {
    let out = codesearch(store, arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(out.stdout).unwrap()
}

/// Writes a file of random words; word `n` of 600 is rarer the higher its number.
fn write_file(tree: &Path, number: u64, rng: &mut Rng) {
    let folder = tree.join(format!("folder{}", number % 7));
    fs::create_dir_all(&folder).unwrap();
    let words = (0..500 + rng.below(1500)).map(|_| {
        let top = 1 + rng.below(600);
        format!("word{:03}", rng.below(top))
    });
    let text = words.collect::<Vec<_>>().join(" ");
    fs::write(folder.join(format!("file{number}.rs")), text).unwrap();
}

/// The slow twin: reads every file.
fn grep(tree: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in fs::read_dir(tree.canonicalize().unwrap()).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if text.split(' ').any(|is| is == word) {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn search(store: &Path, word: &str) -> Vec<String> {
    let out = finish(store, &["--events", "search", word]);
    let hits = out
        .lines()
        .filter_map(|line| line.strip_prefix("hit path="));
    let mut hits: Vec<String> = hits.map(str::to_owned).collect();
    hits.sort();
    hits
}

/// Indexes until a random one of its events, then kills it; how many files it found done when it began.
fn index_and_kill(store: &Path, tree: &str, rng: &mut Rng) -> u64 {
    let mut child = codesearch(store, &["--events", "index", tree])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let had = first.strip_prefix("resumed files=").unwrap();
    let had = had.split(' ').next().unwrap().parse().unwrap();
    // Now and then before the first checkpoint, mostly a while after one.
    let mut checkpoints = rng.below(3);
    let mut more = 1 + rng.below(200);
    for line in lines.map(Result::unwrap) {
        checkpoints -= u64::from(checkpoints > 0 && line.starts_with("checkpoint "));
        more -= u64::from(checkpoints == 0);
        if more == 0 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    had
}

#[test]
fn an_index_that_was_killed_again_and_again_answers_as_grep_does() {
    let mut rng = Rng(0x5eed_c0de);
    let (tree, store) = (directory("tree"), directory("store"));
    for number in 0..FILES {
        write_file(&tree, number, &mut rng);
    }
    let tree_name = tree.to_str().unwrap();
    let mut had = 0;
    for kill in 0..KILLS {
        let has = index_and_kill(&store, tree_name, &mut rng);
        assert!(
            has >= had,
            "kill {kill} lost a checkpoint: {has} files after {had}"
        );
        had = has;
        // So that the next run has something to do, however far this one came.
        for _ in 0..FILES / 2 {
            let number = rng.below(FILES);
            write_file(&tree, number, &mut rng);
        }
    }
    let end = finish(&store, &["--events", "index", tree_name]);
    assert!(end.contains(&format!("seen={FILES}")), "{end}");
    for word in [
        "word000", "word017", "word250", "word500", "word590", "nowhere",
    ] {
        assert_eq!(search(&store, word), grep(&tree, word), "{word}");
    }
    // Indexed again, nothing is new.
    let again = finish(&store, &["--events", "index", tree_name]);
    assert!(again.contains("added=0"), "{again}");
    for path in [tree, store] {
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let store = directory("head");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = codesearch(&store, &["help"])
        .stdout(writer)
        .output()
        .unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.success() && stderr.is_empty(),
        "{}: {stderr}",
        out.status
    );
    fs::remove_dir_all(store).unwrap();
}
