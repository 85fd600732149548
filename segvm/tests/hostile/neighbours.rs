//! A writer that is at a dirty page's clean neighbours as soon as the gate opens (docs/design/neighbours.md).
//!
//! It holds its pass until the checkpoint waits for it, lets go, and enters again: whoever holds nothing is kept out
//! until the pause is over, so the next change begins with the first instruction after it, while the checkpoint copies
//! the neighbours from live memory.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use segvm::{Rounds, Segment, Session};

use super::harness::{BLOCK, PAGE, content, each_commit, get_in, memory, open, put, put_in, same};

const LEN: usize = 6 << 20;
const TURNS: u64 = 18;
const PER_BLOCK: usize = BLOCK / PAGE;

/// Epoch `n` writes one page in each block: which one goes round.
fn page_of(block: usize, n: u64) -> usize {
    block * BLOCK + (n as usize + block) % PER_BLOCK * PAGE
}

fn write_epoch(session: &Session, segment: &Segment, n: u64, backwards: bool) {
    let _pass = session.enter().unwrap();
    epoch(segment, n, backwards);
}

fn epoch(segment: &Segment, n: u64, backwards: bool) {
    let blocks = LEN / BLOCK;
    for at in 0..blocks {
        let block = if backwards { blocks - 1 - at } else { at };
        let page = page_of(block, n);
        for at in [0, 1000, 2040, 4088] {
            put(segment, page + at, n);
        }
    }
}

/// Memory after epoch `n`.
fn after(n: u64) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    for n in n.saturating_sub(PER_BLOCK as u64 - 1).max(1)..=n {
        for block in 0..LEN / BLOCK {
            for at in [0, 1000, 2040, 4088] {
                put_in(&mut bytes, page_of(block, n) + at, n);
            }
        }
    }
    bytes
}

fn newest(bytes: &[u8]) -> u64 {
    (0..PER_BLOCK)
        .map(|page| get_in(bytes, page * PAGE))
        .max()
        .unwrap()
}

fn attack(mode: Rounds) {
    let store = tempfile::tempdir().unwrap();
    let mut n = 0;
    for life in 0..2_u64 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        assert_eq!(newest(&content(&segment)), n, "life {life}");
        let asked = AtomicU64::new(0);
        let ready = AtomicU64::new(0);
        let finished = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        n = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut n = n;
                for turn in 1.. {
                    let pass = session.enter().unwrap();
                    n += 1;
                    epoch(&segment, n, false);
                    ready.store(turn, Ordering::Release);
                    while asked.load(Ordering::Acquire) < turn {
                        if done.load(Ordering::Acquire) {
                            return n;
                        }
                        thread::yield_now();
                    }
                    // The closer is a few instructions away from the gate. Too early costs an attempt, not the check.
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_micros(400 + turn % 5 * 300) {
                        std::hint::spin_loop();
                    }
                    drop(pass);
                    for more in 0..1 + turn % 2 {
                        n += 1;
                        write_epoch(&session, &segment, n, more == 1);
                    }
                    // Not with the next pass in hand: a round that took longer would wait for it, and it for the round.
                    while finished.load(Ordering::Acquire) < turn {
                        thread::yield_now();
                    }
                }
                n
            });
            for turn in 1..=TURNS {
                while ready.load(Ordering::Acquire) < turn {
                    thread::yield_now();
                }
                asked.store(turn, Ordering::Release);
                let saved = session.checkpoint_with(mode).unwrap();
                assert!(saved.changed);
                finished.store(turn, Ordering::Release);
            }
            done.store(true, Ordering::Release);
            writer.join().unwrap()
        });
        session.suspend().unwrap();
    }
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let commits = each_commit(&session, &segment, |commit, found| {
        same(
            found,
            &after(newest(found)),
            &format!("commit {commit:.12}"),
        );
    });
    assert!(commits > 10, "only {commits} commits");
}

#[test]
fn neighbours_rewritten_after_the_pause_are_as_they_were_in_it() {
    attack(Rounds::Off);
}

#[test]
fn neighbours_rewritten_after_rounds_and_a_pause_are_as_they_were_in_it() {
    attack(Rounds::Auto);
}
