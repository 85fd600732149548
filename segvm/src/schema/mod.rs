//! What a type looks like, written down: so that two programs can tell whether they mean the same, what differs where they do
//! not, and so that a value can be read by somebody who has neither program.
//!
//! A schema is a table of types that refer to each other by number, so that a type may contain itself. It is stored in
//! the heap beside the root that it describes (docs/format.md 8.4, docs/design/schema.md). Nothing here knows a heap.
//!
//! | file | what |
//! |---|---|
//! | `build` | writing down what a [`Persist`] type looks like |
//! | `encode`, `decode` | as bytes |
//! | `check` | the rules that a table keeps, so that its readers need not look again |
//! | `text` | for people |
//! | `differ` | what is different in two schemas, field by field |
//! | `rust` | a stored type as the source of one |

mod build;
mod check;
mod decode;
mod differ;
mod encode;
mod rust;
mod text;

#[cfg(test)]
mod tests;

pub use self::{
    build::{Fields, SchemaBuilder, VariantSpec},
    differ::{Change, Difference},
    encode::MOST_BYTES,
    rust::Source as RustSource,
};
use crate::persist::Persist;

/// The `derive_key` context of fingerprints. Part of the format; it never changes.
const CONTEXT: &str = "segvm 2026-11 schema v2";

/// What a type looks like: the kinds, names, places and sizes of everything in it, and of what that refers to.
///
/// ```
/// # use segvm::persist::{Persist, Schema};
/// #[derive(Persist)]
/// #[repr(C)]
/// struct Notes { by_title: segvm::HashMap<segvm::Text, u32>, opened: u64 }
///
/// assert_eq!(
///     Schema::of::<Notes>().to_string(),
///     "struct Notes v1 48/8 { by_title @0: hash-map<text, u32>; opened @40: u64; }"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The first is the type that is described; all keep the rules of `check`.
    types: Vec<Type>,
}

/// A type of a schema, by its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeRef(u32);

impl TypeRef {
    /// The type that a schema describes.
    pub const TOP: Self = Self(0);
}

/// One type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// Bytes of a value in its place: what it owns elsewhere is not counted.
    pub size: u64,
    /// Addresses of values are multiples of this power of two.
    pub align: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number, a truth, a character.
    Primitive(Primitive),
    /// [`Text`](crate::Text).
    Text,
    /// Values in a row, in their place.
    Array {
        /// Of which type.
        element: TypeRef,
        /// How many.
        len: u64,
    },
    /// [`Maybe`](crate::Maybe).
    Maybe(TypeRef),
    /// [`Vec`](crate::Vec).
    Vec(TypeRef),
    /// [`Box`](crate::Box).
    Box(TypeRef),
    /// [`HashMap`](crate::HashMap).
    HashMap {
        /// Of its keys.
        key: TypeRef,
        /// Of its values.
        value: TypeRef,
    },
    /// [`BTreeMap`](crate::BTreeMap).
    BTreeMap {
        /// Of its keys.
        key: TypeRef,
        /// Of its values.
        value: TypeRef,
    },
    /// Fields side by side.
    Struct(Struct),
    /// One of several names.
    Enum(Enum),
    /// Known by its name and size alone: another crate's own `Persist`.
    Opaque(String),
}

/// Fields side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struct {
    /// Its name in the program, for people: a type may change its name.
    pub name: String,
    /// What `#[persist(version = ..)]` says; 1 where it says nothing.
    pub version: u32,
    /// In the order of their offsets.
    pub fields: Vec<Field>,
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name; of a tuple's field its number.
    pub name: String,
    /// What it was called before, in this program: not stored.
    pub renamed_from: Vec<String>,
    /// Where it begins in the struct, in bytes.
    pub offset: u64,
    /// Of which type it is.
    pub of: TypeRef,
}

/// One of several names, stored as its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enum {
    /// Its name in the program, for people.
    pub name: String,
    /// What `#[persist(version = ..)]` says; 1 where it says nothing.
    pub version: u32,
    /// As they are declared.
    pub variants: Vec<Variant>,
}

/// One name of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The name.
    pub name: String,
    /// What it was called before, in this program: not stored.
    pub renamed_from: Vec<String>,
    /// Its number, of which as many low bytes are stored as the enum has.
    pub number: i128,
}

