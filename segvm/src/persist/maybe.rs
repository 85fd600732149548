use std::{fmt, marker::PhantomData, mem::MaybeUninit, ops::Deref, ptr::NonNull};

use super::{Kind, Persist, SchemaBuilder, Source};
use crate::heap::Heap;

/// What `Option` is elsewhere: std's has no layout that every build agrees on.
///
/// It is filled from an `Option`, and read as one by [`Maybe::get`].
#[repr(C)]
pub struct Maybe<T: Persist> {
    /// 1 where there is a value, 0 where there is none.
    some: u64,
    /// Initialised where `some` is 1.
    value: MaybeUninit<T>,
}

impl<T: Persist> Maybe<T> {
    /// The value, where there is one.
    #[must_use]
    pub const fn get(&self) -> Option<&T> {
        if self.some == 1 {
            // SAFETY: the field's invariant.
            Some(unsafe { self.value.assume_init_ref() })
        } else {
            None
        }
    }

    /// Tells whether there is a value.
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.some == 1
    }

    /// Tells whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.is_some()
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Changes a [`Maybe`].
pub struct MaybeMut<'a, T: Persist> {
    place: NonNull<Maybe<T>>,
    heap: &'a Heap,
    own: PhantomData<&'a mut Maybe<T>>,
}

impl<T: Persist> MaybeMut<'_, T> {
    fn value(&self) -> NonNull<T> {
        // SAFETY: `place` is valid for the handle's life; only the field's address is taken.
        let value = unsafe { &raw mut (*self.place.as_ptr()).value };
        // SAFETY: an address inside a valid value is not null.
        unsafe { NonNull::new_unchecked(value) }.cast()
    }

    fn some(&mut self) -> &mut u64 {
        // SAFETY: `place` is valid and exclusively this handle's, which is borrowed as long as the reference lives.
        unsafe { &mut (*self.place.as_ptr()).some }
    }

    /// Puts `value` there, in place of what was.
    pub fn set<S: Source<T>>(&mut self, value: S) {
        self.clear();
        // SAFETY: the place is this handle's and holds zeros or a dropped value.
        unsafe { value.fill(self.value(), self.heap) };
        *self.some() = 1;
    }

    /// Leaves nothing there.
    pub fn clear(&mut self) {
        if std::mem::replace(self.some(), 0) == 1 {
            // SAFETY: there was a value, nobody else reaches it, and from here on nobody takes it for one.
            unsafe { T::drop_in(self.value(), self.heap) };
        }
    }

    /// The value to change, where there is one.
    pub fn get_mut(&mut self) -> Option<T::Mut<'_>> {
        if self.is_none() {
            return None;
        }
        // SAFETY: there is a value, and this handle is borrowed for as long as the projection lives.
        Some(unsafe { T::project(self.value(), self.heap) })
    }

    /// The value to change; the default, all zeros, where there was none.
    pub fn get_or_default(&mut self) -> T::Mut<'_> {
        if self.is_none() {
            // SAFETY: the place is this handle's; zeros are a value of every Persist type.
            unsafe { self.value().write_bytes(0, 1) };
            *self.some() = 1;
        }
        // SAFETY: there is a value, and this handle is borrowed for as long as the projection lives.
        unsafe { T::project(self.value(), self.heap) }
    }
}

impl<T: Persist> Deref for MaybeMut<'_, T> {
    type Target = Maybe<T>;

    fn deref(&self) -> &Maybe<T> {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for MaybeMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: repr(C); zeros say "none"; MaybeMut keeps the value inside.
unsafe impl<T: Persist> Persist for Maybe<T> {
    type Mut<'a> = MaybeMut<'a, T>;
    const OWNS: bool = T::OWNS;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> MaybeMut<'a, T> {
        MaybeMut {
            place,
            heap,
            own: PhantomData,
        }
    }

    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::project(place, heap) }.clear();
        // SAFETY: the place is the caller's; zeros are a value.
        unsafe { place.write_bytes(0, 1) };
    }

    fn describe(schema: &mut SchemaBuilder) -> Kind {
        Kind::Maybe(schema.of::<T>())
    }
}

// SAFETY: writes a valid Maybe: `some` is set after the value is there.
unsafe impl<T: Persist, S: Source<T>> Source<Maybe<T>> for Option<S> {
    unsafe fn fill(self, place: NonNull<Maybe<T>>, heap: &Heap) {
        // SAFETY: the place is the caller's; zeros are a value.
        unsafe { place.write_bytes(0, 1) };
        if let Some(value) = self {
            // SAFETY: just made valid, and the caller's.
            unsafe { Maybe::project(place, heap) }.set(value);
        }
    }
}
