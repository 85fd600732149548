//! Cold to warm under fire: each life begins with everything mapped and nothing tracked, and what a checkpoint makes warm is
//! being written, or only read, at that very moment.
//!
//! A write that is lost is found only if nobody writes there again: in one life every page is written once, by one writer, in an
//! order that jumps about. Change `n` of a writer is two words, before and behind its counter; so from the counter alone it
//! follows what each page must hold, at the end and in every commit.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use segvm::{Rounds, Segment, Session, gate::GateError};

use super::harness::{
    BLOCK, PAGE, content, each_commit, get_in, memory, mix, open, put, put_in, same, word,
};

const WRITERS: usize = 4;

/// Pages that one writer writes before its counter; as many again behind it. A power of two, see [`newest`].
const REGION: usize = 1 << 11;
const PAGES: usize = 2 * WRITERS * REGION;
const LEN: usize = PAGES * PAGE + WRITERS * BLOCK;
const LIVES: usize = 8;

/// Odd, so that `n * STEP` is a permutation of a region's pages.
const STEP: usize = 2_654_435_761;

fn counter(writer: usize) -> usize {
    PAGES * PAGE + writer * BLOCK
}

fn address(writer: usize, which: usize, page: usize) -> usize {
    ((2 * writer + which) * REGION + page) * PAGE
}

/// Where change `n` puts its words.
fn place(writer: usize, which: usize, n: u64) -> usize {
    address(writer, which, (n as usize).wrapping_mul(STEP) % REGION)
}

/// The newest change up to `n` that put its word on this page of a region, if one did.
fn newest(page: usize, n: u64) -> Option<u64> {
    // Newton's method doubles the digits that are right: the inverse modulo a power of two.
    let mut inverse = STEP;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_usize.wrapping_sub(STEP.wrapping_mul(inverse)));
    }
    let back = (n as usize).wrapping_sub(page.wrapping_mul(inverse)) % REGION;
    n.checked_sub(back as u64).filter(|&change| change > 0)
}

fn paint() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    for writer in 0..WRITERS {
        put_in(&mut bytes, counter(writer), 0);
    }
    bytes
}

/// Every byte of memory when the counters are these.
fn expected(paint: &[u8], counts: [u64; WRITERS]) -> Vec<u8> {
    let mut bytes = paint.to_vec();
    for (writer, &count) in counts.iter().enumerate() {
        put_in(&mut bytes, counter(writer), count);
        for page in 0..REGION {
            if let Some(change) = newest(page, count) {
                put_in(&mut bytes, address(writer, 0, page), change);
                put_in(&mut bytes, address(writer, 1, page), change);
            }
        }
    }
    bytes
}

fn counts_in(bytes: &[u8]) -> [u64; WRITERS] {
    std::array::from_fn(|writer| get_in(bytes, counter(writer)))
}

fn counts_of(segment: &Segment) -> [u64; WRITERS] {
    std::array::from_fn(|writer| word(segment, counter(writer)).load(Ordering::Relaxed))
}

/// Checkpoints of one life.
const TURNS: usize = 4;

/// Writes each page of the writer's regions once: in each turn of the checkpoints a part, so that every one of them finds some
/// of it written and some not.
fn sweep(session: &Session, segment: &Segment, writer: usize, turn: &AtomicUsize) {
    for n in 0..REGION {
        while n * TURNS >= (turn.load(Ordering::Relaxed) + 1) * REGION {
            thread::yield_now();
        }
        let pass = match session.enter() {
            Ok(pass) => pass,
            Err(GateError::Closed) => return,
            Err(error) => panic!("{error}"),
        };
        let n = word(segment, counter(writer)).load(Ordering::Relaxed) + 1;
        put(segment, place(writer, 0, n), n);
        put(segment, counter(writer), n);
        put(segment, place(writer, 1, n), n);
        drop(pass);
    }
}

/// Reads a word here and there: pages that are in, and clean, and whose windows become warm all the same.
fn look(segment: &Segment, stop: &AtomicBool) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let page = mix(n) as usize % PAGES;
        word(segment, page * PAGE).load(Ordering::Relaxed);
        thread::yield_now();
    }
}

/// Ends the reader and lets the writers end, whatever becomes of the attack: a scope waits for them.
struct Stop<'a>(&'a AtomicBool, &'a AtomicUsize);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.store(TURNS, Ordering::Relaxed);
    }
}

/// Checkpoints until memory has been swept; answers during how many of them the writers got on.
fn life(session: &Session, segment: &Segment, life: usize) -> usize {
    let stop = AtomicBool::new(false);
    let total = || counts_of(segment).iter().sum::<u64>();
    let first = total();
    let all = first + (WRITERS * REGION) as u64;
    let turns = AtomicUsize::new(0);
    let mut overtaken = 0;
    thread::scope(|scope| {
        let end = Stop(&stop, &turns);
        let writers = std::array::from_fn::<_, WRITERS, _>(|writer| {
            let turns = &turns;
            scope.spawn(move || sweep(session, segment, writer, turns))
        });
        scope.spawn(|| look(segment, &stop));
        // From hardly a page in each window to every second one.
        let begin = first + [4, 60, 500, 2_000][life % 4];
        while total() < begin {
            thread::yield_now();
        }
        for turn in 0..TURNS {
            turns.store(turn, Ordering::Relaxed);
            let before = total();
            let rounds = if turn == life / 4 {
                Rounds::Off
            } else {
                Rounds::Auto
            };
            session.checkpoint_with(rounds).unwrap();
            overtaken += usize::from(total() > before + 1);
        }
        turns.store(TURNS, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        drop(end);
    });
    assert_eq!(total(), all);
    overtaken
}

#[test]
fn what_becomes_warm_while_it_is_written_loses_nothing() {
    let store = tempfile::tempdir().unwrap();
    let paint = paint();
    let session = open(store.path());
    memory(&session, LEN).write(0, &paint).unwrap();
    session.suspend().unwrap();
    let mut overtaken = 0;
    for n in 0..LIVES {
        // Mapped, and nothing of it warm. What the life before suspended is what it ended with.
        let session = open(store.path());
        let segment = memory(&session, LEN);
        let counts = [(n * REGION) as u64; WRITERS];
        let what = format!("what was suspended before life {n}");
        same(&content(&segment), &expected(&paint, counts), &what);
        drop((segment, session));
        let session = open(store.path());
        let segment = memory(&session, LEN);
        overtaken += life(&session, &segment, n);
        session.suspend().unwrap();
    }
    assert!(
        overtaken >= LIVES / 2,
        "the writers ran during {overtaken} checkpoints only"
    );
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let mut between = 0;
    let commits = each_commit(&session, &segment, |commit, found| {
        let counts = counts_in(found);
        between += usize::from(counts.iter().any(|count| count % REGION as u64 != 0));
        same(
            found,
            &expected(&paint, counts),
            &format!("commit {commit:.12}"),
        );
    });
    assert!(
        commits > LIVES && between >= LIVES / 2,
        "{between} of {commits} commits were made during a sweep"
    );
}
