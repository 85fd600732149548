//! Which types can live in a segment, and how they are reached there.
//!
//! No owning value of such a type ever exists outside its image (docs/design/roots.md): reading gives `&T`, writing gives
//! a *projection*, [`Persist::Mut`], that can change the value but not hand it out. Values enter by copying from ordinary
//! Rust values ([`Source`]) and leave the same way.
//!
//! | file | what |
//! |---|---|
//! | `plain` | numbers and arrays of them |
//! | `maybe` | [`Maybe`]: what `Option` is elsewhere |
//! | `source` | how ordinary values are copied into a heap |

mod maybe;
mod plain;
mod source;

use std::ptr::NonNull;

pub use segvm_derive::Persist;

pub(crate) use self::source::replace;
pub use self::{
    maybe::{Maybe, MaybeMut},
    source::Source,
};
use crate::heap::Heap;
pub use crate::schema::{Fields, Kind, Primitive, Schema, SchemaBuilder};

/// A type whose values can live in a segment, and be found there by another process.
///
/// Derive it: `#[derive(Persist)] #[repr(C)] struct ...`. A new value is all zeros: 0, `false`, the empty [`Text`], the
/// enum's variant 0.
///
/// # Safety
///
/// - The layout is the same in every build (`repr(C)`, a primitive, a collection of this crate).
/// - All-zero bytes are a valid value, and own nothing.
/// - The bytes mean the same in another process that has the segment at the same address: no reference, function,
///   descriptor, thread or lock.
/// - A value can be moved within its heap by copying its bytes.
/// - No safe function gives a value out, or `&mut` to one that owns memory of the heap.
/// - `project` and `drop_in` do what they say, and `describe` gives types of different layout or meaning different
///   descriptions.
///
/// [`Text`]: crate::collections::Text
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in a segment",
    label = "does not survive in another process, or has no fixed layout",
    note = "use numbers, bool, arrays of them, `segvm::Text` for strings, `segvm::Vec`, `segvm::Box`, \
            `segvm::HashMap`, `segvm::BTreeMap`, `segvm::Maybe` for options, or a struct that derives `Persist`",
    note = "references, functions, std's collections, locks, files and raw pointers mean nothing after a resume"
)]
pub unsafe trait Persist: Sized + Send + Sync + 'static {
    /// What changes a value in place: `&mut Self` for plain data, a struct of projections or a handle for what owns memory.
    type Mut<'a>;

    /// Makes the projection of the value at `place`.
    ///
    /// # Safety
    ///
    /// `place` holds a valid value in `heap`, and nothing else reaches it during `'a`.
    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> Self::Mut<'a>;

    /// Frees what the value at `place` owns and leaves zeros there.
    ///
    /// # Safety
    ///
    /// `place` holds a valid value in `heap`, and nothing else reaches it.
    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap);

    /// Writes down what the type looks like.
    fn describe(schema: &mut SchemaBuilder) -> Kind;

    /// Whether values may own memory of the heap, so that they must be dropped one by one.
    const OWNS: bool = true;
}

/// A [`Persist`] type that owns nothing: it can be copied in and out.
///
/// # Safety
///
/// Values own nothing in the heap and `Mut<'a>` is `&'a mut Self`. Every sequence of changes through it leaves a valid value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain data",
    note = "plain data are numbers, bool, char, arrays of plain data, and `Copy` types that derive `Persist` with \
            `#[persist(plain)]`"
)]
pub unsafe trait Plain: Persist + Copy {}
