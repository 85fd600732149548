//! Processes that steal from each other and are killed: one line of commits, and nothing that was promised is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process,
    time::Duration,
};

use nix::{
    sys::{
        signal::{self, Signal},
        wait::{self, WaitStatus},
    },
    unistd::{self, Pid},
};
use segvm_home::{DirHome, PublishError};

use crate::{commit, fork, holder, home, line, notes, reader};

const FIGHTERS: usize = 3;
/// How many are killed before the fight ends.
const KILLS: u64 = 25;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Acquires, steals or goes without, commits until it is refused, and does so again until it is killed. Says each commit
/// that it was promised, with its token.
fn fight(home: &DirHome, seed: u64, say: &fs::File) -> ! {
    let mut dice = Dice(seed);
    let mut n = u64::from(process::id()) << 32;
    let said = |token: u64, id: &str| {
        let line = format!("{token} {id}\n");
        let mut say = say;
        say.write_all(line.as_bytes()).unwrap();
    };
    loop {
        if dice.below(3) == 0 {
            // As a reader does: look, and commit if nobody has moved or taken the image.
            let head = home.image(&notes()).unwrap().and_then(|image| image.head);
            let base = head.map(|head| head.commit_id);
            n += 1;
            match home.commit(&notes(), reader(base), &commit(n, base), b"") {
                Ok(id) => said(0, &id.to_string()),
                Err(PublishError::Held { .. } | PublishError::Moved { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            continue;
        }
        let lease = match dice.below(2) {
            0 => home.acquire(&notes(), holder("fighter")),
            _ => home.steal(&notes(), holder("fighter")),
        };
        let Ok(mut lease) = lease else { continue };
        for _ in 0..dice.below(8) {
            n += 1;
            let parent = lease.head().map(|head| head.commit_id);
            match lease.publish(&commit(n, parent), b"") {
                Ok(id) => said(lease.token().number(), &id.to_string()),
                Err(PublishError::Orphaned { .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
}

fn start(dir: &Path, seed: u64) -> (Pid, BufReader<fs::File>) {
    let (read, write) = unistd::pipe().unwrap();
    let (read, write) = (fs::File::from(read), fs::File::from(write));
    let pid = fork(|| fight(&home(dir), seed, &write));
    (pid, BufReader::new(read))
}

#[test]
fn processes_that_steal_from_each_other_and_are_killed_keep_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let mut promised = BTreeSet::new();
    let mut by_token = BTreeMap::new();
    let mut fighters: Vec<_> = (0..FIGHTERS as u64).map(|n| start(dir.path(), n)).collect();
    let mut kills = 0;
    let mut turn = 0;
    while kills < KILLS {
        turn = (turn + 1) % FIGHTERS;
        let (pid, lines) = &mut fighters[turn];
        let mut said = String::new();
        // Ends with the child, should it have panicked.
        assert!(lines.read_line(&mut said).unwrap() > 0, "{pid} is gone");
        note(&said, *pid, &mut promised, &mut by_token);
        if dice.below(8) == 0 {
            kill(&mut fighters[turn], &mut promised, &mut by_token);
            fighters[turn] = start(dir.path(), 100 + kills);
            kills += 1;
        }
    }
    for fighter in &mut fighters {
        kill(fighter, &mut promised, &mut by_token);
    }
    let home = home(dir.path()).with_patience(Duration::from_secs(60));
    let found: BTreeSet<String> = line(&home)
        .iter()
        .map(|record| record.commit_id.to_string())
        .collect();
    let lost: Vec<_> = promised.difference(&found).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost",
        lost.len(),
        promised.len()
    );
    println!(
        "{} commits, {} promised to {} leases, {kills} killed",
        found.len(),
        promised.len(),
        by_token.len()
    );
    assert!(by_token.len() > 20, "nobody fought");
    home.acquire(&notes(), holder("after")).unwrap();
}

/// Kills a fighter. What it said before it died counts.
fn kill(
    (pid, lines): &mut (Pid, BufReader<fs::File>),
    promised: &mut BTreeSet<String>,
    by_token: &mut BTreeMap<u64, Pid>,
) {
    signal::kill(*pid, Signal::SIGKILL).unwrap();
    let ended = wait::waitpid(*pid, None).unwrap();
    assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)));
    for said in lines.lines() {
        note(&said.unwrap(), *pid, promised, by_token);
    }
}

/// Notes a commit that was promised; a token must be one process's alone.
fn note(said: &str, pid: Pid, promised: &mut BTreeSet<String>, by_token: &mut BTreeMap<u64, Pid>) {
    let Some((token, id)) = said.trim_end().split_once(' ') else {
        return;
    };
    if id.len() == 64 {
        promised.insert(id.to_owned());
        let token = token.parse().unwrap();
        if token != 0 {
            assert_eq!(*by_token.entry(token).or_insert(pid), pid, "a token twice");
        }
    }
}
