//! A stored type as the source of one that has the same schema.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::{Enum, Kind, Schema, Struct, Type, TypeRef};

/// Writes types that look like those of a schema, ready to be pasted into a program: [`Schema::to_rust`].
#[derive(Debug)]
pub struct Source<'s> {
    schema: &'s Schema,
    prefix: &'s str,
    /// Types that have to be plain data, being elements of arrays or keys.
    plain: HashSet<TypeRef>,
    /// Types that are keys of maps, and what those are made of.
    keys: HashSet<TypeRef>,
    /// The first type of each name: two modules may have types of one.
    first: HashMap<&'s str, usize>,
}

/// Types within types that are written out in a field's type: a stored schema may be anybody's.
const MOST_IN_A_NAME: usize = 256;
const DEEPEST: usize = 32;

impl<'s> Source<'s> {
    pub(super) fn new(schema: &'s Schema, prefix: &'s str) -> Self {
        let (mut keys, mut plain) = (Vec::new(), Vec::new());
        for one in schema.types() {
            match one.kind {
                Kind::HashMap { key, .. } | Kind::BTreeMap { key, .. } => keys.push(key),
                Kind::Array { element, .. } => plain.push(element),
                _ => {}
            }
        }
        plain.extend(&keys);
        let mut first = HashMap::new();
        for (at, one) in schema.types().iter().enumerate() {
            if let Some(name) = one.kind.own_name() {
                first.entry(name).or_insert(at);
            }
        }
        Self {
            schema,
            prefix,
            first,
            plain: with_parts(schema, plain),
            keys: with_parts(schema, keys),
        }
    }

    /// The name of the type on top.
    #[must_use]
    pub fn name(&self) -> String {
        self.type_name(TypeRef::TOP)
    }

    fn type_name(&self, at: TypeRef) -> String {
        self.named(at, 0, &mut MOST_IN_A_NAME.clone())
    }

    fn named(&self, at: TypeRef, depth: usize, left: &mut usize) -> String {
        if depth > DEEPEST || *left == 0 {
            return "_".to_owned();
        }
        *left -= 1;
        let mut of = |at| self.named(at, depth + 1, left);
        let kind = &self.schema.get(at).kind;
        match kind {
            Kind::Primitive(primitive) => primitive.name().to_owned(),
            Kind::Text => "segvm::Text".to_owned(),
            Kind::Array { element, len } => format!("[{}; {len}]", of(*element)),
            Kind::Maybe(some) => format!("segvm::Maybe<{}>", of(*some)),
            Kind::Vec(element) => format!("segvm::Vec<{}>", of(*element)),
            Kind::Box(inside) => format!("segvm::Box<{}>", of(*inside)),
            Kind::HashMap { key, value } => format!("segvm::HashMap<{}, {}>", of(*key), of(*value)),
            Kind::BTreeMap { key, value } => {
                format!("segvm::BTreeMap<{}, {}>", of(*key), of(*value))
            }
            Kind::Struct(Struct { name, .. }) | Kind::Enum(Enum { name, .. }) => {
                let name = format!("{}{}", self.prefix, identifier(name));
                match kind.own_name().and_then(|own| self.first.get(own)) {
                    Some(&first) if first != at.0 as usize => format!("{name}{}", at.0),
                    _ => name,
                }
            }
            Kind::Opaque(name) => identifier(name),
        }
    }

    fn persist(&self, at: TypeRef, version: u32, always_plain: bool) -> String {
        let mut words = Vec::new();
        if self.plain.contains(&at) && !always_plain {
            words.push("plain".to_owned());
        }
        if self.keys.contains(&at) {
            words.push("key".to_owned());
        }
        if version != 1 {
            words.push(format!("version = {version}"));
        }
        match words.is_empty() {
            true => String::new(),
            false => format!("#[persist({})]\n", words.join(", ")),
        }
    }

