use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Closing, Gate, GateError, Kind, Label};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn gate() -> (Arc<Gate>, Label) {
    let gate = Gate::new();
    let label = gate.label("notes");
    (gate, label)
}

#[test]
fn a_closed_gate_keeps_writers_out_and_lets_readers_in() {
    let (gate, notes) = gate();
    let closed = gate.close(Closing::Writers, LONG).unwrap();
    let _reading = gate.enter(Kind::Read, notes).unwrap();
    let inside = AtomicBool::new(false);
    thread::scope(|scope| {
        let (started, has_started) = mpsc::channel();
        let (gate, inside) = (&gate, &inside);
        let writer = scope.spawn(move || {
            started.send(()).unwrap();
            let _pass = gate.enter(Kind::Write, notes).unwrap();
            inside.store(true, Ordering::SeqCst);
        });
        has_started.recv().unwrap();
        for _ in 0..1000 {
            thread::yield_now();
            assert!(!inside.load(Ordering::SeqCst));
        }
        drop(closed);
        writer.join().unwrap();
    });
    assert!(inside.load(Ordering::SeqCst));
}

#[test]
fn what_this_thread_holds_is_never_waited_for() {
    let (gate, notes) = gate();
    let started = Instant::now();
    let writing = gate.enter(Kind::Write, notes).unwrap();
    let what = "notes".into();
    assert_eq!(
        gate.close(Closing::Writers, LONG).unwrap_err(),
        GateError::HeldHere { what }
    );
    drop(writing);
    let reading = gate.enter(Kind::Read, notes).unwrap();
    assert!(gate.close(Closing::Writers, LONG).is_ok());
    assert!(matches!(
        gate.close(Closing::Everybody, LONG),
        Err(GateError::HeldHere { .. })
    ));
    drop(reading);
    assert!(gate.close(Closing::Everybody, LONG).is_ok());
    assert!(started.elapsed() < LONG / 2);
}

#[test]
fn a_holder_gets_more_while_a_closer_waits_for_it() {
    let (gate, notes) = gate();
    let (held, is_held) = mpsc::channel();
    thread::scope(|scope| {
        let gate = &gate;
        scope.spawn(move || {
            let _first = gate.enter(Kind::Write, notes).unwrap();
            held.send(()).unwrap();
            while gate.word.closing().is_none() {
                thread::yield_now();
            }
            let _second = gate.enter(Kind::Write, notes).unwrap();
            let _third = gate.enter(Kind::Read, notes).unwrap();
        });
        is_held.recv().unwrap();
        drop(gate.close(Closing::Everybody, LONG).unwrap());
    });
}

#[test]
fn a_wait_that_does_not_end_names_the_thread_and_what_it_holds() {
    let (gate, notes) = gate();
    let (held, is_held) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let slow = Arc::clone(&gate);
    let writer = thread::Builder::new().name("slow".into()).spawn(move || {
        let pass = slow.enter(Kind::Write, notes).unwrap();
        held.send(()).unwrap();
        may_finish.recv().unwrap();
        drop(pass);
    });
    is_held.recv().unwrap();
    match gate.close(Closing::Writers, SHORT).unwrap_err() {
        GateError::TimedOut {
            what,
            thread,
            waited,
        } => {
            assert_eq!((&*what, &*thread), ("notes", "slow"));
            assert!(waited >= SHORT);
        }
        other => panic!("{other}"),
    }
    // The refusal left the gate open.
    drop(gate.enter(Kind::Write, notes).unwrap());
    finish.send(()).unwrap();
    writer.unwrap().join().unwrap();
    drop(gate.close(Closing::Writers, LONG).unwrap());
}

#[test]
fn a_guard_forgotten_by_a_thread_that_ended_is_named() {
    let (gate, notes) = gate();
    let careless = Arc::clone(&gate);
    thread::Builder::new()
        .name("careless".into())
        .spawn(move || mem::forget(careless.enter(Kind::Write, notes).unwrap()))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(
        gate.close(Closing::Writers, SHORT).unwrap_err(),
        GateError::Leaked {
            what: "notes".into(),
            thread: "careless".into()
        }
    );
}

