//! The nodes of a B-tree, and what keeps them balanced.
//!
//! Every node but the topmost holds between [`LEAST`] and [`MOST`] entries; all leaves lie equally deep. An inner node with
//! n entries has n + 1 children, child i holding what lies between entries i - 1 and i.

use std::{
    alloc::Layout,
    cmp::Ordering,
    marker::PhantomData,
    mem::{MaybeUninit, offset_of},
    ptr,
    ptr::NonNull,
};

use super::raw::{address, full, length, pointer};
use crate::heap::Heap;

/// Entries that a node holds at most. Part of the format, as the nodes' layout is.
pub(super) const MOST: usize = 11;
/// Entries that a node other than the topmost holds at least: two of them and one between fit into one.
const LEAST: usize = MOST / 2;

/// A leaf, and the beginning of an inner node.
#[repr(C)]
pub(super) struct Leaf<K, V> {
    len: u64,
    keys: [MaybeUninit<K>; MOST],
    values: [MaybeUninit<V>; MOST],
}

#[repr(C)]
struct Inner<K, V> {
    leaf: Leaf<K, V>,
    /// Addresses of the children: `len + 1` of them.
    children: [u64; MOST + 1],
}

/// A node, and how far above the leaves it is. Two numbers: it owns nothing.
///
/// Whoever holds one got it from a tree that is borrowed meanwhile: `node` is a live node of that height.
pub(super) struct Node<K, V> {
    node: NonNull<Leaf<K, V>>,
    height: usize,
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Node<K, V> {}

/// What a full node leaves behind when it is split: the entry between, and the node to the right.
struct Split<K, V> {
    key: MaybeUninit<K>,
    value: MaybeUninit<V>,
    right: Node<K, V>,
}

impl<K, V> Node<K, V> {
    fn layout(height: usize) -> Layout {
        if height == 0 {
            Layout::new::<Leaf<K, V>>()
        } else {
            Layout::new::<Inner<K, V>>()
        }
    }

    fn new(height: usize, heap: &Heap) -> Self {
        let block = heap.allocate(Self::layout(height));
        let node: NonNull<Leaf<K, V>> = block.unwrap_or_else(|error| full(&error)).cast();
        // SAFETY: just taken for a node, which begins with its length.
        unsafe { node.cast::<u64>().write(0) };
        Self { node, height }
    }

    fn free(self, heap: &Heap) {
        // SAFETY: taken in `new` for this layout; the callers have taken it out of the tree.
        unsafe { heap.free(self.node.cast(), Self::layout(self.height)) };
    }

    pub(super) fn len(self) -> usize {
        // SAFETY: a live node begins with its length.
        length(unsafe { self.node.cast::<u64>().read() })
    }

    fn set_len(self, len: usize) {
        // SAFETY: as above; the tree is this caller's to change.
        unsafe { self.node.cast::<u64>().write(len as u64) };
    }

    pub(super) const fn is_leaf(self) -> bool {
        self.height == 0
    }

    /// The place of key `at`, which is at most [`MOST`] - 1.
    pub(super) fn key(self, at: usize) -> NonNull<K> {
        debug_assert!(at < MOST);
        // SAFETY: the keys lie in the node.
        let keys = unsafe { self.node.byte_add(offset_of!(Leaf<K, V>, keys)) };
        // SAFETY: and key `at` among them.
        unsafe { keys.cast::<K>().add(at) }
    }

    /// The place of value `at`.
    pub(super) fn value(self, at: usize) -> NonNull<V> {
        debug_assert!(at < MOST);
        // SAFETY: the values lie in the node.
        let values = unsafe { self.node.byte_add(offset_of!(Leaf<K, V>, values)) };
        // SAFETY: and value `at` among them.
        unsafe { values.cast::<V>().add(at) }
    }

    /// The place of child `at`'s address, in an inner node.
    fn link(self, at: usize) -> NonNull<u64> {
        debug_assert!(self.height > 0 && at <= MOST);
        // SAFETY: an inner node has children.
        let children = unsafe { self.node.byte_add(offset_of!(Inner<K, V>, children)) };
        // SAFETY: and child `at` among them.
        unsafe { children.cast::<u64>().add(at) }
    }

    pub(super) fn child(self, at: usize) -> Self {
        // SAFETY: an inner node's children up to its length are set.
        let child = unsafe { self.link(at).read() };
        let node = NonNull::new(pointer(child)).expect("an inner node has all its children");
        Self {
            node,
            height: self.height - 1,
        }
    }

