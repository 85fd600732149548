//! Writers at full speed. Each change puts one number into three places in different blocks, inside one pass.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use segvm::{Rounds, Segment, SegmentOptions, Session, gate::GateError};

use super::harness::{
    BLOCK, PAGE, content, each_commit, get_in, memory, mix, open, put, put_in, same, word,
};

const LEN: usize = 16 << 20;
const WRITERS: u64 = 3;
const RUN: Duration = Duration::from_millis(250);

/// Where a writer counts its changes.
fn counter(writer: u64) -> usize {
    writer as usize * BLOCK
}

/// The places of change `n` of a writer: words of its own, in blocks far apart. The neighbourhood moves on slowly, so
/// that an epoch leaves blocks untouched, others with one dirty page, and others that are dirty throughout.
fn places(writer: u64, n: u64) -> [usize; 3] {
    [0, 1, 2].map(|which| {
        let random = mix(n * 3 + which + (writer << 40));
        let third = LEN / PAGE / 4;
        let near = random as usize % if random >> 60 == 0 { third } else { 96 };
        let start = mix(which + (n >> 13) * 3 + writer) as usize;
        let page = (which as usize + 1) * third + (start + near) % third;
        // A word of its own for each writer; word 0 of a page is nobody's.
        let slot = 1 + (random >> 32) as usize % 100;
        page * PAGE + (slot * WRITERS as usize + writer as usize) * 8
    })
}

/// Changes memory until told to stop. The counter in memory says which change comes next, also after a restore.
fn write(session: &Session, segment: &Segment, writer: u64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let pass = match session.enter() {
            Ok(pass) => pass,
            Err(GateError::Closed) => return,
            Err(error) => panic!("{error}"),
        };
        let n = word(segment, counter(writer)).load(Ordering::Relaxed) + 1;
        let [one, two, three] = places(writer, n);
        put(segment, one, n);
        put(segment, counter(writer), n);
        put(segment, two, n);
        put(segment, three, n);
        drop(pass);
    }
}

/// What memory is when the counters are these, made from what it was when they were lower.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    counts: [u64; WRITERS as usize],
}

impl Model {
    fn advance(&mut self, found: &[u8]) {
        for writer in 0..WRITERS {
            let to = get_in(found, counter(writer));
            let from = self.counts[writer as usize];
            if to < from {
                // A restore went back: from the beginning.
                *self = Self::default();
                return self.advance(found);
            }
            self.bytes.resize(LEN, 0);
            for n in from + 1..=to {
                for place in places(writer, n) {
                    put_in(&mut self.bytes, place, n);
                }
            }
            put_in(&mut self.bytes, counter(writer), to);
            self.counts[writer as usize] = to;
        }
    }
}

/// Runs the writers while `attack` runs.
fn with_writers(session: &Session, segment: &Segment, attack: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let stop = &stop;
            scope.spawn(move || write(session, segment, writer, stop));
        }
        // The writers end, whatever becomes of the attack: a scope waits for them.
        let end = Stop(&stop);
        attack();
        drop(end);
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn every_commit_is_whole(session: &Session, segment: &Segment, at_least: usize) {
    let mut model = Model::default();
    let mut last = Vec::new();
    let count = each_commit(session, segment, |commit, found| {
        model.advance(found);
        same(found, &model.bytes, &format!("commit {commit:.12}"));
        last = found.to_vec();
    });
    assert!(count >= at_least, "only {count} commits");
    assert!(get_in(&last, counter(0)) > 1000, "the writers hardly ran");
}

fn back_to_back(modes: &[Rounds]) {
    let store = tempfile::tempdir().unwrap();
    let (mut rounds, mut paused) = (0, 0);
    for _life in 0..3 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        with_writers(&session, &segment, || {
            // Enough for a round: the first checkpoint finds most of memory dirty, however slow this machine is today.
            let first = word(&segment, counter(0)).load(Ordering::Relaxed);
            while word(&segment, counter(0)).load(Ordering::Relaxed) < first + 20_000 {
                thread::yield_now();
            }
            let began = Instant::now();
            for (n, &mode) in modes.iter().cycle().enumerate() {
                let saved = session.checkpoint_with(mode).unwrap();
                rounds += saved.rounds;
                paused += saved.bytes_paused;
                if n >= 2 && began.elapsed() > RUN {
                    break;
                }
            }
        });
        // Once what the last life left is saved by suspend, once it is given up.
        if rounds % 2 == 0 {
            session.suspend().unwrap();
        }
    }
    assert!(
        paused > 0 && (rounds > 0 || modes == [Rounds::Off]),
        "{rounds} rounds, {paused} bytes paused"
    );
    let session = open(store.path());
    let segment = memory(&session, LEN);
    every_commit_is_whole(&session, &segment, 6);
}

#[test]
fn commits_hold_whole_changes_with_rounds() {
    back_to_back(&[Rounds::Auto]);
}

