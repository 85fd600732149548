//! The allocator: the same load over ours and malloc.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::NonNull,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use segvm::heap::{Heap, MemorySpace};

use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, ns_each},
    ours::ours,
    rng::Rng,
};

/// Allocations alive at a time, per thread.
const LIVE: usize = 100_000;
/// Allocations and releases in a sample, per thread.
const OPERATIONS: usize = 2_000_000;

/// An allocator under load.
trait Allocator: Sync {
    /// Gives memory, or `None` when there is none left.
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `memory` came from `allocate` of this allocator with this layout, and is not used again.
    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout);
}

impl Allocator for System {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout of the load has size 0.
        NonNull::new(unsafe { self.alloc(layout) })
    }

    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's word, which is the same.
        unsafe { self.dealloc(memory.as_ptr(), layout) };
    }
}

impl Allocator for Heap {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate(layout).ok()
    }

    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's word, which is the same.
        unsafe { self.free(memory, layout) };
    }
}

pub(super) fn one_thread(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_malloc(ctx, 1)
}

pub(super) fn two_threads(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_malloc(ctx, 2)
}

fn against_malloc(ctx: &Ctx, threads: usize) -> Result<Measured, BenchError> {
    // The heap over plain memory: what tracking costs is in the rows of `write`.
    let heap = Heap::create(Box::new(MemorySpace::new(1 << 30)), 24).map_err(ours)?;
    let ours = Side::run(|| Ok(vec![ns_each(load(&heap, threads), OPERATIONS)]));
    let other = Side::run(|| Ok(vec![ns_each(load(&System, threads), OPERATIONS)]));
    Ok(alternate(ctx.times(11), ours, other))
}

/// The longest that a thread took for its share.
fn load(allocator: &impl Allocator, threads: usize) -> Duration {
    let start = Barrier::new(threads);
    let start = &start;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|seed| scope.spawn(move || work(allocator, seed as u64, start)))
            .collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .max()
            .unwrap_or_default()
    })
}

/// Fills and empties random slots: mostly small things, now and then one of a page or two.
fn work(allocator: &impl Allocator, seed: u64, start: &Barrier) -> Duration {
    let mut rng = Rng::new(seed);
    let mut slots: Vec<Option<(NonNull<u8>, Layout)>> = vec![None; LIVE];
    start.wait();
    let begun = Instant::now();
    for _ in 0..OPERATIONS {
        let at = rng.below(LIVE);
        let layout = layout(&mut rng);
        let Some(slot) = slots.get_mut(at) else {
            continue;
        };
        match slot.take() {
            // SAFETY: allocated below with that layout, and the slot forgot it.
            Some((memory, layout)) => unsafe { allocator.release(memory, layout) },
            None => {
                *slot = allocator.allocate(layout).map(|memory| {
                    // SAFETY: at least 8 bytes, aligned to 8, ours alone.
                    unsafe { memory.cast::<u64>().write(seed) };
                    (memory, layout)
                });
            }
        }
    }
    let took = begun.elapsed();
    for (memory, layout) in slots.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { allocator.release(memory, layout) };
    }
    took
}

fn layout(rng: &mut Rng) -> Layout {
    let words = match rng.below(100) {
        0 => 128 + rng.below(896),
        1..10 => 16 + rng.below(112),
        _ => 1 + rng.below(16),
    };
    Layout::array::<u64>(words).unwrap_or(Layout::new::<u64>())
}
