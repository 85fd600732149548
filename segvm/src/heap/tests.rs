mod shards;
mod threads;

use std::{alloc::Layout, ptr::NonNull, slice, sync::Arc};

use proptest::prelude::*;

use super::{
    Heap, HeapError, HeapOptions, MemorySpace, RootType, Space, SpaceError, UNIT,
    core::Core,
    layout::{Class, MAX_SHARDS},
    threads::number,
};

const SEED: u64 = 7;

fn heap(units: usize) -> Heap {
    Heap::create(Box::new(MemorySpace::new(units * UNIT)), SEED).unwrap()
}

/// A heap with so many shards, in memory that outlives it.
fn heap_of(space: &Arc<MemorySpace>, shards: u32) -> Heap {
    let space = Box::new(Shared(Arc::clone(space)));
    Heap::over(Core::create(space, SEED, shards, HeapOptions::new()).unwrap())
}

fn of(size: usize, n: u8) -> RootType<'static> {
    RootType {
        layout: layout(size),
        fingerprint: [n; 32],
        described: b"three zeros",
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A space that outlives the heap, as a segment does.
struct Shared(Arc<MemorySpace>);

// SAFETY: forwards to a Space.
unsafe impl Space for Shared {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn reserved(&self) -> usize {
        self.0.reserved()
    }
    fn grow(&self, to: usize) -> Result<(), SpaceError> {
        self.0.grow(to)
    }
}

/// A block the model remembers, painted with a run of period 251 that begins with `paint`.
#[derive(Clone)]
struct Block {
    place: NonNull<u8>,
    layout: Layout,
    paint: usize,
}

// SAFETY: a block is whoever's has this value; a copy of one is only looked at when the original is gone.
unsafe impl Send for Block {}

impl Block {
    /// What the heap counts it as.
    fn allocated(&self) -> u64 {
        let size = match Class::of(self.layout) {
            Some(class) => class.size(),
            None => self.layout.size().next_multiple_of(UNIT),
        };
        size as u64
    }

    fn paint(&self) {
        // SAFETY: a live block of this length, known to this test only.
        let bytes = unsafe { slice::from_raw_parts_mut(self.place.as_ptr(), self.layout.size()) };
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from((self.paint + at) % 251).unwrap();
        }
    }

    fn is_painted(&self, len: usize) -> bool {
        // SAFETY: as above.
        let bytes = unsafe { slice::from_raw_parts(self.place.as_ptr(), len) };
        let mut expected = (self.paint..).map(|n| u8::try_from(n % 251).unwrap());
        bytes.iter().all(|&byte| Some(byte) == expected.next())
    }
}

#[derive(Debug, Clone)]
enum Op {
    Take {
        size: usize,
        align_log2: u32,
        thread: u32,
    },
    Give(prop::sample::Index),
    Resize(prop::sample::Index, usize),
    Reopen,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..300usize,
        4 => 300..20_000usize,
        2 => 20_000..400_000usize,
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (sizes(), 0..14u32, 0..6u32).prop_map(|(size, align_log2, thread)| {
            Op::Take { size, align_log2, thread }
        }),
        4 => any::<prop::sample::Index>().prop_map(Op::Give),
        3 => (any::<prop::sample::Index>(), sizes()).prop_map(|(at, size)| Op::Resize(at, size)),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..200)
}

/// Whether the heap has a place for this, by its own lists.
fn has_room(heap: &Heap, layout: Layout) -> bool {
    let usage = heap.usage();
    let longest = usage.largest_free.max(usage.reserved - usage.held);
    let Some(class) = Class::of(layout) else {
        return longest >= layout.size() as u64;
    };
    let mut shards = 0..heap.core.shards();
    longest >= UNIT as u64 || shards.any(|n| heap.core.shard(n).open_list(class).get() != 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_keep_their_bytes_and_never_overlap(ops in ops(), shards_log2 in 0..7u32, units in 20..400usize) {
        let space = Arc::new(MemorySpace::new(units * UNIT));
        let mut heap = heap_of(&space, 1 << shards_log2);
        // One shard in use by a thread that lives, the others by none.
        number();
        let mut blocks: Vec<Block> = Vec::new();
        for (paint, op) in ops.into_iter().enumerate() {
            match op {
                Op::Take { size, align_log2, thread } => {
                    let layout = Layout::from_size_align(size, 1 << align_log2).unwrap();
                    match heap.core.take(layout, thread) {
                        Ok(place) => {
                            prop_assert_eq!(place.addr().get() % layout.align(), 0);
                            let block = Block { place, layout, paint };
                            block.paint();
                            blocks.push(block);
                        }
                        // Whoever asks gets the last one, whosever shard has it.
                        Err(HeapError::OutOfMemory { .. }) => {
                            prop_assert!(!has_room(&heap, layout), "{:?}", heap.usage());
                        }
                        Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    }
                }
                Op::Give(at) if !blocks.is_empty() => {
                    let block = blocks.swap_remove(at.index(blocks.len()));
                    prop_assert!(block.is_painted(block.layout.size()));
                    // SAFETY: taken from this heap for this layout and forgotten here.
                    unsafe { heap.free(block.place, block.layout) };
                }
                Op::Resize(at, size) if !blocks.is_empty() => {
                    let at = at.index(blocks.len());
                    let block = &mut blocks[at];
                    // SAFETY: taken from this heap for this layout; only the answer is used afterwards.
                    let moved = unsafe { heap.reallocate(block.place, block.layout, size) };
                    if let Ok(place) = moved {
                        block.place = place;
                        prop_assert!(block.is_painted(size.min(block.layout.size())));
                        block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                        block.paint();
                    }
                }
                Op::Reopen => {
                    drop(heap);
                    heap = Heap::open(Box::new(Shared(Arc::clone(&space)))).unwrap();
                }
                Op::Give(_) | Op::Resize(..) => {}
            }
            if let Err(findings) = heap.check() {
                return Err(TestCaseError::fail(format!("{findings:?}")));
            }
            let (usage, allocated) = (heap.usage(), blocks.iter().map(Block::allocated).sum::<u64>());
            prop_assert_eq!((usage.allocated, usage.blocks), (allocated, blocks.len() as u64));
        }
        // Painting finds overlaps: each block was painted after its neighbours and none has changed.
        for block in &blocks {
            prop_assert!(block.is_painted(block.layout.size()));
        }
        for block in blocks {
            // SAFETY: taken from this heap for this layout.
            unsafe { heap.free(block.place, block.layout) };
        }
        let usage = heap.usage();
        prop_assert_eq!((usage.allocated, usage.blocks), (0, 0));
        prop_assert!(heap.check().is_ok());
    }
}

#[test]
fn a_full_heap_says_how_much_was_reserved_and_goes_on() {
    let heap = heap(8);
    let mut blocks = Vec::new();
    let error = loop {
        match heap.allocate(layout(UNIT)) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, HeapError::OutOfMemory { reserved, .. } if reserved == 8 * UNIT));
    assert_eq!(blocks.len(), 7);
    // SAFETY: taken above for this layout.
    unsafe { heap.free(blocks[3], layout(UNIT)) };
    assert_eq!(heap.usage().largest_free, UNIT as u64);
    assert_eq!(heap.allocate(layout(UNIT)).unwrap(), blocks[3]);
    heap.check().unwrap();
}

