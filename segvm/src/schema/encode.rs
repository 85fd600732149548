//! A schema as bytes. docs/format.md 8.4 is the word on it.

use super::{Kind, Schema};

/// The most bytes of a schema that is stored.
pub const MOST_BYTES: usize = 1 << 20;
/// The longest name, in bytes.
pub(super) const MOST_NAME: usize = 255;

pub(super) const MAGIC: &[u8; 8] = b"SEGVMSCH";
pub(super) const VERSION: u16 = 1;

pub(super) const PRIMITIVE: u8 = 1;
pub(super) const TEXT: u8 = 2;
pub(super) const ARRAY: u8 = 3;
pub(super) const MAYBE: u8 = 4;
pub(super) const VEC: u8 = 5;
pub(super) const BOX: u8 = 6;
pub(super) const HASH_MAP: u8 = 7;
pub(super) const BTREE_MAP: u8 = 8;
pub(super) const STRUCT: u8 = 9;
pub(super) const ENUM: u8 = 10;
pub(super) const OPAQUE: u8 = 11;

/// Which names are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Those of types too.
    All,
    /// Those of types are left empty.
    OfFields,
}

pub(super) fn encode(schema: &Schema, names: Names) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.0.extend_from_slice(MAGIC);
    out.0.extend_from_slice(&VERSION.to_le_bytes());
    out.0.extend_from_slice(&[0; 2]);
    out.number(schema.types.len());
    let of_type = |name| if names == Names::All { name } else { "" };
    for one in &schema.types {
        let code = code(&one.kind);
        out.0.push(code);
        out.0
            .push(u8::try_from(one.align.trailing_zeros()).unwrap_or(u8::MAX));
        out.0.extend_from_slice(&one.size.to_le_bytes());
        match &one.kind {
            Kind::Primitive(primitive) => out.0.push(primitive.code()),
            Kind::Text => {}
            Kind::Array { element, len } => {
                out.word(element.0);
                out.0.extend_from_slice(&len.to_le_bytes());
            }
            Kind::Maybe(of) | Kind::Vec(of) | Kind::Box(of) => out.word(of.0),
            Kind::HashMap { key, value } | Kind::BTreeMap { key, value } => {
                out.word(key.0);
                out.word(value.0);
            }
            Kind::Struct(all) => {
                out.name(of_type(&all.name));
                out.word(all.version);
                out.number(all.fields.len());
                for field in &all.fields {
                    out.name(&field.name);
                    out.0.extend_from_slice(&field.offset.to_le_bytes());
                    out.word(field.of.0);
                }
            }
            Kind::Enum(all) => {
                out.name(of_type(&all.name));
                out.word(all.version);
                out.number(all.variants.len());
                for variant in &all.variants {
                    out.name(&variant.name);
                    out.0.extend_from_slice(&variant.number.to_le_bytes());
                }
            }
            // The name is all that is known of it, so it counts.
            Kind::Opaque(name) => out.name(name),
        }
    }
    out.0
}

const fn code(kind: &Kind) -> u8 {
    match kind {
        Kind::Primitive(_) => PRIMITIVE,
        Kind::Text => TEXT,
        Kind::Array { .. } => ARRAY,
        Kind::Maybe(_) => MAYBE,
        Kind::Vec(_) => VEC,
        Kind::Box(_) => BOX,
        Kind::HashMap { .. } => HASH_MAP,
        Kind::BTreeMap { .. } => BTREE_MAP,
        Kind::Struct(_) => STRUCT,
        Kind::Enum(_) => ENUM,
        Kind::Opaque(_) => OPAQUE,
    }
}

struct Out(Vec<u8>);

impl Out {
    fn word(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// A number of things in memory, which the limit on bytes keeps far below 2^32.
    fn number(&mut self, n: usize) {
        self.word(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// A name of more than 255 bytes is refused by `check` before anything is stored; its end counts here all the same, so that
    /// no two have one fingerprint.
    fn name(&mut self, name: &str) {
        self.0.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(name.as_bytes());
    }
}
