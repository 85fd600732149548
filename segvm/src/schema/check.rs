//! The rules that every table of types keeps (docs/format.md 8.4).

use std::collections::HashSet;

use super::{Enum, Kind, Struct, Type, TypeRef, encode::MOST_NAME};

/// The most types that one schema is made of.
pub(super) const MOST_TYPES: usize = 4096;
/// The largest value, and the strictest alignment: a heap gives no other block.
const MOST_SIZE: u64 = 1 << 47;
const MOST_ALIGN: u64 = 1 << 16;

type Flaw = &'static str;

pub(super) fn check(types: &[Type]) -> Result<(), Flaw> {
    if types.is_empty() {
        return Err("there is no type in it");
    }
    for one in types {
        if !one.align.is_power_of_two() || one.align > MOST_ALIGN || one.size > MOST_SIZE {
            return Err("a type of impossible size or alignment");
        }
        if !one.size.is_multiple_of(one.align) {
            return Err("a size that is no multiple of the alignment");
        }
    }
    // Only then: a type refers to others, and adds up what was found possible.
    for one in types {
        fits(types, one)?;
    }
    ends(types)
}

fn get(types: &[Type], at: TypeRef) -> Result<&Type, Flaw> {
    types
        .get(at.0 as usize)
        .ok_or("a reference to a type that is not there")
}

/// Whether size, alignment and names are those of the kind.
fn fits(types: &[Type], one: &Type) -> Result<(), Flaw> {
    let (size, align) = match &one.kind {
        Kind::Primitive(primitive) => (primitive.size(), primitive.size()),
        Kind::Text => (24, 8),
        Kind::Vec(of) => {
            get(types, *of)?;
            (24, 8)
        }
        Kind::Box(of) => {
            get(types, *of)?;
            (8, 8)
        }
        Kind::HashMap { key, value } => {
            get(types, *key)?;
            get(types, *value)?;
            (40, 8)
        }
        Kind::BTreeMap { key, value } => {
            get(types, *key)?;
            get(types, *value)?;
            (24, 8)
        }
        Kind::Array { element, len } => {
            let element = get(types, *element)?;
            let size = element.size.checked_mul(*len);
            (size.ok_or("an array beyond all addresses")?, element.align)
        }
        Kind::Maybe(of) => {
            let of = get(types, *of)?;
            let align = of.align.max(8);
            // Both are below 2^48.
            let end = 8_u64.next_multiple_of(of.align) + of.size;
            (end.next_multiple_of(align), align)
        }
        Kind::Struct(all) => return fields(types, one, all),
        Kind::Enum(all) => return variants(one, all),
        Kind::Opaque(name) => return named(name),
    };
    if (one.size, one.align) == (size, align) {
        Ok(())
    } else {
        Err("a size or alignment that its kind does not have")
    }
}

fn named(name: &str) -> Result<(), Flaw> {
    if name.is_empty() || name.len() > MOST_NAME {
        return Err("a name is empty or longer than 255 bytes");
    }
    Ok(())
}

fn fields(types: &[Type], one: &Type, all: &Struct) -> Result<(), Flaw> {
    named(&all.name)?;
    let mut names = HashSet::new();
    let mut end = 0;
    for field in &all.fields {
        named(&field.name)?;
        if !names.insert(&*field.name) {
            return Err("two fields of one name");
        }
        let of = get(types, field.of)?;
        if field.offset < end || !field.offset.is_multiple_of(of.align) || of.align > one.align {
            return Err("a field in another's place, or not aligned");
        }
        end = field
            .offset
            .checked_add(of.size)
            .filter(|&end| end <= one.size)
            .ok_or("a field that leaves its struct")?;
    }
    Ok(())
}

fn variants(one: &Type, all: &Enum) -> Result<(), Flaw> {
    named(&all.name)?;
    if !matches!(one.size, 1 | 2 | 4 | 8) || one.align != one.size {
        return Err("an enum of impossible size");
    }
    let bits = one.size * 8;
    let (least, most) = (-(1_i128 << (bits - 1)), (1_i128 << bits) - 1);
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for variant in &all.variants {
        named(&variant.name)?;
        if variant.number < least || variant.number > most {
            return Err("a variant's number does not fit");
        }
        // Compared as they are stored: -1 and 255 are one byte.
        let stored = variant.number & most;
        if !names.insert(&*variant.name) || !numbers.insert(stored) {
            return Err("two variants of one name or number");
        }
    }
    if numbers.contains(&0) {
        Ok(())
    } else {
        Err("an enum without a variant 0")
    }
}

/// Whether no value contains another of its own type in its place: it would have no end.
fn ends(types: &[Type]) -> Result<(), Flaw> {
    let parts = |one: &Type| -> Vec<usize> {
        match &one.kind {
            Kind::Array { element: of, .. } | Kind::Maybe(of) => vec![of.0 as usize],
            Kind::Struct(all) => all.fields.iter().map(|field| field.of.0 as usize).collect(),
            _ => Vec::new(),
        }
    };
    // Takes away what nothing left contains, until nothing is left: without recursion, as the bytes may be anybody's.
    let mut containers = vec![0_usize; types.len()];
    for part in types.iter().flat_map(parts) {
        if let Some(n) = containers.get_mut(part) {
            *n += 1;
        }
    }
    let zero = containers.iter().enumerate().filter(|(_, n)| **n == 0);
    let mut free: Vec<usize> = zero.map(|(at, _)| at).collect();
    let mut taken = 0;
    while let Some(at) = free.pop() {
        taken += 1;
        for part in types.get(at).map(parts).unwrap_or_default() {
            if let Some(n) = containers.get_mut(part) {
                *n -= 1;
                if *n == 0 {
                    free.push(part);
                }
            }
        }
    }
    if taken == types.len() {
        Ok(())
    } else {
        Err("a type that contains itself without end")
    }
}
