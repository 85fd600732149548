//! Heaps whose freed memory is zeroed: what was freed before a checkpoint is in no byte that it writes.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::{alloc::Layout, fs, path::Path, ptr::NonNull, sync::Arc};

use segvm::{
    HashMap, OpenError, Rounds, Session, SessionOptions, Text, Vec as SegmentVec,
    heap::HeapOptions, root::HeapShared,
};

/// What must not be found.
const TRACE: &[u8] = b"correct horse battery staple";

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("traces").unwrap()
}

fn heap(session: &Session, options: HeapOptions) -> Arc<HeapShared> {
    session.heap_with("heap", options).unwrap()
}

/// How often the trace is in the files of the store.
fn traces(store: &Path) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        found += if path.is_dir() {
            traces(&path)
        } else {
            let bytes = fs::read(path).unwrap();
            bytes.windows(TRACE.len()).filter(|at| *at == TRACE).count()
        };
    }
    found
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, 8).unwrap()
}

/// Takes a block that is full of traces.
fn block(heap: &HeapShared, len: usize) -> NonNull<u8> {
    let block = heap.heap().allocate(layout(len)).unwrap();
    fill(block, 0, len);
    block
}

fn fill(block: NonNull<u8>, from: usize, to: usize) {
    for at in (from..to.saturating_sub(TRACE.len())).step_by(TRACE.len()) {
        // SAFETY: the block was taken for at least `to` bytes and is this test's alone.
        let place = unsafe { block.add(at) };
        // SAFETY: as above.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(TRACE).cast(), TRACE.len()) };
    }
}

/// Everything that gives memory back, with traces in it, in one pass; what stays has none.
fn leave(session: &Session, options: HeapOptions) {
    let heap = heap(session, options);
    let _pass = session.enter().unwrap();
    let inner = heap.heap();
    for len in [40, 100, 1000, 5000, 16_000, 70_000, 300_000] {
        let kept = block(&heap, len);
        let freed: Vec<_> = (0..5).map(|_| block(&heap, len)).collect();
        // SAFETY: taken above for this layout, and only this test knows them.
        freed
            .iter()
            .for_each(|&gone| unsafe { inner.free(gone, layout(len)) });
        // Cut where it lies, then moved to where less fits, and grown: each leaves something behind.
        let cut = [len - 8, len / 2, 32, len * 3];
        let mut now = (kept, len);
        for to in cut {
            // SAFETY: as above; what was answered last is what is used from then on.
            let moved = unsafe { inner.reallocate(now.0, layout(now.1), to) }.unwrap();
            fill(moved, 0, to);
            now = (moved, to);
        }
        // SAFETY: as above.
        unsafe { inner.free(now.0, layout(now.1)) };
    }
    // Cut where they lie, and kept: nothing comes later that could cover what they had.
    for (len, to) in [(1000, 900), (70_000, 69_000), (300_000, 70_000)] {
        let kept = block(&heap, len);
        // SAFETY: as above.
        let kept = unsafe { inner.reallocate(kept, layout(len), to) }.unwrap();
        // SAFETY: as above.
        unsafe { kept.write_bytes(0, to) };
    }
    assert_eq!(inner.check(), Ok(()));
}

fn leave_in_collections(session: &Session, options: HeapOptions) {
    let heap = heap(session, options);
    let texts = heap.root::<HashMap<Text, Text>>("texts").unwrap();
    let bytes = heap.root::<SegmentVec<u8>>("bytes").unwrap();
    let trace = String::from_utf8(TRACE.to_vec()).unwrap();
    let mut guard = texts.write();
    for n in 0..100 {
        guard
            .as_mut()
            .insert(&*format!("{n} {trace}"), &*trace.repeat(n));
    }
    guard.as_mut().clear();
    drop(guard);
    let mut guard = bytes.write();
    for _ in 0..1000 {
        for &byte in TRACE {
            guard.as_mut().push(byte);
        }
    }
    guard.as_mut().clear();
    guard.as_mut().shrink_to_fit();
}

#[test]
fn a_checkpoint_after_a_free_holds_no_trace() {
    for rounds in [Rounds::Auto, Rounds::Off] {
        let store = tempfile::tempdir().unwrap();
        let options = HeapOptions::new().zero_on_free();
        let session = open(store.path());
        leave(&session, options);
        leave_in_collections(&session, options);
        session.checkpoint_with(rounds).unwrap();
        assert_eq!(traces(store.path()), 0);
        session.suspend().unwrap();
        assert_eq!(traces(store.path()), 0);
        // What was made so stays so, also where nobody asks for it.
        let session = open(store.path());
        assert_eq!(session.heap("heap").unwrap().heap().options(), options);
        leave(&session, HeapOptions::new());
        session.suspend().unwrap();
        assert_eq!(traces(store.path()), 0);
    }
}

#[test]
fn without_the_option_traces_stay_and_it_cannot_be_had_later() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    leave(&session, HeapOptions::new());
    leave_in_collections(&session, HeapOptions::new());
    session.checkpoint().unwrap();
    assert!(traces(store.path()) > 100, "the search finds nothing");
    let wanted = HeapOptions::new().zero_on_free();
    let refused = |session: &Session| {
        let error = session.heap_with("heap", wanted).unwrap_err();
        assert!(matches!(error, OpenError::OtherSegment { .. }), "{error}");
        assert!(error.to_string().contains("zero_on_free"), "{error}");
    };
    refused(&session);
    session.suspend().unwrap();
    refused(&open(store.path()));
}

/// What an emptied heap leaves is holes: a cache in it, cleared before a suspend, is not stored.
#[test]
fn a_cache_that_is_cleared_costs_nothing_to_save() {
    let written = |options: HeapOptions| {
        let store = tempfile::tempdir().unwrap();
        let session = open(store.path());
        let heap = heap(&session, options);
        let cache = heap.root::<HashMap<u64, Text>>("cache").unwrap();
        session.on_flush("cache", move |flush| {
            let mut guard = cache.write();
            if guard.is_empty() {
                for n in 0..20_000_u64 {
                    guard.as_mut().insert(n, &*format!("{n:0>200}"));
                }
            }
            guard.as_mut().clear();
            guard.as_mut().shrink_to_fit();
            flush.dropped(4 << 20);
        });
        session.suspend().unwrap().bytes_written
    };
    let (all, cleared) = (
        written(HeapOptions::new()),
        written(HeapOptions::new().zero_on_free()),
    );
    println!("{cleared} of {all} bytes");
    assert!(all > 4 << 20, "{all}");
    assert!(cleared < all / 10, "{cleared} of {all} bytes");
}