macro_rules! primitives {
    ($($variant:ident $name:literal $code:literal $size:literal),*) => {
        /// A type that holds one number, truth or character.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Primitive {
            $(#[doc = concat!("`", $name, "`.")] $variant),*
        }

        impl Primitive {
            /// Its name in Rust.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Bytes of a value; it is aligned to as many.
            #[must_use]
            pub const fn size(self) -> u64 {
                match self { $(Self::$variant => $size),* }
            }

            const fn code(self) -> u8 {
                match self { $(Self::$variant => $code),* }
            }

            const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

primitives!(
    U8 "u8" 1 1, U16 "u16" 2 2, U32 "u32" 3 4, U64 "u64" 4 8, U128 "u128" 5 16, Usize "usize" 6 8,
    I8 "i8" 7 1, I16 "i16" 8 2, I32 "i32" 9 4, I64 "i64" 10 8, I128 "i128" 11 16, Isize "isize" 12 8,
    F32 "f32" 13 4, F64 "f64" 14 8, Bool "bool" 15 1, Char "char" 16 4
);

/// Why a schema cannot be written down or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There is more of it than can be kept.
    #[error(
        "a schema of {bytes} bytes, and {MOST_BYTES} are the most: keep parts of it in roots of their own"
    )]
    TooLarge {
        /// Bytes it would take.
        bytes: usize,
    },
    /// The bytes are none, or the type describes itself wrongly.
    #[error("the schema is not one: byte {at}: {flaw}")]
    Damaged {
        /// Where in its bytes; their number where it is about the whole.
        at: usize,
        /// What is wrong.
        flaw: &'static str,
    },
    /// A later version of segvm wrote it.
    #[error("the schema has format version {got}; this program reads version 1: use a newer segvm")]
    Version {
        /// Its version.
        got: u16,
    },
}

impl Schema {
    /// Writes down what `T` looks like.
    #[must_use]
    pub fn of<T: Persist>() -> Self {
        let mut builder = SchemaBuilder::default();
        builder.of::<T>();
        builder.finish()
    }

    /// BLAKE3 of the description without the names of types, which may change: equal for types that can read each other's
    /// values.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT, &encode::encode(self, encode::Names::OfFields))
    }

    /// The bytes that are stored.
    ///
    /// - **Errors**: [`SchemaError::TooLarge`]; [`SchemaError::Damaged`] where a type of another crate describes itself wrongly.
    pub fn encode(&self) -> Result<std::vec::Vec<u8>, SchemaError> {
        let bytes = encode::encode(self, encode::Names::All);
        if bytes.len() > MOST_BYTES || self.types.len() > check::MOST_TYPES {
            return Err(SchemaError::TooLarge { bytes: bytes.len() });
        }
        check::check(&self.types).map_err(|flaw| SchemaError::Damaged {
            at: bytes.len(),
            flaw,
        })?;
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// - **Cost**: O(bytes) of memory and time, whatever they say.
    /// - **Errors**: where the bytes are not exactly a schema that keeps every rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, SchemaError> {
        decode::decode(bytes)
    }

    /// All types; the first is the one that is described.
    #[must_use]
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The type that a reference means; nothing of no size if it is another schema's.
    #[must_use]
    pub fn get(&self, at: TypeRef) -> &Type {
        static NOTHING: Type = Type {
            size: 0,
            align: 1,
            kind: Kind::Opaque(String::new()),
        };
        self.types.get(at.0 as usize).unwrap_or(&NOTHING)
    }

    /// What has to happen to a value of this schema for it to be one of `wanted`, in the order of the fields; nothing where they
    /// mean the same.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<Difference> {
        differ::differ(self, wanted)
    }

    /// Tells whether every value of this schema is one of `wanted` as it lies there: where nothing differs but names that
    /// `wanted` says have changed, and variants that are new.
    #[must_use]
    pub fn fits(&self, wanted: &Self) -> bool {
        let mut differences = self.differences(wanted).into_iter();
        differences.all(|difference| difference.change.is_harmless())
    }

    /// The source of types that look so, each name with `prefix` in front: what a migration starts from.
    #[must_use]
    pub fn to_rust<'s>(&'s self, prefix: &'s str) -> RustSource<'s> {
        RustSource::new(self, prefix)
    }
}
