//! Schemas for people.

use std::{collections::HashSet, fmt};

use super::{Kind, Schema, TypeRef};

/// How many types within types are written out: a stored schema may be anybody's, and a map whose keys and values are such maps
/// doubles with each step.
const MOST_IN_A_NAME: usize = 64;
const MOST_IN_ALL: usize = 4096;
/// And how deep, as writing goes down with them.
const DEEPEST: usize = 32;

/// What is left of the types that are written out.
struct Left(usize);

impl Left {
    /// Tells whether one more may be written, at this depth.
    fn one(&mut self, depth: usize) -> bool {
        let more = self.0 > 0 && depth < DEEPEST;
        self.0 = self.0.saturating_sub(1);
        more
    }
}

impl Schema {
    /// A type in a word or two: a struct by its name.
    #[must_use]
    pub fn name_of(&self, at: TypeRef) -> String {
        self.named(at, 0, &mut Left(MOST_IN_A_NAME))
    }

    fn named(&self, at: TypeRef, depth: usize, left: &mut Left) -> String {
        if !left.one(depth) {
            return "..".to_owned();
        }
        let mut of = |at: TypeRef| self.named(at, depth + 1, left);
        match &self.get(at).kind {
            Kind::Primitive(primitive) => primitive.name().to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::Array { element, len } => format!("[{}; {len}]", of(*element)),
            Kind::Maybe(some) => format!("maybe<{}>", of(*some)),
            Kind::Vec(element) => format!("vec<{}>", of(*element)),
            Kind::Box(inside) => format!("box<{}>", of(*inside)),
            Kind::HashMap { key, value } => format!("hash-map<{}, {}>", of(*key), of(*value)),
            Kind::BTreeMap { key, value } => format!("btree-map<{}, {}>", of(*key), of(*value)),
            Kind::Struct(all) => all.name.clone(),
            Kind::Enum(all) => all.name.clone(),
            Kind::Opaque(name) => name.clone(),
        }
    }
}

/// Everything in one line: a struct in full where it is first mentioned, then by its name.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = Left(MOST_IN_ALL);
        write(self, TypeRef::TOP, 0, &mut left, &mut HashSet::new(), f)
    }
}

fn write(
    schema: &Schema,
    at: TypeRef,
    depth: usize,
    left: &mut Left,
    written: &mut HashSet<TypeRef>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if !left.one(depth) {
        return f.write_str("..");
    }
    let mut of = |at, f: &mut fmt::Formatter<'_>| write(schema, at, depth + 1, left, written, f);
    let one = schema.get(at);
    let mut within = |name: &str, parts: &[TypeRef], f: &mut fmt::Formatter<'_>| {
        write!(f, "{name}<")?;
        for (n, &part) in parts.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            of(part, f)?;
        }
        f.write_str(">")
    };
    match &one.kind {
        Kind::Primitive(_) | Kind::Text | Kind::Opaque(_) => f.write_str(&schema.name_of(at)),
        Kind::Array { element, len } => {
            f.write_str("[")?;
            of(*element, f)?;
            write!(f, "; {len}]")
        }
        Kind::Maybe(some) => within("maybe", &[*some], f),
        Kind::Vec(element) => within("vec", &[*element], f),
        Kind::Box(inside) => within("box", &[*inside], f),
        Kind::HashMap { key, value } => within("hash-map", &[*key, *value], f),
        Kind::BTreeMap { key, value } => within("btree-map", &[*key, *value], f),
        Kind::Struct(all) => {
            if !written.insert(at) {
                return f.write_str(&all.name);
            }
            let (name, version) = (&all.name, all.version);
            write!(f, "struct {name} v{version} {}/{} {{ ", one.size, one.align)?;
            for field in &all.fields {
                write!(f, "{} @{}: ", field.name, field.offset)?;
                write(schema, field.of, depth + 1, left, written, f)?;
                f.write_str("; ")?;
            }
            f.write_str("}")
        }
        Kind::Enum(all) => {
            if !written.insert(at) {
                return f.write_str(&all.name);
            }
            write!(f, "enum {} v{} {} {{ ", all.name, all.version, one.size)?;
            for variant in &all.variants {
                write!(f, "{} = {}; ", variant.name, variant.number)?;
            }
            f.write_str("}")
        }
    }
}
