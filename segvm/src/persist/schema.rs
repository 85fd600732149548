//! What a type looks like, written down so that two programs can tell whether they mean the same.

use std::{any::TypeId, fmt, fmt::Write as _, mem};

use super::Persist;

/// The `derive_key` context of fingerprints. Part of the format; it never changes.
const CONTEXT: &str = "segvm 2026-11 schema v1";

/// What a type looks like: its fields' names, kinds, offsets and sizes, but not its own name, which may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    text: String,
}

impl Schema {
    /// Writes down what `T` looks like.
    #[must_use]
    pub fn of<T: Persist>() -> Self {
        let mut builder = SchemaBuilder::default();
        T::describe(&mut builder);
        Self { text: builder.text }
    }

    /// BLAKE3 of the description: equal for types that can read each other's values.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT, self.text.as_bytes())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where [`Persist::describe`] writes.
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    text: String,
    /// Structs in the order they were begun: a second mention, which recursion needs, is a number.
    seen: Vec<TypeId>,
}

impl SchemaBuilder {
    /// A type that is known by its name.
    pub fn primitive(&mut self, name: &str) {
        self.text.push_str(name);
    }

    /// `N` values in a row.
    pub fn array<T: Persist>(&mut self, len: usize) {
        self.text.push('[');
        T::describe(self);
        self.write(format_args!("; {len}]"));
    }

    /// A type of this crate with parameters.
    pub fn generic(&mut self, name: &str, parameters: &[fn(&mut Self)]) {
        self.text.push_str(name);
        self.text.push('<');
        for (at, parameter) in parameters.iter().enumerate() {
            if at > 0 {
                self.text.push_str(", ");
            }
            parameter(self);
        }
        self.text.push('>');
    }

    /// A struct; `fields` names each of its fields.
    pub fn structure<T: Persist>(&mut self, version: u32, fields: impl FnOnce(&mut Fields<'_>)) {
        let id = TypeId::of::<T>();
        if let Some(at) = self.seen.iter().position(|seen| *seen == id) {
            return self.write(format_args!("^{at}"));
        }
        self.seen.push(id);
        let (size, align) = (mem::size_of::<T>(), mem::align_of::<T>());
        self.write(format_args!("struct v{version} {size}/{align} {{ "));
        fields(&mut Fields { schema: self });
        self.text.push('}');
    }

    /// A fieldless enum of `size` bytes, as its variants and their numbers.
    pub fn enumeration(&mut self, version: u32, size: usize, variants: &[(&str, i128)]) {
        self.write(format_args!("enum v{version} {size} {{ "));
        for (name, number) in variants {
            self.write(format_args!("{name} = {number}; "));
        }
        self.text.push('}');
    }

    fn write(&mut self, args: fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _never = self.text.write_fmt(args);
    }
}

/// The fields of a struct.
#[derive(Debug)]
pub struct Fields<'a> {
    schema: &'a mut SchemaBuilder,
}

impl Fields<'_> {
    /// One field: its name and where it lies.
    pub fn field<F: Persist>(&mut self, name: &str, offset: usize) {
        self.schema.write(format_args!("{name} @{offset}: "));
        F::describe(self.schema);
        self.schema.text.push_str("; ");
    }
}
