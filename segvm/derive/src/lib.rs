//! `#[derive(Persist)]`: decides at compile time which types can live in a segvm heap.
//!
//! | file | what |
//! |---|---|
//! | `attributes` | `#[repr(..)]` and `#[persist(..)]` |
//! | `structs` | projections, or plain data |
//! | `enums` | fieldless ones, as plain data |
//! | `plain` | what plain data of both kinds implements; keys of maps |

mod attributes;
mod enums;
mod plain;
mod structs;

use proc_macro::TokenStream;
use syn::{Data, DeriveInput, Error, Result, parse_macro_input};

/// Derives `segvm::Persist` for a `#[repr(C)]` struct or a fieldless enum with a fixed `repr`.
///
/// A struct `Notes` gets a projection `NotesMut<'_>` with the same fields, each as what changes it. On the type:
/// `#[persist(plain)]` for a `Copy` struct of plain fields, which is changed through `&mut` instead;
/// `#[persist(plain, key)]` where it is also a key of maps, ordered by its fields as they are declared, and
/// `#[persist(key)]` for an enum that is one, ordered by its numbers;
/// `#[persist(version = 2)]` where the fields stay and their meaning changes. On a field or a variant:
/// `#[persist(renamed_from = "old")]` where the name changes and nothing else, so that what was stored under the old one is found.
#[proc_macro_derive(Persist, attributes(persist))]
pub fn derive_persist(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(input: &DeriveInput) -> Result<proc_macro2::TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a type in a segment has no parameters of its own: write out the types it is used with",
        ));
    }
    let attributes = attributes::read(input)?;
    match &input.data {
        Data::Struct(data) => structs::expand(input, data, &attributes),
        Data::Enum(data) => enums::expand(input, data, &attributes),
        Data::Union(data) => Err(Error::new_spanned(
            data.union_token,
            "a union does not say which of its fields is there: use a struct, or an enum without fields",
        )),
    }
}
