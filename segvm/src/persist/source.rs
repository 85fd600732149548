use std::{mem::MaybeUninit, ptr::NonNull};

use super::{Persist, Plain};
use crate::heap::Heap;

/// An ordinary value from which a `T` is made in its place in a heap: `&str` for a `Text`, a slice for a `Vec`, a number for
/// itself.
///
/// # Safety
///
/// After `fill`, `place` holds a valid `T` whose memory is `heap`'s, and which can be moved into `heap` by copying its bytes.
#[diagnostic::on_unimplemented(
    message = "a `{T}` in a segment cannot be made from `{Self}`",
    note = "values are copied in from ordinary ones: `&str` or `String` for `Text`, slices and std's `Vec` for `Vec`, \
            `Option` for `Maybe`, plain data for itself; structs are made in place by `or_default`, `push_default`"
)]
pub unsafe trait Source<T: Persist> {
    /// Makes the value.
    ///
    /// - **Panics**: where the heap is full; the place may then hold anything.
    ///
    /// # Safety
    ///
    /// `place` is writable memory for a `T` that will be in `heap`, and nothing else reaches it. What was there is not dropped.
    unsafe fn fill(self, place: NonNull<T>, heap: &Heap);
}

// SAFETY: a plain value owns nothing and is copied.
unsafe impl<T: Plain> Source<T> for T {
    unsafe fn fill(self, place: NonNull<T>, _heap: &Heap) {
        // SAFETY: writable memory for a T: the caller's promise.
        unsafe { place.write(self) };
    }
}

/// Makes a value in the place of another, which is dropped.
///
/// The new one is made first, beside: `fill` may panic, and the place must hold a value all the time.
///
/// # Safety
///
/// `place` holds a valid `T` in `heap` that nothing else reaches.
pub(crate) unsafe fn replace<T: Persist>(place: NonNull<T>, value: impl Source<T>, heap: &Heap) {
    let mut new = MaybeUninit::<T>::uninit();
    let made = NonNull::from(&mut new).cast();
    // SAFETY: writable memory for a T, which is moved into the heap below.
    unsafe { value.fill(made, heap) };
    // SAFETY: a valid T that nothing else reaches: the caller's promise.
    unsafe { T::drop_in(place, heap) };
    // SAFETY: both are places of a T; the made one is not used again.
    unsafe { place.copy_from_nonoverlapping(made, 1) };
}
