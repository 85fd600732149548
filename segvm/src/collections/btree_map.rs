use std::{
    cmp::Ordering,
    fmt,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Bound, Deref, RangeBounds},
    ptr::NonNull,
};

use super::{
    btree::Tree,
    btree_iter::Range,
    key::{Key, Lookup},
    raw::length,
};
use crate::{
    heap::Heap,
    persist::{Kind, Persist, Plain, SchemaBuilder, Source, replace},
};

/// A map in the order of its keys, in a segment. [`BTreeMapMut`] changes it.
#[repr(C)]
pub struct BTreeMap<K: Key, V: Persist> {
    tree: Tree<K, V>,
}

type Found<K, V> = Option<(super::btree::Node<K, V>, usize)>;

impl<K: Key, V: Persist> BTreeMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        length(self.tree.len)
    }

    /// Tells whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn find<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Found<K, V> {
        self.tree.find(|other| key.order(other))
    }

    /// The value of `key`.
    #[must_use]
    #[inline]
    pub fn get<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        let (node, at) = self.find(key)?;
        // SAFETY: an entry's value; changes need a handle that borrows what this is part of.
        Some(unsafe { node.value(at).as_ref() })
    }

    /// Tells whether there is an entry for `key`.
    #[must_use]
    pub fn contains_key<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> bool {
        self.find(key).is_some()
    }

    /// All entries, in order.
    #[must_use]
    pub fn iter(&self) -> Range<'_, K, V> {
        let all = Bound::<fn(&K) -> Ordering>::Unbounded;
        Range::new(&self.tree, all, all)
    }

    /// The entries whose keys lie in `range`, in order. None where its end is before its start.
    pub fn range<Q, R>(&self, range: R) -> Range<'_, K, V>
    where
        Q: Lookup<K> + ?Sized,
        R: RangeBounds<Q>,
    {
        let order = |bound: &'_ Q, key: &K| bound.order(key);
        let start = range
            .start_bound()
            .map(|bound| move |key: &K| order(bound, key));
        let end = range
            .end_bound()
            .map(|bound| move |key: &K| order(bound, key));
        Range::new(&self.tree, start, end)
    }

    /// The first entry.
    #[must_use]
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<'m, K: Key, V: Persist> IntoIterator for &'m BTreeMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Range<'m, K, V>;

    fn into_iter(self) -> Range<'m, K, V> {
        self.iter()
    }
}

impl<K: Key, V: Persist + fmt::Debug> fmt::Debug for BTreeMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Changes a [`BTreeMap`].
pub struct BTreeMapMut<'a, K: Key, V: Persist> {
    place: NonNull<BTreeMap<K, V>>,
    heap: &'a Heap,
    own: PhantomData<&'a mut BTreeMap<K, V>>,
}

impl<K: Key, V: Persist> BTreeMapMut<'_, K, V> {
    fn tree(&mut self) -> &mut Tree<K, V> {
        // SAFETY: valid and this handle's alone (the promise of `project`); the handle is borrowed meanwhile.
        &mut unsafe { self.place.as_mut() }.tree
    }

    /// Adds an entry for a key that has none.
    fn put<Q: Source<K>>(&mut self, key: Q, fill: impl FnOnce(NonNull<V>)) -> NonNull<V>
    where
        K: Lookup<K>,
    {
        let heap = self.heap;
        let (mut made_key, mut made_value) =
            (MaybeUninit::<K>::uninit(), MaybeUninit::<V>::uninit());
        let (key_at, value_at) = (
            NonNull::from(&mut made_key).cast(),
            NonNull::from(&mut made_value).cast(),
        );
        // SAFETY: writable memory for a K, which the tree moves into the heap.
        unsafe { key.fill(key_at, heap) };
        fill(value_at);
        // SAFETY: made just above.
        let order = |other: &K| unsafe { key_at.as_ref() }.order(other);
        self.tree().put(order, key_at, value_at, heap)
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
        let Some((node, at)) = self.find(&key) else {
            // SAFETY: writable memory for a V, which the tree moves into the heap.
            self.put(key, |place| unsafe { value.fill(place, heap) });
            return true;
        };
        // SAFETY: the entry's value, which nothing else reaches.
        unsafe { replace(node.value(at), value, heap) };
        false
    }

    /// The value of `key`, to change.
    pub fn get_mut<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<V::Mut<'_>> {
        let (node, at) = self.find(key)?;
        // SAFETY: the entry's value, and this handle is borrowed for as long as the projection lives.
        Some(unsafe { V::project(node.value(at), self.heap) })
    }

    /// The value of `key` to change; the default, all zeros, where there was none.
    pub fn get_or_default<Q: Source<K> + Lookup<K>>(&mut self, key: Q) -> V::Mut<'_> {
        let place = match self.find(&key) {
            Some((node, at)) => node.value(at),
            // SAFETY: the place of a V; zeros are a value of every Persist type.
            None => self.put(key, |place| unsafe { place.write_bytes(0, 1) }),
        };
        // SAFETY: the entry's value, and this handle is borrowed for as long as the projection lives.
        unsafe { V::project(place, self.heap) }
    }

    /// Removes the entry of `key`; `true` where there was one.
    pub fn remove<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> bool {
        let heap = self.heap;
        let (mut old_key, mut old_value) = (MaybeUninit::<K>::uninit(), MaybeUninit::<V>::uninit());
        let (key_at, value_at) = (
            NonNull::from(&mut old_key).cast(),
            NonNull::from(&mut old_value).cast(),
        );
        let order = |other: &K| key.order(other);
        let found = self.tree().remove(&order, key_at, value_at, heap);
        if found {
            // SAFETY: a key that is in the tree no more.
            unsafe { K::drop_in(key_at, heap) };
            // SAFETY: its value.
            unsafe { V::drop_in(value_at, heap) };
        }
        found
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        let heap = self.heap;
        self.tree().release(heap, |key, value| {
            // SAFETY: a key of a tree that nobody reaches any more.
            unsafe { K::drop_in(key, heap) };
            // SAFETY: its value.
            unsafe { V::drop_in(value, heap) };
        });
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

impl<K: Key, V: Plain> BTreeMapMut<'_, K, V> {
    /// Removes the entry of `key` and gives its value.
    pub fn take<Q: Lookup<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let value = *self.get(key)?;
        self.remove(key);
        Some(value)
    }
}

