//! `kill -9` in the middle of anything: migrations, checkpoints, branches, tags, restores, thefts, collections. Whatever was promised is
//! there, byte for byte, for as long as nobody takes it away.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use segvm_e2e::Rng;

fn mixer(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixer"));
    command
        .args(arguments)
        .env("SEGVM_HOME", store)
        .stdin(Stdio::null());
    command
}

fn begin(store: &Path, arguments: &[&str]) -> Child {
    let mut command = mixer(store, arguments);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What was promised.
#[derive(Default)]
struct Promised {
    /// The length of the line, and the count of its newest commit.
    newest: (u64, u64),
    /// Branches, tags and rescued images, each with its count.
    made: BTreeMap<String, u64>,
    /// How often what was said.
    said: BTreeMap<String, u32>,
}

impl Promised {
    /// Kills it, and takes note of what it said.
    fn kill(&mut self, mut child: Child) {
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let kind = words[0].to_owned();
            match words.as_slice() {
                ["durable", sequence, count] => {
                    let said = (sequence.parse().unwrap(), count.parse().unwrap());
                    // A thief's commits come after its victim's, whoever is asked first.
                    if said.0 > self.newest.0 {
                        self.newest = said;
                    }
                }
                ["made", what, count] => {
                    self.made.insert((*what).to_owned(), count.parse().unwrap());
                }
                _ => {}
            }
            *self.said.entry(kind).or_default() += 1;
        }
        let error: Vec<String> = BufReader::new(stderr)
            .lines()
            .map_while(Result::ok)
            .collect();
        // Killed, or ended by itself as it was stolen from. A thief that comes in the middle of an opening is refused nothing, but
        // the other may be refused.
        let refused = |line: &String| {
            line.contains("open for writing")
                || line.contains("taken over")
                || line.contains("cleaned up")
        };
        assert!(
            status.code().is_none_or(|code| code == 0) || error.iter().any(refused),
            "{status}: {error:?}"
        );
    }
}

fn wait(rng: &mut Rng, micros: u64) {
    // Not synchronisation: the instant of the kill is what is random here.
    let until = Instant::now() + Duration::from_micros(300 + rng.below(micros));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn found(store: &Path, what: &str) -> (u64, u64) {
    let out = mixer(store, &["check", what]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let words: Vec<&str> = text.trim().split(' ').collect();
    assert!(
        out.status.success() && words.len() == 3,
        "{what}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    (words[1].parse().unwrap(), words[2].parse().unwrap())
}

#[test]
fn kills_in_the_middle_of_anything_lose_nothing_that_was_promised() {
    let store = tempfile::tempdir().unwrap();
    let store = store.path();
    let mut rng = Rng::of(0x5eed_0010);
    let mut promised = Promised::default();
    for round in 0..60 {
        let seed = (1 + rng.below(1 << 30)).to_string();
        let first = begin(store, &["run", &seed]);
        wait(&mut rng, 60_000);
        if rng.below(3) == 0 {
            let thief = begin(store, &["steal", &seed]);
            wait(&mut rng, 60_000);
            let both = if rng.below(2) == 0 {
                [thief, first]
            } else {
                [first, thief]
            };
            for child in both {
                promised.kill(child);
            }
        } else {
            promised.kill(first);
        }
        if round % 4 == 1 {
            let collector = begin(store, &["gc"]);
            wait(&mut rng, 20_000);
            promised.kill(collector);
        }
        if round % 10 == 9 {
            let whole = mixer(store, &["gc"]).status().unwrap();
            assert!(whole.success(), "round {round}: the collection failed");
        }
        if round % 3 == 2 && promised.newest.0 > 0 {
            let (length, count) = found(store, "mixed");
            let (sequence, newest) = promised.newest;
            assert!(
                length > sequence || (length == sequence && count == newest),
                "round {round}: {sequence} commits were durable, the newest with {newest}; {length} came back with {count}"
            );
            let names: Vec<&String> = promised.made.keys().collect();
            for _ in 0..3.min(names.len()) {
                let what = names[rng.below(names.len() as u64) as usize];
                assert_eq!(
                    found(store, what).1,
                    promised.made[what],
                    "round {round}: {what}"
                );
            }
        }
    }
    for (what, count) in promised.made.iter().take(40) {
        assert_eq!(found(store, what).1, *count, "{what}");
    }
    for (kind, least) in [("durable", 40), ("made", 10), ("migrated", 10)] {
        let times = promised.said.get(kind).copied().unwrap_or_default();
        assert!(times >= least, "`{kind}` was said {times} times only");
    }
}
