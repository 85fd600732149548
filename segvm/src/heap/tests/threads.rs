//! Many threads, one heap.

use std::{
    alloc::Layout,
    slice,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Block, MemorySpace, SEED, Shared, UNIT, heap_of, layout, of};
use crate::{
    gate::{Closing, Gate, Kind},
    heap::{Heap, Space as _, layout::Class},
};

/// Numbers by Weyl's sequence and a mixer: seeded, so that one seed takes one way.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 33) as usize % bound
    }

    fn layout(&mut self) -> Layout {
        let size = match self.below(100) {
            0 => 20_000 + self.below(200_000),
            1..8 => 300 + self.below(16_000),
            _ => 1 + self.below(300),
        };
        Layout::from_size_align(size, 1 << self.below(7)).unwrap()
    }

    /// Takes, gives or resizes one block of `blocks`, and sees that it is as it was painted.
    fn step(&mut self, heap: &Heap, blocks: &mut Vec<Block>) {
        let paint = self.below(251);
        if blocks.len() < 5 || (blocks.len() < 400 && self.below(2) == 0) {
            let layout = self.layout();
            let place = heap.allocate(layout).unwrap();
            let block = Block {
                place,
                layout,
                paint,
            };
            block.paint();
            return blocks.push(block);
        }
        let at = self.below(blocks.len());
        if self.below(8) == 0 {
            let (block, size) = (&mut blocks[at], self.layout().size());
            // SAFETY: taken from this heap for this layout; only the answer is used afterwards.
            block.place = unsafe { heap.reallocate(block.place, block.layout, size) }.unwrap();
            assert!(block.is_painted(size.min(block.layout.size())));
            block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
            block.paint();
        } else {
            give(heap, blocks.swap_remove(at));
        }
    }
}

fn give(heap: &Heap, block: Block) {
    assert!(block.is_painted(block.layout.size()), "overwritten");
    // SAFETY: taken from this heap for this layout, and forgotten here.
    unsafe { heap.free(block.place, block.layout) };
}

fn totals<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> (u64, u64) {
    let sums = |(bytes, n), block: &Block| (bytes + block.allocated(), n + 1);
    blocks.into_iter().fold((0, 0), sums)
}

fn usage(heap: &Heap) -> (u64, u64) {
    (heap.usage().allocated, heap.usage().blocks)
}

/// Threads come and go, and leave their blocks to the next: so shards are left, and spans change hands.
fn hammer(shards: u32) {
    let space = Arc::new(MemorySpace::new(2000 * UNIT));
    let heap = heap_of(&space, shards);
    let heap = &heap;
    let mut left: Vec<Vec<Block>> = vec![Vec::new(); 4];
    for round in 0..12 {
        // From the second round on, threads of different numbers.
        let threads = 2 + round % 3;
        left = thread::scope(|scope| {
            let mut shares = left.into_iter();
            let workers: Vec<_> = (0..threads)
                .map(|worker| {
                    let mut blocks = shares.next().unwrap();
                    scope.spawn(move || {
                        let mut numbers = Numbers(round * 10 + worker);
                        for _ in 0..3000 {
                            numbers.step(heap, &mut blocks);
                        }
                        blocks
                    })
                })
                .collect();
            // While they run: a check takes all locks, so it finds everything at rest.
            heap.check().unwrap();
            let mut left: Vec<_> = workers.into_iter().map(|w| w.join().unwrap()).collect();
            left.extend(shares);
            left.rotate_left(1);
            left
        });
        heap.check().unwrap();
        assert_eq!(usage(heap), totals(left.iter().flatten()));
    }
    for block in left.into_iter().flatten() {
        give(heap, block);
    }
    assert_eq!(usage(heap), (0, 0));
    heap.check().unwrap();
}

#[test]
fn threads_that_come_and_go_leave_a_whole_heap() {
    hammer(32);
}

#[test]
fn more_threads_than_shards_leave_a_whole_heap() {
    hammer(2);
}

#[test]
fn what_one_thread_takes_another_may_give_and_the_heap_does_not_grow() {
    let space = Arc::new(MemorySpace::new(2000 * UNIT));
    let heap = heap_of(&space, 32);
    let heap = &heap;
    let mut held = 0;
    for round in 0..6 {
        let (send, receive) = mpsc::sync_channel::<Block>(500);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut numbers = Numbers(round);
                for paint in 0..20_000 {
                    let layout = layout(1 + numbers.below(500));
                    let place = heap.allocate(layout).unwrap();
                    let block = Block {
                        place,
                        layout,
                        paint,
                    };
                    block.paint();
                    send.send(block).unwrap();
                }
            });
            scope.spawn(move || receive.into_iter().for_each(|block| give(heap, block)));
        });
        heap.check().unwrap();
        assert_eq!(usage(heap), (0, 0));
        if round == 0 {
            held = heap.usage().held;
        }
    }
    // At most one span of each class that was not there before, in the shards of two threads.
    let more = heap.usage().held.saturating_sub(held);
    assert!(more <= 2 * 36 * UNIT as u64, "{held} and {more} more");
}

