use std::{any::TypeId, collections::HashMap};

use super::{Enum, Field, Kind, Schema, Struct, Type, TypeRef, Variant};
use crate::persist::Persist;

/// Where [`Persist::describe`] says what a type is made of.
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    /// `None` while a type is being described, which one that contains itself mentions meanwhile.
    types: Vec<Option<Type>>,
    seen: HashMap<TypeId, TypeRef>,
}

/// A variant of an enum: its name, its number, what it was called before.
pub type VariantSpec<'a> = (&'a str, i128, &'a [&'a str]);

impl SchemaBuilder {
    /// Describes `T`, once.
    pub fn of<T: Persist>(&mut self) -> TypeRef {
        let id = TypeId::of::<T>();
        if let Some(&seen) = self.seen.get(&id) {
            return seen;
        }
        let at = self.types.len();
        let new = TypeRef(u32::try_from(at).unwrap_or(u32::MAX));
        self.seen.insert(id, new);
        self.types.push(None);
        let kind = T::describe(self);
        if let Some(place) = self.types.get_mut(at) {
            *place = Some(Type {
                size: size_of::<T>() as u64,
                align: align_of::<T>() as u64,
                kind,
            });
        }
        new
    }

    /// A struct of that name; `fields` names each of its fields.
    pub fn structure(
        &mut self,
        name: &str,
        version: u32,
        fields: impl FnOnce(&mut Fields<'_>),
    ) -> Kind {
        let mut all = Fields {
            schema: self,
            fields: Vec::new(),
        };
        fields(&mut all);
        let mut fields = all.fields;
        // As they lie, which is not always as they are declared: `repr(transparent)` promises no order.
        fields.sort_by_key(|field| field.offset);
        Kind::Struct(Struct {
            name: name.to_owned(),
            version,
            fields,
        })
    }

    /// A fieldless enum, as its variants and their numbers.
    pub fn enumeration(&mut self, name: &str, version: u32, variants: &[VariantSpec<'_>]) -> Kind {
        let variants = variants
            .iter()
            .map(|&(name, number, renamed_from)| Variant {
                name: name.to_owned(),
                renamed_from: owned(renamed_from),
                number,
            });
        Kind::Enum(Enum {
            name: name.to_owned(),
            version,
            variants: variants.collect(),
        })
    }

    pub(super) fn finish(self) -> Schema {
        Schema {
            // None is left: each was filled by the call that pushed it.
            types: self.types.into_iter().flatten().collect(),
        }
    }
}

/// The fields of a struct.
#[derive(Debug)]
pub struct Fields<'a> {
    schema: &'a mut SchemaBuilder,
    fields: Vec<Field>,
}

impl Fields<'_> {
    /// One field: its name, where it lies, and what it was called before.
    pub fn field<F: Persist>(&mut self, name: &str, offset: usize, renamed_from: &[&str]) {
        let of = self.schema.of::<F>();
        self.fields.push(Field {
            name: name.to_owned(),
            renamed_from: owned(renamed_from),
            offset: offset as u64,
            of,
        });
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
