//! `kill -9` at random instants: every later open gives a promised checkpoint or a newer complete one, byte for byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use segvm_e2e::Rng;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

fn victim(store: &Path, mode: &str) -> Command {
    let mut command = Command::new(VICTIM);
    command
        .arg(mode)
        .env("SEGVM_HOME", store)
        .stdin(Stdio::null());
    command
}

fn count_of(store: &Path) -> u64 {
    let out = victim(store, "check").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "check failed: {}{text}",
        String::from_utf8_lossy(&out.stderr)
    );
    text.trim().strip_prefix("count ").unwrap().parse().unwrap()
}

fn kill(mut child: Child) -> Vec<String> {
    let stdout = child.stdout.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .collect()
}

/// Runs and kills `times` times; answers the counts found after each.
fn rounds(mode: &str, times: u64, longest: Duration, seed: u64) -> Vec<u64> {
    let store = tempfile::tempdir().unwrap();
    let mut rng = Rng::of(seed);
    let micros = u64::try_from(longest.as_micros()).unwrap();
    let mut promised = 0;
    let mut found = Vec::new();
    for round in 0..times {
        let child = victim(store.path(), mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Not synchronisation: the instant of the kill is what is random here.
        let until = Instant::now() + Duration::from_micros(500 + rng.below(micros));
        while Instant::now() < until {
            std::thread::sleep(Duration::from_micros(100));
        }
        let lines = kill(child);
        for line in &lines {
            if let Some(n) = line.strip_prefix("durable ").and_then(|n| n.parse().ok()) {
                promised = n;
            }
        }
        if round % 4 == 3 || round + 1 == times {
            let count = count_of(store.path());
            assert!(
                count >= promised,
                "round {round}: {promised} was durable, {count} came back"
            );
            promised = count;
            found.push(count);
        }
        if round % 16 == 15 {
            let suspended = victim(store.path(), "suspend").status().unwrap();
            assert!(suspended.success(), "round {round}: suspend failed");
        }
    }
    found
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_durable() {
    let found = rounds("run", 200, Duration::from_millis(40), 0x5eed_0001);
    assert!(
        found.last().unwrap() > &100,
        "the victim got nowhere: {found:?}"
    );
}

#[test]
fn automatic_checkpoints_survive_kills_whole() {
    // On a busy machine the first checkpoint takes its time: more of it until one got through.
    for longest in [200, 1_000, 5_000] {
        let found = rounds("automatic", 24, Duration::from_millis(longest), 0x5eed_0002);
        if found.last().unwrap() > &0 {
            return;
        }
    }
    panic!("no automatic checkpoint in seconds");
}

#[test]
fn a_second_writer_is_refused_at_once_and_told_who_the_first_is() {
    let store = tempfile::tempdir().unwrap();
    let mut first = victim(store.path(), "automatic")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("begun"), "{line}");
    let begun = Instant::now();
    let second = victim(store.path(), "check").output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains(&first.id().to_string()), "no pid in: {said}");
    assert!(said.contains("victim"), "no program in: {said}");
    first.kill().unwrap();
    first.wait().unwrap();
    count_of(store.path());
}
