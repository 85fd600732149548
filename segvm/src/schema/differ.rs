//! What is different in two schemas: a walk over both at once.

use std::{collections::HashSet, fmt};

use super::{Enum, Field, Kind, Schema, Struct, TypeRef, Variant};

/// Something in a stored type that is not as a program wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: fields with dots between, `[]` for an element, `{key}` and `{}` for a map's key and value. Empty for the whole.
    pub path: String,
    /// What.
    pub change: Change,
}

/// How it is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A field that is not stored.
    Added {
        /// Of which type.
        kind: String,
    },
    /// A field that is stored and not wanted.
    Removed {
        /// Of which type.
        kind: String,
    },
    /// A field that lies elsewhere in its struct.
    Moved {
        /// Where it is stored, in bytes from the struct.
        from: u64,
        /// Where it is wanted.
        to: u64,
    },
    /// Another type.
    Retyped {
        /// As it is stored.
        from: String,
        /// As it is wanted.
        to: String,
    },
    /// Another name for the same, as the program says: no harm.
    Renamed {
        /// As it is stored.
        from: String,
    },
    /// One name is gone and another is new, in the same place: the program would say so if it is the same.
    RenamedPerhaps {
        /// As it is stored.
        from: String,
    },
    /// More or fewer bytes.
    Resized {
        /// As it is stored.
        from: u64,
        /// As it is wanted.
        to: u64,
    },
    /// Addresses that are multiples of another power of two.
    Realigned {
        /// As it is stored.
        from: u64,
        /// As it is wanted.
        to: u64,
    },
    /// The program says that it means something else.
    Version {
        /// As it is stored.
        from: u32,
        /// As it is wanted.
        to: u32,
    },
    /// A variant that no stored value has: no harm.
    VariantAdded {
        /// Its number.
        number: i128,
    },
    /// A variant that stored values may have, and that is gone.
    VariantRemoved {
        /// Its number.
        number: i128,
    },
    /// A variant with another number.
    Renumbered {
        /// As it is stored.
        from: i128,
        /// As it is wanted.
        to: i128,
    },
}

impl Change {
    /// Tells whether stored values are wanted ones all the same.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Renamed { .. } | Self::VariantAdded { .. })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.path {
            "" => f.write_str("the whole: ")?,
            path => write!(f, "{path}: ")?,
        }
        match &self.change {
            Change::Added { kind } => write!(f, "added, {kind}"),
            Change::Removed { kind } => write!(f, "removed, was {kind}"),
            Change::Moved { from, to } => write!(f, "moved, from byte {from} to {to}"),
            Change::Retyped { from, to } => write!(f, "retyped, from {from} to {to}"),
            Change::Renamed { from } => write!(f, "renamed, was {from}"),
            Change::RenamedPerhaps { from } => write!(
                f,
                "renamed? {from} was there: if it is the same, say #[persist(renamed_from = {from:?})]"
            ),
            Change::Resized { from, to } => write!(f, "resized, from {from} to {to} bytes"),
            Change::Realigned { from, to } => write!(f, "realigned, from {from} to {to}"),
            Change::Version { from, to } => write!(f, "version {to} now, was {from}"),
            Change::VariantAdded { number } => write!(f, "added, the variant {number}"),
            Change::VariantRemoved { number } => write!(f, "removed, was the variant {number}"),
            Change::Renumbered { from, to } => write!(f, "renumbered, from {from} to {to}"),
        }
    }
}

/// Pairs of types that are compared, and the longest way to one in bytes: a stored schema may be anybody's.
const MOST_PAIRS: usize = 1 << 16;
const LONGEST_PATH: usize = 1 << 14;

/// What is still to be compared.
struct Pair {
    path: String,
    was: TypeRef,
    is: TypeRef,
}

struct Walk<'s> {
    was: &'s Schema,
    is: &'s Schema,
    /// Newest last: the next to look at, so that what is in a field follows it.
    next: Vec<Pair>,
    found: Vec<Difference>,
}

pub(super) fn differ(was: &Schema, is: &Schema) -> Vec<Difference> {
    let mut walk = Walk {
        was,
        is,
        next: vec![Pair {
            path: String::new(),
            was: TypeRef::TOP,
            is: TypeRef::TOP,
        }],
        found: Vec::new(),
    };
    // A pair is looked at once, where it is first met: types may contain themselves, and be used in many places.
    let mut seen = HashSet::new();
    while let Some(pair) = walk.next.pop() {
        if seen.len() == MOST_PAIRS || pair.path.len() > LONGEST_PATH {
            // Somebody's bytes, not a program's type: refused as it is, whatever the rest would say.
            let (from, to) = (was.name_of(TypeRef::TOP), is.name_of(TypeRef::TOP));
            walk.find("", Change::Retyped { from, to });
            break;
        }
        if seen.insert((pair.was, pair.is)) {
            let before = walk.next.len();
            walk.compare(&pair);
            if let Some(new) = walk.next.get_mut(before..) {
                new.reverse();
            }
        }
    }
    walk.found
}