    fn set_child(self, at: usize, child: Self) {
        // SAFETY: the place of an address in a node that is this caller's to change.
        unsafe { self.link(at).write(address(child.node)) };
    }

    /// The first entry that is not before what `order` looks for, and whether it is that.
    #[inline]
    pub(super) fn search(self, order: &impl Fn(&K) -> Ordering) -> (usize, bool) {
        let len = self.len();
        for at in 0..len {
            // SAFETY: one of the node's keys.
            match order(unsafe { self.key(at).as_ref() }) {
                Ordering::Greater => {}
                Ordering::Equal => return (at, true),
                Ordering::Less => return (at, false),
            }
        }
        (len, false)
    }

    /// Moves the entries from `at` on by one place up or down, and says the new length.
    fn open(self, at: usize) {
        let len = self.len();
        // SAFETY: the entries from `at` to `len` end before the last place: the callers have seen to room.
        unsafe {
            ptr::copy(
                self.key(at).as_ptr(),
                self.key(at).as_ptr().wrapping_add(1),
                len - at,
            )
        };
        // SAFETY: as for the keys.
        unsafe {
            ptr::copy(
                self.value(at).as_ptr(),
                self.value(at).as_ptr().wrapping_add(1),
                len - at,
            );
        };
        self.set_len(len + 1);
    }

    fn close(self, at: usize) {
        let len = self.len();
        // SAFETY: the entries behind `at` are the node's.
        unsafe {
            ptr::copy(
                self.key(at).as_ptr().wrapping_add(1),
                self.key(at).as_ptr(),
                len - at - 1,
            );
        };
        // SAFETY: as for the keys.
        unsafe {
            ptr::copy(
                self.value(at).as_ptr().wrapping_add(1),
                self.value(at).as_ptr(),
                len - at - 1,
            );
        };
        self.set_len(len - 1);
    }

    /// Moves `count` entries from `from` on to `to_at` on in `to`, which is another node.
    fn move_entries(self, from: usize, to: Self, to_at: usize, count: usize) {
        if count > 0 {
            // SAFETY: `count` keys of this node, and places in another.
            unsafe { self.key(from).copy_to_nonoverlapping(to.key(to_at), count) };
            // SAFETY: as for the keys.
            unsafe {
                self.value(from)
                    .copy_to_nonoverlapping(to.value(to_at), count)
            };
        }
    }

    /// The same for children.
    fn move_links(self, from: usize, to: Self, to_at: usize, count: usize) {
        // SAFETY: `count` children of this node, and places in another.
        unsafe {
            self.link(from)
                .copy_to_nonoverlapping(to.link(to_at), count)
        };
    }

    fn shift_links(self, from: usize, to: usize, count: usize) {
        if count > 0 {
            // SAFETY: both runs lie in the node's children.
            unsafe { self.link(from).copy_to(self.link(to), count) };
        }
    }

    /// Puts an entry at `at`, and `right`, in an inner node, behind it. There is room.
    fn put(self, at: usize, key: NonNull<K>, value: NonNull<V>, right: Option<Self>) {
        let len = self.len();
        self.open(at);
        // SAFETY: an entry that its owner gives up, and the place just opened.
        unsafe { self.key(at).copy_from_nonoverlapping(key, 1) };
        // SAFETY: as for the key.
        unsafe { self.value(at).copy_from_nonoverlapping(value, 1) };
        if let Some(right) = right {
            self.shift_links(at + 1, at + 2, len - at);
            self.set_child(at + 1, right);
        }
    }

    /// Splits this full node: `right` gets the upper half, the answer the entry between.
    fn split(self, right: Self) -> Split<K, V> {
        let mut out = Split {
            key: MaybeUninit::uninit(),
            value: MaybeUninit::uninit(),
            right,
        };
        let upper = MOST - LEAST - 1;
        // SAFETY: the entry in the middle, which this node gives up.
        unsafe {
            self.key(LEAST)
                .copy_to_nonoverlapping(NonNull::from(&mut out.key).cast(), 1)
        };
        // SAFETY: as for the key.
        unsafe {
            self.value(LEAST)
                .copy_to_nonoverlapping(NonNull::from(&mut out.value).cast(), 1)
        };
        self.move_entries(LEAST + 1, right, 0, upper);
        if !self.is_leaf() {
            self.move_links(LEAST + 1, right, 0, upper + 1);
        }
        right.set_len(upper);
        self.set_len(LEAST);
        out
    }

