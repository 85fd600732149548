use std::{fmt, marker::PhantomData, ops::Deref, ptr, ptr::NonNull, slice};

use super::raw::{Raw, length};
use crate::{
    heap::Heap,
    persist::{Kind, Persist, Plain, SchemaBuilder, Source},
};

/// Values in a row, in a segment. Read it as a slice; [`VecMut`] changes it.
#[repr(C)]
pub struct Vec<T: Persist> {
    raw: Raw<T>,
    /// The first `len` places hold values; not more than there is room for.
    len: u64,
}

impl<T: Persist> Vec<T> {
    /// All values.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` places hold values (the field's invariant), aligned, and changes need a handle that
        // borrows what this is part of.
        unsafe { slice::from_raw_parts(self.raw.place().as_ptr(), length(self.len)) }
    }

    /// How many values fit before memory is taken.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.raw.room()
    }
}

impl<T: Persist> Deref for Vec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<'v, T: Persist> IntoIterator for &'v Vec<T> {
    type Item = &'v T;
    type IntoIter = slice::Iter<'v, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for Vec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<T: Persist + PartialEq> PartialEq for Vec<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Persist + PartialEq, const N: usize> PartialEq<[T; N]> for Vec<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        self.as_slice() == other
    }
}

/// Changes a [`Vec`].
pub struct VecMut<'a, T: Persist> {
    place: NonNull<Vec<T>>,
    heap: &'a Heap,
    own: PhantomData<&'a mut Vec<T>>,
}

impl<T: Persist> VecMut<'_, T> {
    fn vec(&mut self) -> &mut Vec<T> {
        // SAFETY: valid and this handle's alone (the promise of `project`); the handle is borrowed meanwhile.
        unsafe { self.place.as_mut() }
    }

    /// The place of value `at`, which is not behind the last one's end.
    fn slot(&self, at: usize) -> NonNull<T> {
        debug_assert!(at <= self.capacity());
        // SAFETY: within the block, or at its end.
        unsafe { self.raw.place().add(at) }
    }

    /// The values as bytes to move: never shown to callers unless they are plain.
    fn values(&mut self) -> &mut [T] {
        let len = self.len();
        // SAFETY: the first `len` places hold values; the handle is borrowed meanwhile.
        unsafe { slice::from_raw_parts_mut(self.raw.place().as_ptr(), len) }
    }

    fn drop_at(&mut self, at: usize) {
        // SAFETY: the callers pass places of values that they have put out of reach, or do so before anyone looks.
        unsafe { T::drop_in(self.slot(at), self.heap) };
    }

    /// Appends a value made from `value`.
    ///
    /// - **Panics**: where the heap is full; so does all that appends.
    pub fn push<S: Source<T>>(&mut self, value: S) {
        let (len, heap) = (self.len(), self.heap);
        self.vec().raw.reserve(len, 1, heap);
        // SAFETY: there is room behind the last value, and nothing else reaches it.
        unsafe { value.fill(self.slot(len), heap) };
        self.vec().len += 1;
    }

    /// Appends the default, all zeros, and gives it to change.
    pub fn push_default(&mut self) -> T::Mut<'_> {
        let (len, heap) = (self.len(), self.heap);
        self.vec().raw.reserve(len, 1, heap);
        // SAFETY: there is room behind the last value; zeros are a value of every Persist type.
        unsafe { self.slot(len).write_bytes(0, 1) };
        self.vec().len += 1;
        // SAFETY: the value is there, and this handle is borrowed for as long as the projection lives.
        unsafe { T::project(self.slot(len), heap) }
    }

    /// Appends a value made from each item.
    pub fn extend<S: Source<T>>(&mut self, items: impl IntoIterator<Item = S>) {
        let items = items.into_iter();
        self.reserve(items.size_hint().0);
        items.for_each(|item| self.push(item));
    }

    /// Puts a value made from `value` before value `at`.
    ///
    /// - **Panics**: if `at` is behind the end.
    pub fn insert<S: Source<T>>(&mut self, at: usize, value: S) {
        let len = self.len();
        assert!(at <= len, "place {at} is behind the end of {len} values");
        self.push(value);
        self.values()
            .get_mut(at..)
            .into_iter()
            .for_each(|rest| rest.rotate_right(1));
    }

    /// Value `at`, to change.
    pub fn get_mut(&mut self, at: usize) -> Option<T::Mut<'_>> {
        if at >= self.len() {
            return None;
        }
        // SAFETY: the value is there, and this handle is borrowed for as long as the projection lives.
        Some(unsafe { T::project(self.slot(at), self.heap) })
    }

    /// The last value, to change.
    pub fn last_mut(&mut self) -> Option<T::Mut<'_>> {
        let last = self.len().checked_sub(1)?;
        self.get_mut(last)
    }

    /// Calls `change` with each value.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(T::Mut<'_>)) {
        for at in 0..self.len() {
            // SAFETY: as in `get_mut`.
            change(unsafe { T::project(self.slot(at), self.heap) });
        }
    }

    /// Removes value `at` and moves those behind it.
    ///
    /// - **Panics**: if there is none.
    pub fn delete(&mut self, at: usize) {
        let len = self.len();
        assert!(at < len, "there is no value {at} among {len}");
        self.values()
            .get_mut(at..)
            .into_iter()
            .for_each(|rest| rest.rotate_left(1));
        self.truncate(len - 1);
    }

    /// Removes the values behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        let had = self.len();
        if len < had {
            self.vec().len = len as u64;
            if T::OWNS {
                (len..had).for_each(|at| self.drop_at(at));
            }
        }
    }

    /// Removes all values; the room stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Removes the values for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for at in 0..self.len() {
            // Swapping keeps every place a value, whatever `keep` does: it may panic.
            if self.get(at).is_some_and(&mut keep) {
                self.swap(kept, at);
                kept += 1;
            }
        }
        self.truncate(kept);
    }

    /// Exchanges two values.
    ///
    /// - **Panics**: if there is no such value.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.values().swap(a, b);
    }

    /// Sorts the values; equal ones stay in order.
    pub fn sort_by(&mut self, compare: impl FnMut(&T, &T) -> std::cmp::Ordering) {
        self.values().sort_by(compare);
    }

    /// Makes room for `more` values.
    pub fn reserve(&mut self, more: usize) {
        let (len, heap) = (self.len(), self.heap);
        self.vec().raw.reserve(len, more, heap);
    }

    /// Gives back the room that is not used.
    pub fn shrink_to_fit(&mut self) {
        let (len, heap) = (self.len(), self.heap);
        self.vec().raw.resize(len, heap);
    }
}

