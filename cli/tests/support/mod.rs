//! A store with a few images, made by real sessions, and the built command.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use segvm::{Session, SessionOptions};
use serde_json::Value;
use tempfile::TempDir;

pub const BLOCK: usize = 16 << 10;
/// The segment of every image made here, and its length in blocks.
pub const SEGMENT: &str = "memory";
pub const BLOCKS: usize = 64;

pub struct Place {
    dir: TempDir,
}

/// What a run of the command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn open(&self, image: &str) -> Session {
        let options = SessionOptions::new().store(self.store());
        options.open(image).unwrap()
    }

    /// Makes `commits` checkpoints; each one writes the first block, and another one of its own.
    pub fn image(&self, image: &str, commits: u8) {
        let session = self.open(image);
        write(&session, commits);
        session.suspend().unwrap();
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_segvm"))
            .arg("--store")
            .arg(self.store())
            .args(args)
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            // An export may be anything.
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    /// The same, for its JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Runs what must fail, and answers what was said.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        let error: Value = {
            let args = [args, &["--json"]].concat();
            let ran = self.run(&args);
            assert_eq!(ran.code, code, "{args:?}: {ran:?}");
            serde_json::from_str(&ran.err).unwrap()
        };
        assert_eq!(error["exit"], code);
        ran.err
    }

    /// The bytes of the segment in the newest commit, as a session sees them: one of another process, since images that
    /// began as one have the same addresses.
    #[track_caller]
    pub fn content(&self, image: &str) -> Vec<u8> {
        let file = self.file("content");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "reader"])
            .env(READ, image)
            .env("SEGVM_HOME", self.store())
            .env(INTO, &file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{image}: {output:?}");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        bytes
    }
}

const READ: &str = "SEGVM_TEST_READ";
const INTO: &str = "SEGVM_TEST_INTO";

/// What the other process does.
pub fn read_as_told() {
    let (Ok(image), Some(file)) = (std::env::var(READ), std::env::var_os(INTO)) else {
        println!("skipped: it is only run by other tests");
        return;
    };
    let session = Session::open(&image).unwrap();
    std::fs::write(file, content(&session)).unwrap();
}

pub fn write(session: &Session, commits: u8) {
    let segment = session.segment(SEGMENT, BLOCKS * BLOCK).unwrap();
    for n in 1..=commits {
        segment.write(0, &[n; BLOCK]).unwrap();
        let own = usize::from(n) * BLOCK;
        segment.write(own, &[0x80 | n; BLOCK]).unwrap();
        session.checkpoint().unwrap();
    }
}

pub fn content(session: &Session) -> Vec<u8> {
    let segment = session.segment(SEGMENT, 0).unwrap();
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

/// What a segment holds after so many commits.
pub fn expected(commits: u8) -> Vec<u8> {
    let mut bytes = vec![0; BLOCKS * BLOCK];
    if commits > 0 {
        bytes[..BLOCK].fill(commits);
    }
    for n in 1..=commits {
        let own = usize::from(n) * BLOCK;
        bytes[own..own + BLOCK].fill(0x80 | n);
    }
    bytes
}

/// Flips a bit of the first place where `wanted` stands in a pack.
pub fn flip(store: &Path, wanted: &[u8]) {
    for entry in std::fs::read_dir(store.join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(wanted.len()).position(|w| w == wanted);
        if let Some(at) = at {
            bytes[at + 5] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("no pack has these bytes");
}
