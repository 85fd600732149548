use std::ptr::NonNull;

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
