//! Maps of a million entries.

use std::{
    collections::BTreeMap,
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    time::Instant,
};

use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, ns_each},
    rng::Rng,
};

/// Why our maps are not measured.
const NO_MAPS: &str = "segvm's maps have no row here in this version";

/// Entries at full scale.
const ENTRIES: usize = 1_000_000;

/// The hasher of both sides: a multiplication and a fold, so that the maps are measured and not the hash.
#[derive(Debug, Default)]
struct Fold {
    state: u64,
}

type SameHasher = BuildHasherDefault<Fold>;

impl Hasher for Fold {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the product are what is wanted"
    )]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.state = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// What the rows ask of a map.
trait Map {
    fn insert(&mut self, key: u64, value: u64);
    fn get(&self, key: u64) -> Option<u64>;
}

impl Map for hashbrown::HashMap<u64, u64, SameHasher> {
    fn insert(&mut self, key: u64, value: u64) {
        let _ = self.insert(key, value);
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key).copied()
    }
}

impl Map for BTreeMap<u64, u64> {
    fn insert(&mut self, key: u64, value: u64) {
        let _ = self.insert(key, value);
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key).copied()
    }
}

pub(super) fn hashmap_insert(ctx: &Ctx) -> Result<Measured, BenchError> {
    insert_row(ctx, hashbrown::HashMap::<_, _, SameHasher>::default)
}

pub(super) fn hashmap_lookup(ctx: &Ctx) -> Result<Measured, BenchError> {
    lookup_row(ctx, hashbrown::HashMap::<_, _, SameHasher>::default())
}

pub(super) fn btreemap_insert(ctx: &Ctx) -> Result<Measured, BenchError> {
    insert_row(ctx, BTreeMap::new)
}

pub(super) fn btreemap_lookup(ctx: &Ctx) -> Result<Measured, BenchError> {
    lookup_row(ctx, BTreeMap::new())
}

fn insert_row<M: Map>(ctx: &Ctx, other: impl Fn() -> M) -> Result<Measured, BenchError> {
    let keys = keys();
    let other = Side::run(|| Ok(vec![insert_all(&mut other(), &keys)]));
    Ok(alternate(ctx.times(11), Side::missing(NO_MAPS), other))
}

fn lookup_row<M: Map>(ctx: &Ctx, mut other: M) -> Result<Measured, BenchError> {
    let mut keys = keys();
    insert_all(&mut other, &keys);
    shuffle(&mut keys);
    let other = Side::run(|| Ok(vec![look_up_all(&other, &keys)]));
    Ok(alternate(ctx.times(11), Side::missing(NO_MAPS), other))
}

/// Nanoseconds an insertion, growth included.
fn insert_all(map: &mut impl Map, keys: &[u64]) -> f64 {
    let begun = Instant::now();
    for key in keys {
        map.insert(*key, key >> 1);
    }
    ns_each(begun.elapsed(), keys.len())
}

/// Nanoseconds a look-up.
fn look_up_all(map: &impl Map, keys: &[u64]) -> f64 {
    let begun = Instant::now();
    let mut sum = 0_u64;
    for key in keys {
        sum = sum.wrapping_add(map.get(*key).unwrap_or_default());
    }
    black_box(sum);
    ns_each(begun.elapsed(), keys.len())
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