    /// Child `at` has too few entries: gives it one of a neighbour's, or merges the two.
    fn refill(self, at: usize, heap: &Heap) {
        let child = self.child(at);
        if child.len() >= LEAST {
            return;
        }
        if at > 0 && self.child(at - 1).len() > LEAST {
            self.turn_right(at - 1);
        } else if at < self.len() && self.child(at + 1).len() > LEAST {
            self.turn_left(at);
        } else {
            self.merge(if at > 0 { at - 1 } else { at }, heap);
        }
    }

    /// Entry `at` goes down to its right child, the left child's last one comes up.
    fn turn_right(self, at: usize) {
        let (left, right) = (self.child(at), self.child(at + 1));
        let (last, had) = (left.len() - 1, right.len());
        right.open(0);
        self.move_entries(at, right, 0, 1);
        left.move_entries(last, self, at, 1);
        if !left.is_leaf() {
            right.shift_links(0, 1, had + 1);
            right.set_child(0, left.child(last + 1));
        }
        left.set_len(last);
    }

    /// Entry `at` goes down to its left child, the right child's first one comes up.
    fn turn_left(self, at: usize) {
        let (left, right) = (self.child(at), self.child(at + 1));
        let end = left.len();
        self.move_entries(at, left, end, 1);
        left.set_len(end + 1);
        right.move_entries(0, self, at, 1);
        if !left.is_leaf() {
            left.set_child(end + 1, right.child(0));
            right.shift_links(1, 0, right.len());
        }
        right.close(0);
    }

    /// Entry `at` and all of its right child go to its left child.
    fn merge(self, at: usize, heap: &Heap) {
        let (left, right, len) = (self.child(at), self.child(at + 1), self.len());
        let (end, more) = (left.len(), right.len());
        self.move_entries(at, left, end, 1);
        right.move_entries(0, left, end + 1, more);
        if !left.is_leaf() {
            right.move_links(0, left, end + 1, more + 1);
        }
        left.set_len(end + 1 + more);
        self.close(at);
        self.shift_links(at + 2, at + 1, len - at - 1);
        right.free(heap);
    }
}

/// A tree. All zeros: empty, and owning nothing.
#[repr(C)]
pub(super) struct Tree<K, V> {
    /// Address of the topmost node; 0 while there is none.
    top: u64,
    /// How far it is above the leaves.
    height: u64,
    /// Entries.
    pub(super) len: u64,
    own: PhantomData<(K, V)>,
}

impl<K, V> Tree<K, V> {
    pub(super) fn top(&self) -> Option<Node<K, V>> {
        Some(Node {
            node: NonNull::new(pointer(self.top))?,
            height: length(self.height),
        })
    }

    fn set_top(&mut self, top: Option<Node<K, V>>) {
        self.top = top.map_or(0, |top| address(top.node));
        self.height = top.map_or(0, |top| top.height as u64);
    }

    /// Finds the entry that `order` looks for: its node and place there.
    #[inline]
    pub(super) fn find(&self, order: impl Fn(&K) -> Ordering) -> Option<(Node<K, V>, usize)> {
        let mut node = self.top()?;
        loop {
            match node.search(&order) {
                (at, true) => return Some((node, at)),
                (_, false) if node.is_leaf() => return None,
                (at, false) => node = node.child(at),
            }
        }
    }

    /// Puts an entry that is not there yet, and says where its value lies.
    ///
    /// - **Panics**: where the heap is full; the tree is then as it was.
    pub(super) fn put(
        &mut self,
        order: impl Fn(&K) -> Ordering,
        key: NonNull<K>,
        value: NonNull<V>,
        heap: &Heap,
    ) -> NonNull<V> {
        let Some(top) = self.top() else {
            let top = Node::new(0, heap);
            top.put(0, key, value, None);
            self.set_top(Some(top));
            self.len = 1;
            return top.value(0);
        };
        // Full nodes are split on the way down, so that there is always room for what a split sends up; and each split is
        // whole before the next block is taken.
        let mut node = top;
        if top.len() == MOST {
            let above = Node::new(top.height + 1, heap);
            let right = match heap.allocate(Node::<K, V>::layout(top.height)) {
                Ok(block) => Node {
                    node: block.cast(),
                    height: top.height,
                },
                Err(error) => {
                    above.free(heap);
                    full(&error)
                }
            };
            above.set_child(0, top);
            above.take_split(0, top.split(right));
            self.set_top(Some(above));
            node = above;
        }
        loop {
            let (at, _) = node.search(&order);
            if node.is_leaf() {
                node.put(at, key, value, None);
                self.len += 1;
                return node.value(at);
            }
            let child = node.child(at);
            if child.len() < MOST {
                node = child;
                continue;
            }
            node.take_split(at, child.split(Node::new(child.height, heap)));
            // The entry that came up decides on which side to go on.
        }
    }

