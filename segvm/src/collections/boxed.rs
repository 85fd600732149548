use std::{alloc::Layout, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use super::raw::{address, full, pointer};
use crate::{
    heap::Heap,
    persist::{Kind, Persist, SchemaBuilder, Source},
};

/// One value in a block of its own, or none yet: for types that contain themselves, and for what is large and rare.
///
/// Unlike std's it may be empty, because what is new in a segment is all zeros.
#[repr(C)]
pub struct Box<T: Persist> {
    /// Address of the value; 0 while there is none.
    value: u64,
    own: PhantomData<T>,
}

impl<T: Persist> Box<T> {
    fn place(&self) -> Option<NonNull<T>> {
        NonNull::new(pointer(self.value))
    }

    /// The value, where there is one.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the address is that of a value that this box owns; changes need a handle that borrows what this is part of.
        self.place().map(|place| unsafe { place.as_ref() })
    }

    /// Tells whether there is no value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.value == 0
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for Box<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Changes a [`Box`].
pub struct BoxMut<'a, T: Persist> {
    place: NonNull<Box<T>>,
    heap: &'a Heap,
    own: PhantomData<&'a mut Box<T>>,
}

impl<'a, T: Persist> BoxMut<'a, T> {
    fn put(&mut self, fill: impl FnOnce(NonNull<T>)) {
        let block = self.heap.allocate(Layout::new::<T>());
        let place = block.unwrap_or_else(|error| full(&error)).cast();
        fill(place);
        self.clear();
        // SAFETY: valid and this handle's alone (the promise of `project`).
        unsafe { self.place.as_mut() }.value = address(place);
    }

    /// Puts a value made from `value` there, in place of what was.
    ///
    /// - **Panics**: where the heap is full.
    pub fn set<S: Source<T>>(&mut self, value: S) {
        let heap = self.heap;
        // SAFETY: a block that was just taken for a T, and that nothing else reaches.
        self.put(|place| unsafe { value.fill(place, heap) });
    }

    /// The value to change; the default, all zeros, where there was none.
    ///
    /// - **Panics**: where the heap is full.
    pub fn get_or_default(&mut self) -> T::Mut<'_> {
        if self.is_empty() {
            // SAFETY: a block that was just taken for a T; zeros are a value of every Persist type.
            self.put(|place| unsafe { place.write_bytes(0, 1) });
        }
        let place = (**self)
            .place()
            .unwrap_or_else(|| unreachable!("just put there"));
        // SAFETY: the value is this box's, and this handle is borrowed for as long as the projection lives.
        unsafe { T::project(place, self.heap) }
    }

    /// The value to change, where there is one.
    pub fn get_mut(&mut self) -> Option<T::Mut<'_>> {
        let place = (**self).place()?;
        // SAFETY: the value is this box's, and this handle is borrowed for as long as the projection lives.
        Some(unsafe { T::project(place, self.heap) })
    }

    /// The same for the handle's whole life: to walk down a chain of boxes.
    #[must_use]
    pub fn into_mut(self) -> Option<T::Mut<'a>> {
        let place = (*self).place()?;
        // SAFETY: the value is this box's, and the handle that had it alone for 'a is gone.
        Some(unsafe { T::project(place, self.heap) })
    }

    /// Leaves nothing there.
    ///
    /// - **Cost**: as deep as the value: a chain of boxes is dropped by recursion.
    pub fn clear(&mut self) {
        let Some(place) = (**self).place() else {
            return;
        };
        // SAFETY: valid and this handle's alone (the promise of `project`).
        unsafe { self.place.as_mut() }.value = 0;
        // SAFETY: the value was this box's, which has just forgotten it.
        unsafe { T::drop_in(place, self.heap) };
        // SAFETY: the block was taken from this heap for a T, and is not used any more.
        unsafe { self.heap.free(place.cast(), Layout::new::<T>()) };
    }
}

impl<T: Persist> Deref for BoxMut<'_, T> {
    type Target = Box<T>;

    fn deref(&self) -> &Box<T> {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Persist + fmt::Debug> fmt::Debug for BoxMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: repr(C); zeros are the empty box; the handle hands out projections and `&T` only.
unsafe impl<T: Persist> Persist for Box<T> {
    type Mut<'a> = BoxMut<'a, T>;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> BoxMut<'a, T> {
        BoxMut {
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
        Kind::Box(schema.of::<T>())
    }
}
