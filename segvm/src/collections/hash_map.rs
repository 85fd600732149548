use std::{fmt, marker::PhantomData, mem::offset_of, ops::Deref, ptr::NonNull};

use super::{
    hash::Seed,
    key::{Key, Lookup},
    table::{FullSlots, Table},
};
use crate::{
    heap::Heap,
    persist::{Kind, Persist, Plain, SchemaBuilder, Source, replace},
};

#[repr(C)]
struct Slot<K, V> {
    key: K,
    value: V,
}

/// A hash map in a segment. [`HashMapMut`] changes it.
///
/// Hashes are seeded from the heap, so that what collides in one image does not in another.
#[repr(C)]
pub struct HashMap<K: Key, V: Persist> {
    table: Table<Slot<K, V>>,
    /// Set with the first entry.
    seed: u64,
}

impl<K: Key, V: Persist> HashMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn find<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<NonNull<Slot<K, V>>> {
        let hash = key.hash(Seed(self.seed));
        let at = self.table.find(hash, |slot| key.is(&slot.key))?;
        Some(self.table.slot(at))
    }

    /// The value of `key`.
    #[must_use]
    #[inline]
    pub fn get<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        // SAFETY: a slot with an entry; changes need a handle that borrows what this is part of.
        self.find(key).map(|slot| &unsafe { slot.as_ref() }.value)
    }

    /// Tells whether there is an entry for `key`.
    #[must_use]
    pub fn contains_key<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> bool {
        self.find(key).is_some()
    }

    /// All entries, in no order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            map: self,
            slots: self.table.full_slots(),
            left: self.len(),
        }
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// Walks over a map's entries, in no order.
pub struct Iter<'m, K: Key, V: Persist> {
    map: &'m HashMap<K, V>,
    slots: FullSlots<'m, Slot<K, V>>,
    left: usize,
}

impl<'m, K: Key, V: Persist> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, &'m V);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.slots.next()?;
        self.left -= 1;
        // SAFETY: a slot with an entry; the map is borrowed for as long as the references live.
        let slot = unsafe { self.map.table.slot(at).as_ref() };
        Some((&slot.key, &slot.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K: Key, V: Persist> ExactSizeIterator for Iter<'_, K, V> {}

impl<K: Key, V: Persist> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({} left)", self.left)
    }
}

impl<'m, K: Key, V: Persist> IntoIterator for &'m HashMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Iter<'m, K, V> {
        self.iter()
    }
}

impl<K: Key, V: Persist + fmt::Debug> fmt::Debug for HashMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Changes a [`HashMap`].
pub struct HashMapMut<'a, K: Key, V: Persist> {
    place: NonNull<HashMap<K, V>>,
    heap: &'a Heap,
    own: PhantomData<&'a mut HashMap<K, V>>,
}

impl<K: Key, V: Persist> HashMapMut<'_, K, V> {
    fn map(&mut self) -> &mut HashMap<K, V> {
        // SAFETY: valid and this handle's alone (the promise of `project`); the handle is borrowed meanwhile.
        unsafe { self.place.as_mut() }
    }

    /// Adds an entry for a key that has none: with what `fill` makes of the value's place.
    fn put<Q: Source<K> + Lookup<K>>(
        &mut self,
        key: Q,
        fill: impl FnOnce(NonNull<V>),
    ) -> NonNull<Slot<K, V>> {
        let heap = self.heap;
        let map = self.map();
        if map.table.slots() == 0 {
            map.seed = heap.seed();
        }
        let seed = Seed(map.seed);
        let hash = key.hash(seed);
        map.table.reserve_one(heap, |slot| slot.key.hash(seed));
        let at = map.table.put(hash, |slot| {
            // SAFETY: a vacant slot of this table.
            unsafe { key.fill(key_of(slot), heap) };
            fill(value_of(slot));
        });
        map.table.slot(at)
    }

    /// Makes `value` the value of `key`; `true` where the key is new.
    ///
    /// - **Panics**: where the heap is full; so does all that adds entries.
    pub fn insert<Q, S>(&mut self, key: Q, value: S) -> bool
    where
        Q: Source<K> + Lookup<K>,
        S: Source<V>,
    {
        let heap = self.heap;
        match self.find(&key) {
            Some(slot) => {
                // SAFETY: the entry's value, which nothing else reaches.
                unsafe { replace(value_of(slot), value, heap) };
                false
            }
            None => {
                // SAFETY: the value's place in a new slot.
                self.put(key, |place| unsafe { value.fill(place, heap) });
                true
            }
        }
    }

    /// The place of `key`'s value, to be looked into or filled.
    pub fn entry<Q: Source<K> + Lookup<K>>(&mut self, key: Q) -> Entry<'_, K, V, Q> {
        Entry {
            map: HashMapMut {
                place: self.place,
                heap: self.heap,
                own: PhantomData,
            },
            key,
        }
    }

    /// The value of `key`, to change.
    pub fn get_mut<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<V::Mut<'_>> {
        let slot = self.find(key)?;
        // SAFETY: the entry's value, and this handle is borrowed for as long as the projection lives.
        Some(unsafe { V::project(value_of(slot), self.heap) })
    }

    /// Calls `change` with each entry.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(&K, V::Mut<'_>)) {
        for at in self.table.full_slots() {
            let slot = self.table.slot(at);
            // SAFETY: an entry; keys are never changed.
            let key = unsafe { key_of(slot).as_ref() };
            // SAFETY: as in `get_mut`; the projection ends before the next.
            change(key, unsafe { V::project(value_of(slot), self.heap) });
        }
    }

    /// Removes the entry of `key`; `true` where there was one.
    pub fn remove<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> bool {
        let seed = Seed(self.seed);
        let found = self.table.find(key.hash(seed), |slot| key.is(&slot.key));
        if let Some(at) = found {
            self.remove_at(at);
        }
        found.is_some()
    }

    fn remove_at(&mut self, at: usize) {
        let (slot, heap) = (self.table.slot(at), self.heap);
        self.map().table.forget(at);
        drop_slot(slot, heap);
    }

    /// Removes the entries for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        for at in 0..self.table.slots() {
            if self.table.is_full(at) {
                // SAFETY: an entry, which is not changed while it is looked at.
                let slot = unsafe { self.table.slot(at).as_ref() };
                if !keep(&slot.key, &slot.value) {
                    self.remove_at(at);
                }
            }
        }
    }

    /// Removes all entries; the room stays.
    pub fn clear(&mut self) {
        self.drop_entries();
        self.map().table.wipe();
    }

    fn drop_entries(&mut self) {
        if K::OWNS || V::OWNS {
            for at in self.table.full_slots() {
                drop_slot(self.table.slot(at), self.heap);
            }
        }
    }

    /// Makes room for `more` entries.
    pub fn reserve(&mut self, more: usize) {
        let heap = self.heap;
        let map = self.map();
        if map.table.slots() == 0 {
            map.seed = heap.seed();
        }
        let seed = Seed(map.seed);
        map.table.reserve(more, heap, |slot| slot.key.hash(seed));
    }

    /// Gives back the room that is not used.
    pub fn shrink_to_fit(&mut self) {
        let heap = self.heap;
        let map = self.map();
        let (seed, least) = (Seed(map.seed), map.table.least_slots());
        if map.is_empty() {
            map.table.release_all(heap);
        } else if least < map.table.slots() {
            map.table.rebuild(least, heap, |slot| slot.key.hash(seed));
        }
    }

    /// Inserts each pair.
    pub fn extend<Q, S>(&mut self, pairs: impl IntoIterator<Item = (Q, S)>)
    where
        Q: Source<K> + Lookup<K>,
        S: Source<V>,
    {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Key, V: Plain> HashMapMut<'_, K, V> {
    /// Removes the entry of `key` and gives its value.
    pub fn take<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let value = *self.get(key)?;
        self.remove(key);
        Some(value)
    }
}

