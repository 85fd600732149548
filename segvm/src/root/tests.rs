use std::{mem, sync::Arc, thread, time::Duration};

use super::{GuardError, HeapShared, Root, RootError};
use crate::{
    gate::{Closing, Gate, GateError},
    heap::{Heap, MemorySpace, UNIT},
    persist::{Maybe, Persist},
};

const LONG: Duration = Duration::from_secs(60);

#[derive(Persist)]
#[repr(C)]
struct Counters {
    hits: u64,
    last: Maybe<u32>,
    kind: Weather,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Weather {
    Unknown,
    Rain = 7,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[persist(plain)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
}

fn shared() -> Arc<HeapShared> {
    let heap = Heap::create(Box::new(MemorySpace::new(64 * UNIT)), 7).unwrap();
    HeapShared::new(heap, Gate::new(), "notes".into(), "main".into())
}

#[test]
fn a_new_root_is_zeros_and_changes_stay() {
    let shared = shared();
    let root: Root<Counters> = shared.root("counters").unwrap();
    assert_eq!((root.read().hits, root.read().last.get()), (0, None));
    {
        let mut guard = root.write();
        let counters = guard.as_mut();
        *counters.hits += 5;
        *counters.kind = Weather::Rain;
        let mut last = counters.last;
        last.set(3);
    }
    let again: Root<Counters> = shared.root("counters").unwrap();
    let guard = again.read();
    assert_eq!((guard.hits, guard.kind), (5, Weather::Rain));
    assert_eq!(guard.last.get(), Some(&3));
}

#[test]
fn plain_roots_are_changed_like_numbers() {
    let shared = shared();
    let count: Root<u64> = shared.root("count").unwrap();
    for _ in 0..3 {
        *count.write() += 1;
    }
    assert_eq!(*count.read(), 3);
    let point: Root<Point> = shared.root("point").unwrap();
    point.write().y = 2.5;
    assert_eq!(*point.read(), Point { x: 0.0, y: 2.5 });
}

#[test]
fn a_root_of_another_type_is_refused_with_both_types() {
    let shared = shared();
    let _root: Root<Point> = shared.root("point").unwrap();
    let error = shared.root::<u64>("point").unwrap_err();
    let RootError::WrongType { mismatch, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(mismatch.wanted().to_string(), "u64");
    let found = mismatch.found().unwrap().to_string();
    assert_eq!(found, "struct Point v1 16/8 { x @0: f64; y @8: f64; }");
}

#[test]
fn two_guards_that_would_wait_for_each_other_are_refused() {
    let shared = shared();
    let root: Root<u64> = shared.root("count").unwrap();
    let held = GuardError::HeldHere {
        root: "count".into(),
    };
    let writing = root.write();
    assert_eq!(root.try_write().unwrap_err(), held);
    assert_eq!(root.try_read().unwrap_err(), held);
    drop(writing);
    let first = root.read();
    let second = root.read();
    assert_eq!(root.try_write().unwrap_err(), held);
    drop((first, second));
    *root.write() = 1;
}

#[test]
fn a_forgotten_guard_is_named_by_the_checkpoint() {
    let shared = shared();
    let root: Root<u64> = shared.root("count").unwrap();
    mem::forget(root.write());
    assert_eq!(
        shared.gate().close(Closing::Writers, LONG).unwrap_err(),
        GateError::HeldHere {
            what: "count".into()
        }
    );
    assert!(root.try_write().is_err());
}

#[test]
fn a_root_does_not_outlive_its_session() {
    let shared = shared();
    let root: Root<u64> = shared.root("count").unwrap();
    let gate = Arc::clone(shared.gate());
    drop(shared);
    gate.shut();
    let closed = GuardError::Closed {
        root: "count".into(),
        image: "notes".into(),
    };
    assert_eq!(root.try_read().unwrap_err(), closed);
    assert_eq!(root.try_write().unwrap_err(), closed);
}

#[test]
fn a_panic_in_a_write_guard_poisons_the_gate() {
    let shared = shared();
    let root: Root<u64> = shared.root("count").unwrap();
    let theirs = root.clone();
    let panicked = thread::spawn(move || {
        let mut guard = theirs.write();
        *guard = 1;
        panic!("half-way");
    });
    panicked.join().unwrap_err();
    assert!(shared.gate().poisoned().is_some());
    // The lock itself is free, and the value is there to be looked at and repaired.
    *root.write() = 2;
}

#[test]
fn writers_on_many_threads_take_turns() {
    let shared = shared();
    let root: Root<[u64; 8]> = shared.root("row").unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let mut guard = root.write();
                    for n in guard.iter_mut() {
                        *n += 1;
                    }
                }
            });
        }
        for _ in 0..2000 {
            let row = *root.read();
            assert!(row.iter().all(|n| *n == row[0]));
        }
    });
    assert_eq!(*root.read(), [6000; 8]);
}
