//! Maps of a million entries.

use std::{cell::Cell, collections, hint::black_box, sync::Arc, time::Instant};

use segvm::{
    collections::{BTreeMap, BTreeMapMut, HashMap, HashMapMut, Seed},
    gate::Gate,
    heap::{Heap, MemorySpace},
    root::{HeapShared, Root},
};

use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Sample, Side, alternate, ns_each},
    ours::ours,
    rng::Rng,
};

/// Entries of a map.
const ENTRIES: usize = 1_000_000;

/// Both hash tables hash with the hasher of segvm's format, seeded alike.
type Hashbrown = hashbrown::HashMap<u64, u64, Seed>;

/// What can be inserted into.
trait Insert {
    fn insert(&mut self, key: u64, value: u64);
}

/// What can be looked up in.
trait LookUp {
    fn get(&self, key: u64) -> Option<u64>;
}

macro_rules! insert {
    ($($map:ty),*) => {$(
        impl Insert for $map {
            fn insert(&mut self, key: u64, value: u64) {
                let _ = self.insert(key, value);
            }
        }
    )*};
}
insert!(Hashbrown, collections::BTreeMap<u64, u64>, HashMapMut<'_, u64, u64>, BTreeMapMut<'_, u64, u64>);

macro_rules! look_up {
    ($($map:ty),*) => {$(
        impl LookUp for $map {
            fn get(&self, key: u64) -> Option<u64> {
                self.get(&key).copied()
            }
        }
    )*};
}
look_up!(Hashbrown, collections::BTreeMap<u64, u64>, HashMap<u64, u64>, BTreeMap<u64, u64>);

pub(super) fn hashmap_insert(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (keys, heap, fresh) = (keys(), heap()?, Cell::new(0));
    let ours = Side::run(|| {
        let root: Root<HashMap<u64, u64>> = next_root(&heap, &fresh)?;
        let mut guard = root.write();
        let mut map = guard.as_mut();
        let sample = insert_all(&mut map, &keys);
        map.clear();
        map.shrink_to_fit();
        Ok(sample)
    });
    let other = Side::run(|| Ok(insert_all(&mut Hashbrown::with_hasher(Seed(1)), &keys)));
    Ok(alternate(ctx.times(11), ours, other))
}

pub(super) fn hashmap_lookup(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (mut keys, heap) = (keys(), heap()?);
    let root: Root<HashMap<u64, u64>> = heap.root("map").map_err(ours)?;
    insert_all(&mut root.write().as_mut(), &keys);
    let mut other = Hashbrown::with_hasher(Seed(1));
    insert_all(&mut other, &keys);
    shuffle(&mut keys);
    let map = root.read();
    let ours = Side::run(|| Ok(look_up_all(&*map, &keys)));
    let other = Side::run(|| Ok(look_up_all(&other, &keys)));
    Ok(alternate(ctx.times(11), ours, other))
}

pub(super) fn btreemap_insert(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (keys, heap, fresh) = (keys(), heap()?, Cell::new(0));
    let ours = Side::run(|| {
        let root: Root<BTreeMap<u64, u64>> = next_root(&heap, &fresh)?;
        let mut guard = root.write();
        let mut map = guard.as_mut();
        let sample = insert_all(&mut map, &keys);
        map.clear();
        Ok(sample)
    });
    let other = Side::run(|| Ok(insert_all(&mut collections::BTreeMap::new(), &keys)));
    Ok(alternate(ctx.times(11), ours, other))
}

pub(super) fn btreemap_lookup(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (mut keys, heap) = (keys(), heap()?);
    let root: Root<BTreeMap<u64, u64>> = heap.root("map").map_err(ours)?;
    insert_all(&mut root.write().as_mut(), &keys);
    let mut other = collections::BTreeMap::new();
    insert_all(&mut other, &keys);
    shuffle(&mut keys);
    let map = root.read();
    let ours = Side::run(|| Ok(look_up_all(&*map, &keys)));
    let other = Side::run(|| Ok(look_up_all(&other, &keys)));
    Ok(alternate(ctx.times(11), ours, other))
}

/// A heap over plain memory: what tracking costs is in the rows of `write`.
fn heap() -> Result<Arc<HeapShared>, BenchError> {
    let heap = Heap::create(Box::new(MemorySpace::new(1 << 30)), 31).map_err(ours)?;
    Ok(HeapShared::new(
        heap,
        Gate::new(),
        "bench".to_owned(),
        "heap".to_owned(),
    ))
}

/// A root that no sample had before: an empty map that grows from nothing.
fn next_root<T: segvm::persist::Persist>(
    heap: &Arc<HeapShared>,
    fresh: &Cell<u32>,
) -> Result<Root<T>, BenchError> {
    fresh.set(fresh.get() + 1);
    heap.root(&format!("map {}", fresh.get())).map_err(ours)
}

/// Nanoseconds an insertion, growth included.
fn insert_all(map: &mut impl Insert, keys: &[u64]) -> Sample {
    let begun = Instant::now();
    for key in keys {
        map.insert(*key, key >> 1);
    }
    vec![ns_each(begun.elapsed(), keys.len())]
}

/// Nanoseconds a look-up.
fn look_up_all(map: &impl LookUp, keys: &[u64]) -> Sample {
    let begun = Instant::now();
    let mut sum = 0_u64;
    for key in keys {
        sum = sum.wrapping_add(map.get(*key).unwrap_or_default());
    }
    black_box(sum);
    vec![ns_each(begun.elapsed(), keys.len())]
}

/// Distinct (the generator is a bijection of its counter) and in no order.
fn keys() -> Vec<u64> {
    let mut keys = vec![0; ENTRIES];
    Rng::new(18).fill(&mut keys);
    keys
}

fn shuffle(keys: &mut [u64]) {
    let mut rng = Rng::new(19);
    for at in (1..keys.len()).rev() {
        keys.swap(at, rng.below(at + 1));
    }
}