#[test]
fn a_panic_in_a_write_pass_poisons_until_cleared() {
    let (gate, notes) = gate();
    for (kind, poisons) in [(Kind::Read, false), (Kind::Write, true)] {
        let gate2 = Arc::clone(&gate);
        let panicked = thread::spawn(move || {
            let _pass = gate2.enter(kind, notes).unwrap();
            panic!("half-way");
        });
        panicked.join().unwrap_err();
        assert_eq!(gate.poisoned().is_some(), poisons);
    }
    assert!(matches!(
        gate.close(Closing::Writers, LONG),
        Err(GateError::Poisoned { .. })
    ));
    drop(
        gate.close_even_if_poisoned(Closing::Everybody, LONG)
            .unwrap(),
    );
    gate.clear_poison();
    drop(gate.close(Closing::Writers, LONG).unwrap());
}

#[test]
fn a_shut_gate_answers_closed_to_those_who_wait_too() {
    let (gate, notes) = gate();
    let closed = gate.close(Closing::Everybody, LONG).unwrap();
    thread::scope(|scope| {
        let gate = &gate;
        let waiting = scope.spawn(move || gate.enter(Kind::Read, notes).map(drop));
        gate.shut();
        assert_eq!(waiting.join().unwrap(), Err(GateError::Closed));
    });
    drop(closed);
    assert_eq!(
        gate.enter(Kind::Write, notes).unwrap_err(),
        GateError::Closed
    );
    assert_eq!(
        gate.close(Closing::Writers, LONG).unwrap_err(),
        GateError::Closed
    );
}

#[test]
fn a_closer_never_sees_a_change_half_made() {
    let (gate, notes) = gate();
    let (left, right) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _pass = gate.enter(Kind::Write, notes).unwrap();
                    left.fetch_add(1, Ordering::Relaxed);
                    right.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..2000 {
            let _closed = gate.close(Closing::Writers, LONG).unwrap();
            let seen = (left.load(Ordering::Relaxed), right.load(Ordering::Relaxed));
            assert_eq!(seen.0, seen.1);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_forked_child_is_told_and_its_drops_do_nothing() {
    let (gate, notes) = gate();
    let pass = gate.enter(Kind::Write, notes).unwrap();
    // SAFETY: the child calls nothing that takes a lock of the parent's (that is what is tested) and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = gate.enter(Kind::Write, notes).err() == Some(GateError::Forked);
        let closing = gate.close(Closing::Writers, LONG).err() == Some(GateError::Forked);
        drop(pass);
        let untouched = gate.word.is_held(Closing::Writers);
        let ok = refused && closing && untouched;
        // SAFETY: ends the child at once, without running the parent's exit handlers.
        unsafe { libc::_exit(if ok { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: `status` is a place for the answer about our own child.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    drop(pass);
    drop(gate.close(Closing::Everybody, LONG).unwrap());
}

#[test]
fn passes_that_are_out_are_waited_for_and_later_ones_are_not() {
    let (gate, notes) = gate();
    assert!(gate.settle(Duration::ZERO));
    let reading = gate.enter(Kind::Read, notes).unwrap();
    assert!(gate.settle(Duration::ZERO), "a reader changes nothing");
    drop(reading);
    thread::scope(|scope| {
        let (is_in, has_entered) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let gate = &gate;
        scope.spawn(move || {
            let mut pass = gate.enter(Kind::Write, notes).unwrap();
            is_in.send(()).unwrap();
            may_go_on.recv().unwrap();
            // Within the first one: the stay goes on.
            drop(gate.enter(Kind::Write, notes).unwrap());
            is_in.send(()).unwrap();
            may_go_on.recv().unwrap();
            drop(mem::replace(&mut pass, {
                // The first pass is still out while the second is taken: the stay goes on here too.
                gate.enter(Kind::Write, notes).unwrap()
            }));
            is_in.send(()).unwrap();
            may_go_on.recv().unwrap();
            drop(pass);
            let _another = gate.enter(Kind::Write, notes).unwrap();
            is_in.send(()).unwrap();
            may_go_on.recv().unwrap();
        });
        let mut stays = Vec::new();
        for _ in 0..3 {
            has_entered.recv().unwrap();
            assert!(!gate.settle(SHORT), "a pass is out");
            stays = gate.stays();
            go_on.send(()).unwrap();
        }
        // What was out at that look came back; that its thread is in again does not matter.
        has_entered.recv().unwrap();
        assert!(
            stays
                .iter()
                .all(|(holder, stay)| holder.stay() != Some(*stay))
        );
        assert!(!gate.settle(SHORT), "but this one is out now");
        go_on.send(()).unwrap();
    });
    assert!(gate.settle(Duration::ZERO));
}