    /// Takes the entry that `order` looks for out of the tree, and writes it where it is told.
    pub(super) fn remove(
        &mut self,
        order: &impl Fn(&K) -> Ordering,
        key: NonNull<K>,
        value: NonNull<V>,
        heap: &Heap,
    ) -> bool {
        let Some(top) = self.top() else {
            return false;
        };
        let found = top.remove(order, key, value, heap);
        if found {
            self.len -= 1;
            if top.len() == 0 {
                self.set_top((!top.is_leaf()).then(|| top.child(0)));
                top.free(heap);
            }
        }
        found
    }

    /// Frees all nodes, after `drop_entry` has had each entry.
    pub(super) fn release(
        &mut self,
        heap: &Heap,
        mut drop_entry: impl FnMut(NonNull<K>, NonNull<V>),
    ) {
        if let Some(top) = self.top() {
            self.set_top(None);
            self.len = 0;
            top.release(heap, &mut drop_entry);
        }
    }
}

impl<K, V> Node<K, V> {
    /// Child `at` was split: takes the entry between and the right half.
    fn take_split(self, at: usize, mut split: Split<K, V>) {
        let key = NonNull::from(&mut split.key).cast();
        let value = NonNull::from(&mut split.value).cast();
        self.put(at, key, value, Some(split.right));
    }

    fn remove(
        self,
        order: &impl Fn(&K) -> Ordering,
        key: NonNull<K>,
        value: NonNull<V>,
        heap: &Heap,
    ) -> bool {
        let (at, here) = self.search(order);
        if self.is_leaf() {
            if here {
                self.take(at, key, value);
                self.close(at);
            }
            return here;
        }
        if here {
            self.take(at, key, value);
            // The entry before it, which is a leaf's last, takes its place.
            self.child(at)
                .remove_last(self.key(at), self.value(at), heap);
        } else if !self.child(at).remove(order, key, value, heap) {
            return false;
        }
        self.refill(at, heap);
        true
    }

    fn remove_last(self, key: NonNull<K>, value: NonNull<V>, heap: &Heap) {
        let len = self.len();
        if self.is_leaf() {
            self.take(len - 1, key, value);
            self.set_len(len - 1);
        } else {
            self.child(len).remove_last(key, value, heap);
            self.refill(len, heap);
        }
    }

    fn take(self, at: usize, key: NonNull<K>, value: NonNull<V>) {
        // SAFETY: one of the node's keys, and the place that the caller has for it.
        unsafe { self.key(at).copy_to_nonoverlapping(key, 1) };
        // SAFETY: as for the key.
        unsafe { self.value(at).copy_to_nonoverlapping(value, 1) };
    }

    fn release(self, heap: &Heap, drop_entry: &mut impl FnMut(NonNull<K>, NonNull<V>)) {
        for at in 0..self.len() {
            drop_entry(self.key(at), self.value(at));
        }
        if !self.is_leaf() {
            (0..=self.len()).for_each(|at| self.child(at).release(heap, drop_entry));
        }
        self.free(heap);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl<K, V> Tree<K, V> {
        /// Fails where a node has too few entries, or keys out of order, or the count is wrong.
        pub(in super::super) fn check(&self, before: impl Fn(&K, &K) -> bool) {
            let mut keys = std::vec::Vec::new();
            if let Some(top) = self.top() {
                assert!(top.len() > 0);
                top.check(&mut keys);
            }
            assert_eq!(keys.len(), length(self.len));
            assert!(keys.windows(2).all(|pair| before(pair[0], pair[1])));
        }
    }

    impl<K, V> Node<K, V> {
        fn check(self, keys: &mut std::vec::Vec<&K>) {
            for at in 0..self.len() {
                if !self.is_leaf() {
                    assert!((LEAST..=MOST).contains(&self.child(at).len()));
                    self.child(at).check(keys);
                }
                // SAFETY: one of the node's keys; the test does not change the tree meanwhile.
                keys.push(unsafe { self.key(at).as_ref() });
            }
            if !self.is_leaf() {
                assert!((LEAST..=MOST).contains(&self.child(self.len()).len()));
                self.child(self.len()).check(keys);
            }
        }
    }
}
