//! The collections against std's, operation for operation; and nothing is left in the heap when they are cleared.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::{
    collections::{BTreeMap as StdTree, HashMap as StdMap},
    fmt::Write as _,
    sync::Arc,
};

use proptest::prelude::*;
use segvm::{
    collections::{BTreeMap, Box, HashMap, Lookup, Seed, Text, Vec},
    gate::Gate,
    heap::{Heap, MemorySpace},
    persist::{Maybe, Persist},
    root::{HeapShared, Root},
};

type StdVec<T> = std::vec::Vec<T>;

fn shared() -> Arc<HeapShared> {
    let heap = Heap::create(std::boxed::Box::new(MemorySpace::new(64 << 20)), 7).unwrap();
    HeapShared::new(heap, Gate::new(), "test".into(), "main".into())
}

fn root<T: Persist>(shared: &Arc<HeapShared>) -> Root<T> {
    shared.root("it").unwrap()
}

#[derive(Persist)]
#[repr(C)]
struct Notes {
    by_title: HashMap<Text, Text>,
    opened: u64,
    tags: Vec<Text>,
    lists: HashMap<u32, Vec<u64>>,
    tree: Box<Node>,
    newest: Maybe<Text>,
}

#[derive(Persist)]
#[repr(C)]
struct Node {
    name: Text,
    left: Box<Node>,
    right: Box<Node>,
}

#[test]
fn a_struct_of_collections_reads_as_it_was_written() {
    let shared = shared();
    let notes: Root<Notes> = root(&shared);
    let empty = shared.heap().usage();
    {
        let mut guard = notes.write();
        let mut notes = guard.as_mut();
        *notes.opened += 1;
        assert!(notes.by_title.insert("one", "first"));
        assert!(!notes.by_title.insert(String::from("one"), "again"));
        notes.by_title.entry("two").or_default().push_str("second");
        notes.by_title.get_mut("two").unwrap().push('!');
        notes.tags.extend(["a", "b", "c"]);
        notes.tags.insert(1, "between");
        notes
            .lists
            .entry(7)
            .or_default()
            .extend_from_slice(&[1, 2, 3]);
        notes.lists.insert(8, [4u64, 5]);
        notes.newest.set("two");
        let mut tree = notes.tree.get_or_default();
        tree.name.set("root");
        tree.left.get_or_default().name.set("left");
    }
    let guard = notes.read();
    assert_eq!(guard.opened, 1);
    assert_eq!(guard.by_title.get("one").unwrap(), "again");
    assert_eq!(guard.by_title.get("two").unwrap().to_string(), "second!");
    assert_eq!(
        guard
            .tags
            .iter()
            .map(|tag| tag.as_str())
            .collect::<StdVec<_>>(),
        ["a", "between", "b", "c"]
    );
    assert_eq!(guard.lists.get(&7).unwrap().as_slice(), [1, 2, 3]);
    assert_eq!(guard.lists.get(&8).unwrap().as_slice(), [4, 5]);
    assert_eq!(guard.newest.get().unwrap(), "two");
    let tree = guard.tree.get().unwrap();
    assert_eq!(
        (tree.name.as_str(), tree.left.get().unwrap().name.as_str()),
        ("root", "left")
    );
    assert!(tree.right.is_empty());
    drop(guard);

    let mut guard = notes.write();
    let mut notes = guard.as_mut();
    notes.by_title.clear();
    notes.by_title.shrink_to_fit();
    notes.tags.clear();
    notes.tags.shrink_to_fit();
    notes.lists.retain(|_, _| false);
    notes.lists.shrink_to_fit();
    notes.tree.clear();
    notes.newest.clear();
    let usage = shared.heap().usage();
    assert_eq!(
        (usage.allocated, usage.blocks),
        (empty.allocated, empty.blocks)
    );
    shared.heap().check().unwrap();
}

#[derive(Debug, Clone)]
enum MapOp {
    Insert(u64, u64),
    Remove(u64),
    Add(u64),
    Retain(u64),
    Shrink,
    Clear,
}