    fn structure(
        &self,
        at: TypeRef,
        one: &Type,
        all: &Struct,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let aligns = all
            .fields
            .iter()
            .map(|field| self.schema.get(field.of).align);
        let align = match aligns.max() {
            Some(align) if align < one.align => format!(", align({})", one.align),
            _ => String::new(),
        };
        let copy = match self.plain.contains(&at) {
            true => ", Clone, Copy, Debug",
            false => "",
        };
        write!(f, "#[derive(segvm::Persist{copy})]\n#[repr(C{align})]\n")?;
        f.write_str(&self.persist(at, all.version, false))?;
        let name = self.type_name(at);
        let is_tuple = all
            .fields
            .iter()
            .all(|field| field.name.bytes().all(|byte| byte.is_ascii_digit()));
        if is_tuple {
            let types = all.fields.iter().map(|field| self.type_name(field.of));
            return writeln!(
                f,
                "struct {name}({});",
                types.collect::<Vec<_>>().join(", ")
            );
        }
        writeln!(f, "struct {name} {{")?;
        for field in &all.fields {
            let of = self.type_name(field.of);
            writeln!(f, "    {}: {of},", identifier(&field.name))?;
        }
        writeln!(f, "}}")
    }

    fn enumeration(
        &self,
        at: TypeRef,
        one: &Type,
        all: &Enum,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let sign = match all.variants.iter().any(|variant| variant.number < 0) {
            true => 'i',
            false => 'u',
        };
        let bits = one.size * 8;
        write!(
            f,
            "#[derive(segvm::Persist, Clone, Copy, Debug)]\n#[repr({sign}{bits})]\n"
        )?;
        f.write_str(&self.persist(at, all.version, true))?;
        writeln!(f, "enum {} {{", self.type_name(at))?;
        for variant in &all.variants {
            writeln!(f, "    {} = {},", identifier(&variant.name), variant.number)?;
        }
        writeln!(f, "}}")
    }
}

impl Kind {
    /// The name that a struct or an enum has in its program.
    fn own_name(&self) -> Option<&str> {
        match self {
            Self::Struct(Struct { name, .. }) | Self::Enum(Enum { name, .. }) => Some(name),
            _ => None,
        }
    }
}

/// What lies in the place of these types, too.
fn with_parts(schema: &Schema, mut next: Vec<TypeRef>) -> HashSet<TypeRef> {
    let mut all = HashSet::new();
    while let Some(at) = next.pop() {
        if all.insert(at) {
            match &schema.get(at).kind {
                Kind::Struct(of) => next.extend(of.fields.iter().map(|field| field.of)),
                Kind::Array { element, .. } => next.push(*element),
                _ => {}
            }
        }
    }
    all
}

/// A stored name may hold anything.
fn identifier(name: &str) -> String {
    let fits = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(fits).collect();
    match &*name {
        "type" | "match" | "move" | "ref" | "use" | "where" | "in" | "box" | "fn" | "mod"
        | "loop" | "impl" | "trait" | "struct" | "enum" | "const" | "static" | "let" | "mut"
        | "pub" | "return" | "if" | "else" | "for" | "while" | "as" | "break" | "continue"
        | "dyn" | "async" | "await" | "unsafe" | "extern" | "true" | "false" | "final"
        | "macro" | "override" | "priv" | "try" | "typeof" | "unsized" | "virtual" | "yield"
        | "abstract" | "become" | "do" | "gen" => format!("r#{name}"),
        _ => name,
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (n, one) in self.schema.types().iter().enumerate() {
            let at = TypeRef(u32::try_from(n).unwrap_or(u32::MAX));
            if one.kind.own_name().is_none() {
                continue;
            }
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            match &one.kind {
                Kind::Struct(all) => self.structure(at, one, all, f)?,
                Kind::Enum(all) => self.enumeration(at, one, all, f)?,
                _ => {}
            }
        }
        Ok(())
    }
}