fn key_of<K, V>(slot: NonNull<Slot<K, V>>) -> NonNull<K> {
    // SAFETY: within a slot.
    unsafe { slot.byte_add(offset_of!(Slot<K, V>, key)) }.cast()
}

fn value_of<K, V>(slot: NonNull<Slot<K, V>>) -> NonNull<V> {
    // SAFETY: within a slot.
    unsafe { slot.byte_add(offset_of!(Slot<K, V>, value)) }.cast()
}

/// Drops an entry that its table has forgotten or is about to.
fn drop_slot<K: Key, V: Persist>(slot: NonNull<Slot<K, V>>, heap: &Heap) {
    // SAFETY: a valid key that nothing reaches any more.
    unsafe { K::drop_in(key_of(slot), heap) };
    // SAFETY: a valid value that nothing reaches any more.
    unsafe { V::drop_in(value_of(slot), heap) };
}

/// The place of a key's value in a map.
pub struct Entry<'e, K: Key, V: Persist, Q> {
    map: HashMapMut<'e, K, V>,
    key: Q,
}

impl<'e, K: Key, V: Persist, Q: Source<K> + Lookup<K>> Entry<'e, K, V, Q> {
    /// The key's value to change; the default, all zeros, where there was none.
    pub fn or_default(self) -> V::Mut<'e> {
        // SAFETY: the value's place in a new slot; zeros are a value of every Persist type.
        self.or_fill(|place| unsafe { place.write_bytes(0, 1) })
    }

    /// The key's value to change; made from `value` where there was none.
    pub fn or_insert<S: Source<V>>(self, value: S) -> V::Mut<'e> {
        let heap = self.map.heap;
        // SAFETY: the value's place in a new slot.
        self.or_fill(|place| unsafe { value.fill(place, heap) })
    }

    fn or_fill(mut self, fill: impl FnOnce(NonNull<V>)) -> V::Mut<'e> {
        let heap = self.map.heap;
        let slot = match self.map.find(&self.key) {
            Some(slot) => slot,
            None => self.map.put(self.key, fill),
        };
        // SAFETY: the entry's value; the map's handle, which has it alone for 'e, is gone.
        unsafe { V::project(value_of(slot), heap) }
    }
}

impl<K: Key, V: Persist, Q: fmt::Debug> fmt::Debug for Entry<'_, K, V, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:?})", self.key)
    }
}

impl<K: Key, V: Persist> Deref for HashMapMut<'_, K, V> {
    type Target = HashMap<K, V>;

    fn deref(&self) -> &HashMap<K, V> {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<K: Key, V: Persist + fmt::Debug> fmt::Debug for HashMapMut<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: repr(C); zeros are the empty map; the handle hands out projections and `&V` only, and never changes a key.
unsafe impl<K: Key, V: Persist> Persist for HashMap<K, V> {
    type Mut<'a> = HashMapMut<'a, K, V>;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> HashMapMut<'a, K, V> {
        HashMapMut {
            place,
            heap,
            own: PhantomData,
        }
    }

    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        let mut map = unsafe { Self::project(place, heap) };
        map.drop_entries();
        map.map().table.release_all(heap);
        map.map().seed = 0;
    }

    fn describe(schema: &mut SchemaBuilder) -> Kind {
        Kind::HashMap {
            key: schema.of::<K>(),
            value: schema.of::<V>(),
        }
    }
}
