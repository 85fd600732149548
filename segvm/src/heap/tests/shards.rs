//! Where shards find room, and that they keep none to themselves.

use std::{alloc::Layout, ptr::NonNull, sync::Arc, sync::mpsc, thread};

use super::{MemorySpace, UNIT, heap, heap_of, layout};
use crate::heap::{Heap, Space as _, layout::Class, threads::number};

/// Numbers that no thread of these tests has.
const NOBODY: u32 = 24;

/// Fills `spans` spans of the class of `layout` on behalf of a thread.
fn fill(heap: &Heap, layout: Layout, spans: usize, thread: u32) -> Vec<NonNull<u8>> {
    let objects = spans * Class::of(layout).unwrap().capacity();
    let take = || heap.core.take(layout, thread).unwrap();
    (0..objects).map(|_| take()).collect()
}

/// Gives all but every fourth one back.
fn thin_out(heap: &Heap, layout: Layout, blocks: Vec<NonNull<u8>>) -> Vec<NonNull<u8>> {
    let mut kept = Vec::new();
    for (at, block) in blocks.into_iter().enumerate() {
        if at % 4 == 0 {
            kept.push(block);
        } else {
            heap.core.give(block, layout);
        }
    }
    kept
}

#[test]
fn what_threads_that_are_gone_left_is_used_before_the_heap_grows() {
    let heap = heap(400);
    let layout = layout(100);
    let threads = NOBODY..NOBODY + 8;
    let filled: Vec<_> = threads
        .map(|thread| fill(&heap, layout, 10, thread))
        .collect();
    for blocks in filled {
        thin_out(&heap, layout, blocks);
    }
    let before = heap.usage();
    for _ in 0..Class::of(layout).unwrap().capacity() * 59 {
        heap.allocate(layout).unwrap();
    }
    heap.check().unwrap();
    assert_eq!(heap.usage().held, before.held);
    heap.allocate(Layout::new::<[u8; 3000]>()).unwrap();
    assert_eq!(heap.usage().held, before.held + UNIT as u64);
}

#[test]
fn a_thread_that_lives_gives_up_what_is_half_empty_but_not_where_it_takes_from() {
    let heap = heap(400);
    let layout = layout(100);
    thread::scope(|scope| {
        let heap = &heap;
        let (thinned, is_thinned) = mpsc::channel();
        let (finish, may_finish) = mpsc::channel::<()>();
        scope.spawn(move || {
            let own = number();
            let blocks = fill(heap, layout, 10, own);
            thin_out(heap, layout, blocks);
            thinned.send(own).unwrap();
            // Until the test is over, one way or the other.
            let _over = may_finish.recv();
        });
        let other = is_thinned.recv().unwrap();
        let class = Class::of(layout).unwrap();
        let first = heap.core.shard(other).open_list(class).get();
        let held = heap.usage().held;
        for _ in 0..class.capacity() * 6 {
            heap.allocate(layout).unwrap();
        }
        assert_eq!(heap.usage().held, held);
        assert_eq!(heap.core.shard(other).open_list(class).get(), first);
        // What is left there is its own: the heap grows.
        for _ in 0..class.capacity() * 2 {
            heap.allocate(layout).unwrap();
        }
        assert!(heap.usage().held > held);
        assert_eq!(heap.core.shard(other).open_list(class).get(), first);
        heap.check().unwrap();
        drop(finish);
    });
}

#[test]
fn the_last_object_is_anybody_s() {
    let space = Arc::new(MemorySpace::new(8 * UNIT));
    let heap = heap_of(&space, 4);
    // The shard of this thread, which lives, so that nothing is taken over from it.
    let own = number();
    let mut blocks = Vec::new();
    while let Ok(block) = heap.core.take(layout(16_000), own) {
        blocks.push(block);
    }
    assert_eq!(blocks.len(), 7 * 4);
    let last = blocks[13];
    heap.core.give(last, layout(16_000));
    assert_eq!(heap.core.take(layout(16_000), own + 1).unwrap(), last);
    assert!(heap.core.take(layout(16_000), own + 2).is_err());
    assert!(heap.core.take(layout(8), own).is_err());
    heap.check().unwrap();
}

#[test]
fn empty_spans_are_kept_only_until_somebody_needs_their_units() {
    let space = Arc::new(MemorySpace::new(8 * UNIT));
    for wanted in [layout(24), layout(5 * UNIT)] {
        let heap = heap_of(&space, 4);
        for (thread, size) in [(0, 100), (1, 200), (2, 1000), (3, 2000), (3, 16), (0, 500)] {
            let block = heap.core.take(layout(size), thread).unwrap();
            heap.core.give(block, layout(size));
        }
        // Six empty spans of seven units.
        assert_eq!(
            (heap.usage().blocks, heap.usage().held),
            (0, 7 * UNIT as u64)
        );
        let last = heap.core.take(layout(UNIT), 0).unwrap();
        let block = heap.core.take(wanted, 1).unwrap();
        heap.check().unwrap();
        heap.core.give(block, wanted);
        heap.core.give(last, layout(UNIT));
        assert_eq!((heap.usage().allocated, heap.usage().blocks), (0, 0));
        heap.check().unwrap();
        drop(heap);
        // SAFETY: usable memory of the space, which no heap has any more.
        unsafe { space.base().write_bytes(0, space.len()) };
    }
}

#[test]
fn the_check_finds_spans_of_another_shard_and_owners_of_none() {
    let heap = heap(8);
    let block = heap.core.take(layout(40), 3).unwrap();
    let large = heap.core.take(layout(2 * UNIT), 0).unwrap();
    heap.check().unwrap();
    for (place, wrong) in [(block, 3), (block, 0), (block, 99), (large, 1)] {
        let owner = &heap.core.unit(heap.core.unit_of(place)).owner;
        let right = owner.replace(wrong);
        let findings = heap.check().unwrap_err();
        assert!(
            findings.iter().any(|found| found.offset != 0),
            "{findings:?}"
        );
        owner.set(right);
        heap.check().unwrap();
    }
}