#[test]
fn what_is_no_heap_is_refused() {
    let space = Arc::new(MemorySpace::new(8 * UNIT));
    let open = || Heap::open(Box::new(Shared(Arc::clone(&space))));
    assert!(matches!(open(), Err(HeapError::Truncated { .. })));
    space.grow(UNIT).unwrap();
    assert!(matches!(open(), Err(HeapError::NotAHeap { .. })));
    drop(Heap::create(Box::new(Shared(Arc::clone(&space))), SEED).unwrap());
    open().unwrap();
    // SAFETY: within the header, which nobody looks at meanwhile.
    let version = unsafe { space.base().byte_add(8) };
    for bad in [0, 3, 2 * MAX_SHARDS, u32::MAX] {
        // SAFETY: the number of shards, which follows.
        let shards = unsafe { version.byte_add(4) };
        // SAFETY: as above, and aligned.
        unsafe { shards.cast::<u32>().write(bad) };
        assert!(matches!(open(), Err(HeapError::Shards { found, .. }) if found == bad));
    }
    // SAFETY: as above, and aligned.
    unsafe { version.cast::<u32>().write(99) };
    assert!(matches!(open(), Err(HeapError::Version { found: 99, .. })));
}

#[test]
#[should_panic(expected = "freed twice")]
fn freeing_twice_is_noticed() {
    let heap = heap(8);
    let block = heap.allocate(layout(40)).unwrap();
    let _other = heap.allocate(layout(40)).unwrap();
    // SAFETY: taken above for this layout.
    unsafe { heap.free(block, layout(40)) };
    // SAFETY: none: this is the mistake that the heap must notice before it harms.
    unsafe { heap.free(block, layout(40)) };
}

#[test]
fn the_check_finds_a_write_after_free() {
    let heap = heap(8);
    let block = heap.allocate(layout(40)).unwrap();
    let _other = heap.allocate(layout(40)).unwrap();
    // SAFETY: taken above for this layout.
    unsafe { heap.free(block, layout(40)) };
    heap.check().unwrap();
    // SAFETY: the memory is still mapped; writing to it is the mistake that is looked for.
    unsafe { block.cast::<u64>().write(0x1234) };
    let findings = heap.check().unwrap_err();
    assert!(
        findings
            .iter()
            .any(|found| found.what.contains("written after free"))
    );
}

#[test]
fn roots_are_found_by_name_and_survive_reopening() {
    let space = Arc::new(MemorySpace::new(64 * UNIT));
    let heap = Heap::create(Box::new(Shared(Arc::clone(&space))), SEED).unwrap();
    let name = |n: u8| format!("root-{n}");
    for n in 0..40 {
        let root = heap.root_or_new(&name(n), of(24, n)).unwrap();
        // SAFETY: 24 bytes for three zeros; the first is written.
        unsafe { root.place.cast::<u64>().write(u64::from(n)) };
    }
    drop(heap);
    let heap = Heap::open(Box::new(Shared(Arc::clone(&space)))).unwrap();
    for n in 0..40 {
        let root = heap.root_or_new(&name(n), of(24, 0)).unwrap();
        assert_eq!((root.schema, root.layout), ([n; 32], layout(24)));
        assert_eq!(heap.root_described(&name(n)).unwrap(), b"three zeros");
        // SAFETY: written above.
        let value = unsafe { root.place.cast::<[u64; 3]>().read() };
        assert_eq!(value, [u64::from(n), 0, 0]);
    }
    assert_eq!(heap.root_names().len(), 40);
    heap.check().unwrap();
    for bad in ["", "a\0b", &"x".repeat(65)] {
        let refused = heap.root_or_new(bad, of(8, 0));
        assert!(matches!(refused, Err(HeapError::RootName { .. })));
    }
}
