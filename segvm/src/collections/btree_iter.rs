use std::{cmp::Ordering, fmt, marker::PhantomData, ops::Bound};

use super::btree::{Node, Tree};

/// More levels than 2^64 entries need.
const DEEPEST: usize = 26;

/// Walks over a tree's entries in order, up to an end.
pub struct Range<'t, K, V> {
    /// The way from the top down to the next entry: each node with the entry that comes next there.
    path: [Option<(Node<K, V>, usize)>; DEEPEST],
    depth: usize,
    /// The entry at which to stop; `None` to go to the end.
    end: Option<*const K>,
    tree: PhantomData<(&'t K, &'t V)>,
}

impl<'t, K, V> Range<'t, K, V> {
    pub(super) fn new(
        tree: &'t Tree<K, V>,
        start: Bound<impl Fn(&K) -> Ordering>,
        end: Bound<impl Fn(&K) -> Ordering>,
    ) -> Self {
        let mut range = Self::from(tree, start);
        let Some((node, at)) = range.peek() else {
            return range;
        };
        // SAFETY: one of the node's keys; the tree is borrowed for 't.
        let first = unsafe { node.key(at).as_ref() };
        // The walk stops where one from behind the end would begin, if it does not begin there itself.
        let (ends_before, behind) = match end {
            Bound::Unbounded => return range,
            Bound::Included(order) => (
                order(first) == Ordering::Less,
                Self::from(tree, Bound::Excluded(order)),
            ),
            Bound::Excluded(order) => (
                order(first) != Ordering::Greater,
                Self::from(tree, Bound::Included(order)),
            ),
        };
        if ends_before {
            range.depth = 0;
        }
        let stop = behind.peek();
        range.end = stop.map(|(node, at)| node.key(at).as_ptr().cast_const());
        range
    }

    /// The walk from the first entry within `start`.
    fn from(tree: &'t Tree<K, V>, start: Bound<impl Fn(&K) -> Ordering>) -> Self {
        let mut range = Self {
            path: [None; DEEPEST],
            depth: 0,
            end: None,
            tree: PhantomData,
        };
        let mut node = tree.top();
        while let Some(here) = node {
            let (at, found) = match &start {
                Bound::Unbounded => (0, false),
                Bound::Included(order) | Bound::Excluded(order) => here.search(order),
            };
            let skip = found && matches!(start, Bound::Excluded(_));
            let at = at + usize::from(skip);
            range.push(here, at);
            // What lies below an entry that was found and is wanted comes before it: not in the range.
            let stop = here.is_leaf() || (found && !skip);
            node = (!stop).then(|| here.child(at));
        }
        range.settle();
        range
    }

    fn push(&mut self, node: Node<K, V>, at: usize) {
        if let Some(place) = self.path.get_mut(self.depth) {
            *place = Some((node, at));
            self.depth += 1;
        }
    }

    fn here(&self) -> Option<(Node<K, V>, usize)> {
        *self.path.get(self.depth.checked_sub(1)?)?
    }

    /// Climbs out of nodes whose entries have all been.
    fn settle(&mut self) {
        while self.here().is_some_and(|(node, at)| at >= node.len()) {
            self.depth -= 1;
        }
    }

    pub(super) fn peek(&self) -> Option<(Node<K, V>, usize)> {
        self.here()
            .filter(|(node, at)| self.end != Some(node.key(*at).as_ptr().cast_const()))
    }
}

impl<'t, K, V> Iterator for Range<'t, K, V> {
    type Item = (&'t K, &'t V);

    fn next(&mut self) -> Option<Self::Item> {
        let (node, at) = self.peek()?;
        self.depth -= 1;
        self.push(node, at + 1);
        if !node.is_leaf() {
            let mut below = node.child(at + 1);
            while !below.is_leaf() {
                self.push(below, 0);
                below = below.child(0);
            }
            self.push(below, 0);
        }
        self.settle();
        // SAFETY: one of the node's keys; the tree is borrowed for 't.
        let key = unsafe { node.key(at).as_ref() };
        // SAFETY: and its value.
        let value = unsafe { node.value(at).as_ref() };
        Some((key, value))
    }
}

impl<K, V> fmt::Debug for Range<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Range")
    }
}