fn map_ops() -> impl Strategy<Value = StdVec<MapOp>> {
    // Few keys, so that removals hit and tombstones gather.
    let key = || prop_oneof![0..40u64, 0..1000u64];
    let op = prop_oneof![
        12 => (key(), any::<u64>()).prop_map(|(key, value)| MapOp::Insert(key, value)),
        9 => key().prop_map(MapOp::Remove),
        4 => key().prop_map(MapOp::Add),
        1 => (2..5u64).prop_map(MapOp::Retain),
        1 => Just(MapOp::Shrink),
        1 => Just(MapOp::Clear),
    ];
    prop::collection::vec(op, 1..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hash_map_is_std_s(ops in map_ops()) {
        let shared = shared();
        let root: Root<HashMap<u64, u64>> = root(&shared);
        let mut guard = root.write();
        let mut map = guard.as_mut();
        let mut twin = StdMap::new();
        for op in ops {
            match op {
                MapOp::Insert(key, value) => {
                    prop_assert_eq!(map.insert(key, value), twin.insert(key, value).is_none());
                }
                MapOp::Remove(key) => prop_assert_eq!(map.take(&key), twin.remove(&key)),
                MapOp::Add(key) => {
                    let value = map.entry(key).or_default();
                    *value = value.wrapping_add(1);
                    let value = twin.entry(key).or_default();
                    *value = value.wrapping_add(1);
                }
                MapOp::Retain(by) => {
                    map.retain(|key, _| key % by != 0);
                    twin.retain(|key, _| key % by != 0);
                }
                MapOp::Shrink => map.shrink_to_fit(),
                MapOp::Clear => {
                    map.clear();
                    twin.clear();
                }
            }
            prop_assert_eq!(map.len(), twin.len());
        }
        for key in 0..1000 {
            prop_assert_eq!(map.get(&key), twin.get(&key));
        }
        let all: StdMap<u64, u64> = map.iter().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(all, twin);
        prop_assert!(shared.heap().check().is_ok());
    }

    #[test]
    fn texts_as_keys_and_values_free_all_they_took(
        words in prop::collection::vec(("[a-z]{0,40}", "\\PC{0,60}"), 0..200),
    ) {
        let shared = shared();
        let root: Root<HashMap<Text, Text>> = root(&shared);
        let before = shared.heap().usage();
        let mut guard = root.write();
        let mut map = guard.as_mut();
        let mut twin = StdMap::new();
        for (key, value) in &words {
            map.insert(key, value);
            twin.insert(key.clone(), value.clone());
        }
        prop_assert_eq!(map.len(), twin.len());
        for (key, value) in &twin {
            prop_assert_eq!(map.get(key.as_str()).map(Text::as_str), Some(value.as_str()));
        }
        for (key, _) in &words {
            prop_assert_eq!(map.remove(key.as_str()), twin.remove(key).is_some());
        }
        map.shrink_to_fit();
        let after = shared.heap().usage();
        prop_assert_eq!((after.allocated, after.blocks), (before.allocated, before.blocks));
    }

    #[test]
    fn a_vector_is_std_s(ops in prop::collection::vec((0..8u8, any::<usize>(), any::<u32>()), 1..300)) {
        let shared = shared();
        let root: Root<Vec<u32>> = root(&shared);
        let mut guard = root.write();
        let mut vec = guard.as_mut();
        let mut twin = StdVec::new();
        for (op, at, value) in ops {
            let at = at % (twin.len() + 1);
            match op {
                0 | 1 => {
                    vec.push(value);
                    twin.push(value);
                }
                2 => prop_assert_eq!(vec.pop(), twin.pop()),
                3 => {
                    vec.insert(at, value);
                    twin.insert(at, value);
                }
                4 if at < twin.len() => prop_assert_eq!(vec.remove(at), twin.remove(at)),
                5 => {
                    vec.extend_from_slice(&[value; 5]);
                    twin.extend_from_slice(&[value; 5]);
                }
                6 => {
                    vec.retain(|v| v % 3 != value % 3);
                    twin.retain(|v| v % 3 != value % 3);
                }
                _ => {
                    vec.truncate(at);
                    twin.truncate(at);
                    vec.shrink_to_fit();
                }
            }
            prop_assert_eq!(vec.as_slice(), twin.as_slice());
        }
    }
}

#[test]
fn write_and_truncate_keep_text_utf_8() {
    let shared = shared();
    let root: Root<Text> = root(&shared);
    let mut guard = root.write();
    let mut text = guard.as_mut();
    write!(text, "grün-{}", 7).unwrap();
    assert_eq!(&*text, &"grün-7");
    text.truncate(4);
    assert_eq!(&*text, &"grü");
    let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| text.truncate(3)));
    assert!(cut.is_err());
    assert_eq!(&*text, &"grü");
}