impl<T: Plain> VecMut<'_, T> {
    /// All values, to change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.values()
    }

    /// Removes the last value and gives it.
    pub fn pop(&mut self) -> Option<T> {
        let last = *self.last()?;
        self.vec().len -= 1;
        Some(last)
    }

    /// Removes value `at`, gives it, and moves those behind it.
    ///
    /// - **Panics**: if there is none.
    pub fn remove(&mut self, at: usize) -> T {
        let len = self.len();
        let value = *self
            .get(at)
            .unwrap_or_else(|| panic!("there is no value {at} among {len}"));
        self.delete(at);
        value
    }

    /// Appends all of `values`.
    pub fn extend_from_slice(&mut self, values: &[T]) {
        let (len, heap) = (self.len(), self.heap);
        self.vec().raw.reserve(len, values.len(), heap);
        // SAFETY: there is room for them behind the last value; `values` may be part of another vector but not of this
        // one's block, which this handle has alone.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.slot(len).as_ptr(), values.len()) };
        self.vec().len += values.len() as u64;
    }

    /// Makes the length `len`, with copies of `value` where it grows.
    pub fn resize(&mut self, len: usize, value: T) {
        self.truncate(len);
        let had = self.len();
        self.extend(std::iter::repeat_n(value, len - had));
    }
}

impl<T: Persist> Deref for VecMut<'_, T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for VecMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: repr(C); zeros are the empty vector; the handle hands out projections, `&T`, and `&mut` to plain data only.
unsafe impl<T: Persist> Persist for Vec<T> {
    type Mut<'a> = VecMut<'a, T>;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> VecMut<'a, T> {
        VecMut {
            place,
            heap,
            own: PhantomData,
        }
    }

    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        let mut vec = unsafe { Self::project(place, heap) };
        vec.clear();
        vec.vec().raw.release(heap);
    }

    fn describe(schema: &mut SchemaBuilder) -> Kind {
        Kind::Vec(schema.of::<T>())
    }
}

fn fill<T: Persist, S: Source<T>>(
    place: NonNull<Vec<T>>,
    heap: &Heap,
    items: impl IntoIterator<Item = S>,
) {
    // SAFETY: the callers' callers promise writable memory for a Vec; zeros are the empty one.
    unsafe { place.write_bytes(0, 1) };
    // SAFETY: just made valid, and nothing else reaches it.
    unsafe { Vec::project(place, heap) }.extend(items);
}

// SAFETY: makes a valid Vec by its own handle.
unsafe impl<T: Persist, S: Source<T> + Clone> Source<Vec<T>> for &[S] {
    unsafe fn fill(self, place: NonNull<Vec<T>>, heap: &Heap) {
        fill(place, heap, self.iter().cloned());
    }
}

// SAFETY: makes a valid Vec by its own handle.
unsafe impl<T: Persist, S: Source<T>> Source<Vec<T>> for std::vec::Vec<S> {
    unsafe fn fill(self, place: NonNull<Vec<T>>, heap: &Heap) {
        fill(place, heap, self);
    }
}

// SAFETY: makes a valid Vec by its own handle.
unsafe impl<T: Persist, S: Source<T>, const N: usize> Source<Vec<T>> for [S; N] {
    unsafe fn fill(self, place: NonNull<Vec<T>>, heap: &Heap) {
        fill(place, heap, self);
    }
}