impl Walk<'_> {
    fn find(&mut self, path: &str, change: Change) {
        self.found.push(Difference {
            path: path.to_owned(),
            change,
        });
    }

    fn later(&mut self, path: String, was: TypeRef, is: TypeRef) {
        self.next.push(Pair { path, was, is });
    }

    fn compare(&mut self, pair: &Pair) {
        let (old, new) = (self.was.get(pair.was), self.is.get(pair.is));
        let path = &*pair.path;
        match (&old.kind, &new.kind) {
            (Kind::Struct(from), Kind::Struct(to)) => {
                self.version(path, from.version, to.version);
                self.resized(path, old.size, new.size);
                if old.align != new.align {
                    let (from, to) = (old.align, new.align);
                    self.find(path, Change::Realigned { from, to });
                }
                self.fields(path, from, to);
            }
            (Kind::Enum(from), Kind::Enum(to)) => {
                self.version(path, from.version, to.version);
                self.resized(path, old.size, new.size);
                self.variants(path, from, to);
            }
            (
                Kind::Array {
                    element: from,
                    len: old_len,
                },
                Kind::Array { element: to, len },
            ) => {
                if old_len != len {
                    self.resized(path, old.size, new.size);
                }
                self.later(format!("{path}[]"), *from, *to);
            }
            (Kind::Vec(from), Kind::Vec(to)) => self.later(format!("{path}[]"), *from, *to),
            (Kind::Maybe(from), Kind::Maybe(to)) | (Kind::Box(from), Kind::Box(to)) => {
                self.later(path.to_owned(), *from, *to);
            }
            (
                Kind::HashMap { key, value },
                Kind::HashMap {
                    key: new_key,
                    value: new_value,
                },
            )
            | (
                Kind::BTreeMap { key, value },
                Kind::BTreeMap {
                    key: new_key,
                    value: new_value,
                },
            ) => {
                self.later(format!("{path}{{key}}"), *key, *new_key);
                self.later(format!("{path}{{}}"), *value, *new_value);
            }
            (a, b) if a == b && (old.size, old.align) == (new.size, new.align) => {}
            _ => {
                let (from, to) = (self.was.name_of(pair.was), self.is.name_of(pair.is));
                self.find(path, Change::Retyped { from, to });
            }
        }
    }

    fn version(&mut self, path: &str, from: u32, to: u32) {
        if from != to {
            self.find(path, Change::Version { from, to });
        }
    }

    fn resized(&mut self, path: &str, from: u64, to: u64) {
        if from != to {
            self.find(path, Change::Resized { from, to });
        }
    }

    fn fields(&mut self, path: &str, from: &Struct, to: &Struct) {
        let at = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        let mut left: Vec<&Field> = from.fields.iter().collect();
        let mut take = |wanted: &dyn Fn(&Field) -> bool| {
            let at = left.iter().position(|field| wanted(field))?;
            Some(left.remove(at))
        };
        // By name first: a name that is there is never somebody's old one.
        let mut pairs: Vec<(&Field, Option<&Field>)> = Vec::new();
        for new in &to.fields {
            pairs.push((new, take(&|old| old.name == new.name)));
        }
        for (new, old) in &mut pairs {
            if old.is_none() {
                *old = take(&|old| new.renamed_from.contains(&old.name));
            }
        }
        for (new, old) in &mut pairs {
            if old.is_none() {
                *old = take(&|old| {
                    let same = || self.was.name_of(old.of) == self.is.name_of(new.of);
                    old.offset == new.offset && same()
                });
            }
        }
        for (new, old) in pairs {
            let path = at(&new.name);
            let Some(old) = old else {
                let kind = self.is.name_of(new.of);
                self.find(&path, Change::Added { kind });
                continue;
            };
            if old.name != new.name {
                let from = old.name.clone();
                let change = match new.renamed_from.contains(&old.name) {
                    true => Change::Renamed { from },
                    false => Change::RenamedPerhaps { from },
                };
                self.find(&path, change);
            }
            if old.offset != new.offset {
                let (from, to) = (old.offset, new.offset);
                self.find(&path, Change::Moved { from, to });
            }
            self.later(path, old.of, new.of);
        }
        for old in left {
            let kind = self.was.name_of(old.of);
            self.find(&at(&old.name), Change::Removed { kind });
        }
    }

    fn variants(&mut self, path: &str, from: &Enum, to: &Enum) {
        let at = |name: &str| format!("{path}::{name}");
        let mut left: Vec<&Variant> = from.variants.iter().collect();
        let mut take = |wanted: &dyn Fn(&Variant) -> bool| {
            let at = left.iter().position(|variant| wanted(variant))?;
            Some(left.remove(at))
        };
        let mut pairs: Vec<(&Variant, Option<&Variant>)> = Vec::new();
        for new in &to.variants {
            pairs.push((new, take(&|old| old.name == new.name)));
        }
        for (new, old) in &mut pairs {
            if old.is_none() {
                *old = take(&|old| new.renamed_from.contains(&old.name));
            }
        }
        for (new, old) in &mut pairs {
            if old.is_none() {
                *old = take(&|old| old.number == new.number);
            }
        }
        for (new, old) in pairs {
            let path = at(&new.name);
            let Some(old) = old else {
                let number = new.number;
                self.find(&path, Change::VariantAdded { number });
                continue;
            };
            if old.name != new.name {
                let from = old.name.clone();
                let change = match new.renamed_from.contains(&old.name) {
                    true => Change::Renamed { from },
                    false => Change::RenamedPerhaps { from },
                };
                self.find(&path, change);
            }
            if old.number != new.number {
                let (from, to) = (old.number, new.number);
                self.find(&path, Change::Renumbered { from, to });
            }
        }
        for old in left {
            let number = old.number;
            self.find(&at(&old.name), Change::VariantRemoved { number });
        }
    }
}