#[test]
fn commits_hold_whole_changes_without_rounds() {
    back_to_back(&[Rounds::Off]);
}

#[test]
fn commits_hold_whole_changes_with_and_without_rounds_in_turn() {
    back_to_back(&[Rounds::Auto, Rounds::Off, Rounds::Off]);
}

/// The writers wait at the gate during a restore, then go on from what was restored.
#[test]
fn restores_between_checkpoints_leave_whole_changes() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = memory(&session, LEN);
    let mut commits = vec![session.checkpoint().unwrap().commit.to_string()];
    with_writers(&session, &segment, || {
        let began = Instant::now();
        for n in 0_u64.. {
            let mode = if n % 2 == 0 {
                Rounds::Auto
            } else {
                Rounds::Off
            };
            commits.push(session.checkpoint_with(mode).unwrap().commit.to_string());
            if n % 3 == 2 {
                let to = &commits[mix(n) as usize % commits.len()];
                session.restore(&to[..16]).unwrap();
            }
            if n >= 5 && began.elapsed() > 3 * RUN {
                break;
            }
        }
    });
    let mut model = Model::default();
    let now = content(&segment);
    model.advance(&now);
    same(&now, &model.bytes, "memory itself");
    every_commit_is_whole(&session, &segment, 6);
}

/// The same with checkpoints that come by themselves, and one that a handle stands for.
#[test]
fn checkpoints_beside_the_program_hold_whole_changes() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let segment = memory(&session, LEN);
    session.checkpoint_every(Duration::from_millis(1)).unwrap();
    with_writers(&session, &segment, || {
        let began = Instant::now();
        for n in 0.. {
            session.start_checkpoint().unwrap().wait().unwrap();
            if n >= 5 && began.elapsed() > 2 * RUN {
                break;
            }
        }
    });
    drop(segment);
    drop(session);
    let session = open(store.path());
    let segment = memory(&session, LEN);
    every_commit_is_whole(&session, &segment, 6);
}

/// A segment that is made while a checkpoint is under way, and filled in one pass with another one's change: the commit
/// has both halves or neither.
#[test]
fn a_segment_made_during_a_checkpoint_is_part_of_it_if_what_refers_to_it_is() {
    let store = tempfile::tempdir().unwrap();
    for n in 1..=8_u64 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        // Enough that there is a round.
        segment.write(PAGE, &vec![n as u8; LEN - PAGE]).unwrap();
        let running = session.start_checkpoint().unwrap();
        while running.bytes_done() == 0 && !running.is_done() {
            thread::yield_now();
        }
        let name = format!("other-{n}");
        let other = session.segment(&name, PAGE).unwrap();
        let pass = session.enter().unwrap();
        put(&segment, 0, n);
        put(&other, 0, n);
        drop(pass);
        running.wait().unwrap();
        drop(session);
        let session = open(store.path());
        let halves = [memory(&session, LEN), session.segment(&name, PAGE).unwrap()]
            .map(|half| word(&half, 0).load(Ordering::Relaxed) == n);
        assert!(halves[0] == halves[1], "change {n}: {halves:?}");
    }
}

/// Two segments, the one that was made later lying below: a change has half of itself in each.
#[test]
fn changes_that_span_segments_are_whole_wherever_the_segments_lie() {
    const HALF: usize = 4 << 20;
    let store = tempfile::tempdir().unwrap();
    let bases = [("a", 0x2c00_0000_0000_usize), ("b", 0x2b00_0000_0000)];
    let segments = |session: &Session| {
        bases.map(|(name, base)| {
            let options = SegmentOptions::new().base(base).reserve(HALF);
            session.segment_with(name, HALF, &options).unwrap()
        })
    };
    let place = |n: u64| 8 + mix(n) as usize % (HALF / 8 - 1) * 8;
    let session = open(store.path());
    let [high, low] = segments(&session);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let Ok(_pass) = session.enter() else { return };
                let n = word(&high, 0).load(Ordering::Relaxed) + 1;
                for half in [&high, &low] {
                    put(half, place(n), n);
                    put(half, 0, n);
                }
            }
        });
        let _end = Stop(&stop);
        let began = Instant::now();
        for n in 0.. {
            session.checkpoint_with(Rounds::Off).unwrap();
            if n >= 5 && began.elapsed() > 2 * RUN {
                break;
            }
        }
    });
    drop(session);
    let session = open(store.path());
    let [high, low] = segments(&session);
    let (mut bytes, mut done) = (vec![0; HALF], 0);
    each_commit(&session, &high, |commit, found| {
        let to = get_in(found, 0);
        for n in done + 1..=to {
            put_in(&mut bytes, place(n), n);
        }
        put_in(&mut bytes, 0, to);
        done = to;
        same(
            found,
            &bytes,
            &format!("commit {commit:.12}, the upper half"),
        );
        same(
            &content(&low),
            &bytes,
            &format!("commit {commit:.12}, the lower half"),
        );
    });
    assert!(done > 1000, "the writer hardly ran");
}