#[test]
fn a_full_heap_is_named_and_the_value_stays_whole() {
    let heap = Heap::create(std::boxed::Box::new(MemorySpace::new(4 << 20)), 7).unwrap();
    let shared = HeapShared::new(heap, Gate::new(), "test".into(), "main".into());
    let root: Root<HashMap<u64, Vec<u64>>> = root(&shared);
    let mut guard = root.write();
    let mut map = guard.as_mut();
    map.insert(1, [1u64, 2, 3]);
    let big = vec![0u64; 1 << 20];
    let full = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| map.insert(1, big)));
    let message = *full.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("4194304 bytes reserved"), "{message}");
    assert_eq!(map.get(&1).unwrap().as_slice(), [1, 2, 3]);
    shared.heap().check().unwrap();
}

#[derive(Persist, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
#[persist(key)]
enum Side {
    West = -1,
    Middle,
    East,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
#[persist(plain, key)]
struct Tile(i32, i32);

#[derive(Persist, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
#[persist(plain, key)]
struct Cell {
    side: Side,
    tile: Tile,
    layer: [u8; 3],
}

#[derive(Persist)]
#[repr(C)]
struct Cells {
    hashed: HashMap<Cell, u64>,
    ordered: BTreeMap<Cell, u64>,
}

fn cell() -> impl Strategy<Value = Cell> {
    let side = prop::sample::select(vec![Side::West, Side::Middle, Side::East]);
    (side, -2..2_i32, -2..2_i32, any::<bool>()).prop_map(|(side, x, y, top)| Cell {
        side,
        tile: Tile(x, y),
        layer: [0, u8::from(top), 7],
    })
}

proptest! {
    #[test]
    fn derived_keys_are_found_and_ordered_as_std_s(
        ops in prop::collection::vec((any::<bool>(), cell(), any::<u64>()), 1..200),
    ) {
        let shared = shared();
        let cells: Root<Cells> = root(&shared);
        let mut guard = cells.write();
        let mut cells = guard.as_mut();
        let mut twin = StdTree::new();
        for (insert, key, value) in ops {
            if insert {
                let new = twin.insert(key, value).is_none();
                prop_assert_eq!(cells.hashed.insert(key, value), new);
                prop_assert_eq!(cells.ordered.insert(key, value), new);
            } else {
                let was = twin.remove(&key);
                prop_assert_eq!(cells.hashed.take(&key), was);
                prop_assert_eq!(cells.ordered.take(&key), was);
            }
        }
        prop_assert!(cells.ordered.iter().eq(&twin));
        prop_assert_eq!(cells.hashed.len(), twin.len());
        for (key, value) in &twin {
            prop_assert_eq!(cells.hashed.get(key), Some(value));
        }
    }
}

/// A table that this build made is searched by the next: by this rule, written out.
#[test]
fn a_derived_key_is_hashed_field_by_field() {
    let cell = Cell {
        side: Side::West,
        tile: Tile(3, -4),
        layer: [1, 2, 3],
    };
    let mut state = 11;
    for number in [-1_i64, 3, -4, 1, 2, 3] {
        state = Seed(state).of_number(number.cast_unsigned());
    }
    assert_eq!(Lookup::hash(&cell, Seed(11)), state);
}
