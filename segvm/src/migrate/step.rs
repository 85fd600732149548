use std::{
    any::type_name,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

use super::MigrationError;
use crate::{
    heap::{Heap, RootEntry},
    hooks::{self, Outcome},
    persist::Persist,
    root::Wanted,
    schema::SchemaError,
};

/// One type into another, whichever they are.
pub(super) trait Step: Send + Sync {
    /// The types, and their names.
    fn types(&self) -> Result<(Wanted, Wanted), SchemaError>;
    fn names(&self) -> (&'static str, &'static str);

    /// Makes the new value beside the old one.
    ///
    /// # Safety
    ///
    /// `old` holds a value of the first type in `heap`, that nobody changes; `new` zeros for one of the second, that nobody else
    /// reaches.
    unsafe fn fill(
        &self,
        root: &str,
        old: NonNull<u8>,
        new: NonNull<u8>,
        heap: &Heap,
    ) -> Result<(), MigrationError>;

    /// Frees the old value and all that it owns.
    ///
    /// # Safety
    ///
    /// `old` was a root of the first type in `heap`, that is none any more, and nobody reaches it.
    unsafe fn free(&self, old: RootEntry, heap: &Heap);
}

pub(super) struct Of<Old, New, F> {
    fill: F,
    of: PhantomData<fn(Old) -> New>,
}

impl<Old, New, F> Of<Old, New, F> {
    pub(super) const fn new(fill: F) -> Self {
        Self {
            fill,
            of: PhantomData,
        }
    }
}

impl<Old, New, O, F> Step for Of<Old, New, F>
where
    Old: Persist,
    New: Persist,
    O: Outcome,
    F: for<'a> Fn(&'a Old, New::Mut<'a>) -> O + Send + Sync,
{
    fn types(&self) -> Result<(Wanted, Wanted), SchemaError> {
        Ok((Wanted::of::<Old>()?, Wanted::of::<New>()?))
    }

    fn names(&self) -> (&'static str, &'static str) {
        (type_name::<Old>(), type_name::<New>())
    }

    unsafe fn fill(
        &self,
        root: &str,
        old: NonNull<u8>,
        new: NonNull<u8>,
        heap: &Heap,
    ) -> Result<(), MigrationError> {
        let (from, to) = self.names();
        // SAFETY: a valid Old that nobody changes: the caller's promise.
        let old = unsafe { old.cast::<Old>().as_ref() };
        // SAFETY: zeros are a value of every Persist type, and nobody else reaches them.
        let new = unsafe { New::project(new.cast(), heap) };
        // What is left half-made is in memory that is given up with the session.
        match catch_unwind(AssertUnwindSafe(|| (self.fill)(old, new).into_result())) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(MigrationError::Failed {
                root: root.into(),
                from,
                to,
                source,
            }),
            Err(panic) => Err(MigrationError::Panicked {
                root: root.into(),
                from,
                to,
                said: hooks::said(&*panic),
            }),
        }
    }

    unsafe fn free(&self, old: RootEntry, heap: &Heap) {
        // SAFETY: a valid Old that nobody else reaches: the caller's promise.
        unsafe { Old::drop_in(old.place.cast(), heap) };
        // SAFETY: a root's block was taken for the layout that the directory has of it.
        unsafe { heap.free(old.place, old.layout) };
    }
}
