//! One session's work in a process of its own, and what it says.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use segvm::{Session, SessionOptions};

pub(crate) const BLOCK: usize = 16 << 10;
const ACT: &str = "SEGVM_TEST_ACT";
/// Begins what is said, among the lines of the test framework.
const SAYS: &str = "@@ ";

/// What a process says, a line each: what it did, or `error: ` and why not.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = out
        .lines()
        .filter_map(|line| Some(line.split_once(SAYS)?.1))
        .collect();
    assert!(
        !lines.is_empty(),
        "{command:?} said nothing: {out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lines.join("\n")
}

/// A copy of this test that does `act` with the image `notes` of a store.
pub(crate) fn process(store: &Path, act: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    act_in(&mut command, store, act);
    command
}

/// The same, with `wrapper` before it: a shell that first changes what is around it and then runs its arguments.
pub(crate) fn wrapped(script: &str, store: &Path, act: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "/bin/sh",
            "-ec",
            &format!("{script}\nexec \"$@\""),
            "sh",
        ])
        .arg(env::current_exe().unwrap());
    act_in(&mut command, store, act);
    command
}

fn act_in(command: &mut Command, store: &Path, act: &str) {
    command
        .args([
            "session",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SEGVM_HOME", store)
        .env(ACT, act);
}

/// The built command, in the same surroundings.
pub(crate) fn segvm(script: &str, store: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "/bin/sh",
            "-ec",
            &format!("{script}\nexec \"$@\""),
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_segvm"))
        .arg("--store")
        .arg(store)
        .args(arguments);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Why mounts cannot be made here, printed; `None` where they can.
pub(crate) fn no_mounts(test: &str) -> Option<()> {
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            println!(
                "skipped: {test} needs to mount a file system: {}",
                why.trim()
            );
            Some(())
        }
        Err(error) => {
            println!("skipped: {test} needs `unshare`: {error}");
            Some(())
        }
    }
}

/// Writes `n` into the image, twice as many blocks each time, and checkpoints.
pub(crate) fn put(session: &Session, n: u8, blocks: usize) -> Result<(), segvm::Error> {
    let memory = session.segment("memory", blocks * BLOCK)?;
    for block in 0..blocks {
        // Blocks of different content: equal ones would be stored once.
        let mut bytes = [n; BLOCK];
        bytes[..8].copy_from_slice(&(block as u64).to_le_bytes());
        memory
            .write(block * BLOCK, &bytes)
            .map_err(segvm::OpenError::from)?;
    }
    session.checkpoint()?;
    Ok(())
}

/// The byte that the last `put` wrote.
pub(crate) fn get(session: &Session) -> Result<u8, segvm::Error> {
    let memory = session.segment("memory", 0)?;
    let mut byte = [0];
    memory
        .read(BLOCK - 1, &mut byte)
        .map_err(segvm::OpenError::from)?;
    Ok(byte[0])
}

pub(crate) fn act() {
    let Ok(act) = env::var(ACT) else {
        println!("skipped: it is only run by other tests");
        return;
    };
    let done = match act.as_str() {
        "write" => Session::open("notes")
            .map_err(Into::into)
            .and_then(|session| put(&session, 1, 4).and_then(|()| Ok(session.suspend()?)))
            .map(|_| "written".to_owned()),
        "count" => Session::open("notes")
            .map_err(Into::into)
            .and_then(|session| get(&session))
            .map(|byte| format!("found {byte}")),
        "read" => SessionOptions::new()
            .reader()
            .open("notes")
            .map_err(Into::into)
            .and_then(|session| get(&session))
            .map(|byte| format!("read {byte}")),
        "fill" => crate::full::fill(),
        other => panic!("{other}"),
    };
    match done {
        Ok(text) => text.lines().for_each(|line| println!("\n{SAYS}{line}")),
        Err(error) => println!("\n{SAYS}error: {error:?}"),
    }
}

/// A store, and the directory that holds it.
pub(crate) fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    (dir, store)
}