/// A span that is taken over while one of its objects is given back: the giver looks up the owner without a lock.
#[test]
fn spans_change_hands_while_their_objects_are_given_back() {
    let space = Arc::new(MemorySpace::new(2000 * UNIT));
    let heap = heap_of(&space, 2);
    let heap = &heap;
    let layout = layout(4000);
    for _ in 0..300 {
        let blocks: Vec<_> = (0..256)
            .map(|_| heap.core.take(layout, 0).unwrap())
            .collect();
        let places: Vec<u64> = blocks.iter().map(|b| b.addr().get() as u64).collect();
        let start = Barrier::new(2);
        let start = &start;
        thread::scope(|scope| {
            scope.spawn(move || {
                start.wait();
                for &place in &places {
                    heap.core.give(heap.core.place(place), layout);
                }
            });
            scope.spawn(move || {
                start.wait();
                // Takes over what the other one opens, as there is nothing in its own shard.
                let taken: Vec<_> = (0..300)
                    .map(|_| heap.core.take(layout, 1).unwrap())
                    .collect();
                for block in taken {
                    heap.core.give(block, layout);
                }
            });
        });
        heap.check().unwrap();
        assert_eq!(usage(heap), (0, 0));
    }
}

#[test]
fn one_root_is_made_whoever_asks_first() {
    let space = Arc::new(MemorySpace::new(64 * UNIT));
    let heap = heap_of(&space, 32);
    let (heap, start) = (&heap, &Barrier::new(4));
    for n in 0..50 {
        let name = format!("root-{n}");
        let places: Vec<usize> = thread::scope(|scope| {
            let ask = || {
                start.wait();
                let root = heap.root_or_new(&name, of(24, 7)).unwrap();
                root.place.addr().get()
            };
            let askers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            askers.into_iter().map(|a| a.join().unwrap()).collect()
        });
        assert!(places.iter().all(|&place| place == places[0]));
    }
    assert_eq!(heap.root_names().len(), 50);
    heap.check().unwrap();
}

/// A giver looks up the owner without a lock, and the span changes hands before it gets that owner's lock.
#[test]
fn a_giver_who_waited_gives_to_the_new_owner() {
    let space = Arc::new(MemorySpace::new(64 * UNIT));
    let heap = heap_of(&space, 2);
    let (core, layout) = (&heap.core, layout(4000));
    let class = Class::of(layout).unwrap();
    let block = core.take(layout, 0).unwrap();
    let at = core.unit_of(block);
    thread::scope(|scope| {
        let (from, to) = (core.shard(0), core.shard(1));
        let (about_to, is_about_to) = mpsc::channel();
        let place = block.addr().get() as u64;
        scope.spawn(move || {
            about_to.send(()).unwrap();
            core.give(core.place(place), layout);
        });
        is_about_to.recv().unwrap();
        // It cannot be seen waiting for a lock. If it is late, the test shows less and still passes.
        for _ in 0..1000 {
            thread::yield_now();
        }
        to.adopt(&from, class, at);
        // Full, so that the giver is the one who lists it.
        while to.take(class).is_some() {}
    });
    assert_eq!(core.shard(1).open_list(class).get(), at);
    heap.check().unwrap();
}

/// Tells threads to end when the test does, also when it fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What a checkpoint sees: the bytes at an instant at which the gate was closed, and what the threads had then.
struct Instant {
    bytes: Vec<u8>,
    blocks: Vec<Block>,
}

#[test]
fn whenever_the_gate_is_closed_the_bytes_are_a_whole_heap() {
    let space = Arc::new(MemorySpace::new(2000 * UNIT));
    let heap = heap_of(&space, 32);
    let gate = Gate::new();
    let label = gate.label("blocks");
    let held: Vec<Mutex<Vec<Block>>> = (0..3).map(|_| Mutex::default()).collect();
    let (mut instants, finish) = (Vec::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (heap, gate, finish) = (&heap, &gate, &finish);
        let _over = Finish(finish);
        for (seed, own) in held.iter().enumerate() {
            scope.spawn(move || {
                let mut numbers = Numbers(seed as u64);
                while !finish.load(Relaxed) {
                    let pass = gate.enter(Kind::Write, label).unwrap();
                    let mut own = own.lock().unwrap();
                    for _ in 0..20 {
                        numbers.step(heap, &mut own);
                    }
                    drop((own, pass));
                }
            });
        }
        for _ in 0..24 {
            let before = usage(heap);
            while usage(heap) == before {
                thread::yield_now();
            }
            let closed = gate
                .close(Closing::Writers, Duration::from_secs(60))
                .unwrap();
            instants.push(Instant {
                // SAFETY: usable memory, and nobody writes while the gate is closed.
                bytes: unsafe { slice::from_raw_parts(space.base().as_ptr(), space.len()) }
                    .to_vec(),
                blocks: held
                    .iter()
                    .flat_map(|own| own.lock().unwrap().clone())
                    .collect(),
            });
            drop(closed);
        }
    });
    drop(heap);
    for Instant { bytes, blocks } in instants {
        // The next process: these bytes at this address, and zeros behind.
        // SAFETY: usable memory of the space, which no heap has any more.
        unsafe { space.base().write_bytes(0, space.len()) };
        // SAFETY: as above; the copy is at most as long.
        unsafe {
            space
                .base()
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        let heap = Heap::open(Box::new(Shared(Arc::clone(&space)))).unwrap();
        heap.check().unwrap();
        assert_eq!((usage(&heap), heap.seed()), (totals(&blocks), SEED));
        // It goes on: nothing that was free is lost, nothing that was taken is given twice.
        let more: Vec<_> = (0..2000)
            .map(|_| heap.allocate(layout(40)).unwrap())
            .collect();
        for block in blocks {
            give(&heap, block);
        }
        for block in more {
            heap.core.give(block, layout(40));
        }
        assert_eq!(usage(&heap), (0, 0));
        heap.core.give_empty_spans();
        assert_eq!(heap.usage().free, 0, "empty units below the top");
        heap.check().unwrap();
    }
}