impl<K: Key, V: Persist> Deref for BTreeMapMut<'_, K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<K: Key, V: Persist + fmt::Debug> fmt::Debug for BTreeMapMut<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: repr(C); zeros are the empty map; the handle hands out projections and `&V` only, and never changes a key.
unsafe impl<K: Key, V: Persist> Persist for BTreeMap<K, V> {
    type Mut<'a> = BTreeMapMut<'a, K, V>;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> BTreeMapMut<'a, K, V> {
        BTreeMapMut {
            place,
            heap,
            own: PhantomData,
        }
    }

    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::project(place, heap) }.clear();
    }

    fn describe(schema: &mut SchemaBuilder) -> Kind {
        Kind::BTreeMap {
            key: schema.of::<K>(),
            value: schema.of::<V>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap as Twin, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        gate::Gate,
        heap::MemorySpace,
        root::{HeapShared, Root},
    };

    fn root() -> (Arc<HeapShared>, Root<BTreeMap<u32, u64>>) {
        let heap = Heap::create(Box::new(MemorySpace::new(64 << 20)), 7).unwrap();
        let shared = HeapShared::new(heap, Gate::new(), "test".into(), "main".into());
        let root = shared.root("map").unwrap();
        (shared, root)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_std_s_and_stays_balanced(
            ops in prop::collection::vec((0..5u8, 0..400u32, any::<u64>()), 1..900),
            bounds in (0..400u32, 0..400u32),
        ) {
            let (shared, root) = root();
            let before = shared.heap().usage();
            let mut guard = root.write();
            let mut map = guard.as_mut();
            let mut twin = Twin::new();
            for (op, key, value) in ops {
                match op {
                    0..=2 => prop_assert_eq!(map.insert(key, value), twin.insert(key, value).is_none()),
                    3 => prop_assert_eq!(map.take(&key), twin.remove(&key)),
                    _ => {
                        *map.get_or_default(key) ^= value;
                        *twin.entry(key).or_default() ^= value;
                    }
                }
                map.tree.check(|a, b| a < b);
            }
            prop_assert!(map.iter().eq(&twin));
            for key in 0..400 {
                prop_assert_eq!(map.get(&key), twin.get(&key));
            }
            let (low, high) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            prop_assert!(map.range(low..high).eq(twin.range(low..high)));
            prop_assert!(map.range(low..=high).eq(twin.range(low..=high)));
            prop_assert!(map.range(low..).eq(twin.range(low..)));
            prop_assert!(map.range(..high).eq(twin.range(..high)));
            if low < high {
                prop_assert_eq!(map.range(high..low).next(), None);
            }
            let behind = (Bound::Excluded(low), Bound::<u32>::Unbounded);
            prop_assert!(map.range(behind).eq(twin.range(behind)));
            for key in 0..400 {
                prop_assert_eq!(map.remove(&key), twin.remove(&key).is_some());
                map.tree.check(|a, b| a < b);
            }
            let after = shared.heap().usage();
            prop_assert_eq!((after.allocated, after.blocks), (before.allocated, before.blocks));
            prop_assert!(shared.heap().check().is_ok());
        }
    }

    #[test]
    fn clearing_frees_every_node_and_what_the_entries_own() {
        let (shared, _root) = root();
        let texts: Root<BTreeMap<super::super::Text, super::super::Text>> =
            shared.root("texts").unwrap();
        let before = shared.heap().usage();
        let mut guard = texts.write();
        let mut map = guard.as_mut();
        for n in 0..2000 {
            map.insert(format!("key {n:05}"), format!("value {n}"));
        }
        let range =
            map.range::<str, _>((Bound::Included("key 00100"), Bound::Excluded("key 00103")));
        let keys: Vec<_> = range.map(|(key, _)| key.to_string()).collect();
        assert_eq!(keys, ["key 00100", "key 00101", "key 00102"]);
        map.clear();
        assert!(map.iter().next().is_none());
        let after = shared.heap().usage();
        assert_eq!(
            (after.allocated, after.blocks),
            (before.allocated, before.blocks)
        );
    }
}
