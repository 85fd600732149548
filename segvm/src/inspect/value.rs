use super::{
    maps,
    segment::{Flaw, Segment, SegmentBytes},
};
use crate::schema::{Enum, Kind, Primitive, Schema, Struct, TypeRef};

/// How much is read of a value before it is cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Elements or entries of each collection.
    pub items: u64,
    /// Values within values.
    pub depth: u32,
    /// Values in all.
    pub values: u64,
    /// Bytes of each text.
    pub text: u64,
    /// Bytes that are read in all.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items: 100,
            depth: 64,
            values: 1_000_000,
            text: 1 << 16,
            bytes: 1 << 28,
        }
    }
}

/// A value of any type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A truth.
    Bool(bool),
    /// A number without a sign.
    Unsigned(u128),
    /// A number with a sign.
    Signed(i128),
    /// A number with a fraction, in 32 bits.
    F32(f32),
    /// The same, in 64 bits.
    F64(f64),
    /// A character.
    Char(char),
    /// A text, and how many bytes more there are of it.
    Text(String, u64),
    /// A variant's name.
    Variant(String),
    /// An empty box, no value where there may be one.
    Nothing,
    /// Elements, and how many more there are.
    List(Vec<Value>, u64),
    /// Entries, and how many more there are.
    Map(Vec<(Value, Value)>, u64),
    /// Fields by name, as they lie.
    Record(Vec<(String, Value)>),
    /// The bytes of a type that is known by its name alone, and how many more there are.
    Opaque(Vec<u8>, u64),
    /// Bytes that are no value of the type.
    Flaw(Flaw),
    /// Something that was not looked at.
    Cut(Cut),
}

/// Why something was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It lies too deep within other values.
    Depth,
    /// Enough was read before.
    Enough,
}

/// Reads the value of type `at` that lies at an address.
///
/// - **Cost**: as `limits` say, whatever the bytes are.
/// - **Errors**: where bytes cannot be read. What can, and makes no sense, is a [`Value::Flaw`] in its place.
pub fn value<B: SegmentBytes>(
    segment: &mut Segment<B>,
    schema: &Schema,
    address: u64,
    limits: Limits,
) -> Result<Value, B::Error> {
    let mut reader = Reader {
        segment,
        schema,
        limits,
    };
    let size = schema.get(TypeRef::TOP).size;
    match reader.segment.offset(address, size) {
        Some(offset) => reader.value(TypeRef::TOP, offset, limits.depth),
        None => Ok(Value::Flaw(Flaw {
            offset: 0,
            what: "a value outside the segment",
        })),
    }
}

/// What is left of the limits.
pub(super) struct Reader<'r, B> {
    pub(super) segment: &'r mut Segment<B>,
    pub(super) schema: &'r Schema,
    pub(super) limits: Limits,
}

pub(super) fn flaw(offset: u64, what: &'static str) -> Value {
    Value::Flaw(Flaw { offset, what })
}

impl<B: SegmentBytes> Reader<'_, B> {
    /// Tells whether so many bytes more may be read, and counts them.
    pub(super) fn may_read(&mut self, bytes: u64) -> bool {
        let left = self.limits.bytes.checked_sub(bytes);
        self.limits.bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// The value at an offset; all of its own bytes lie in the segment.
    pub(super) fn value(
        &mut self,
        at: TypeRef,
        offset: u64,
        depth: u32,
    ) -> Result<Value, B::Error> {
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(Value::Cut(Cut::Depth));
        };
        if self.limits.values == 0 || !self.may_read(1) {
            return Ok(Value::Cut(Cut::Enough));
        }
        self.limits.values -= 1;
        let schema = self.schema;
        let one = schema.get(at);
        match &one.kind {
            Kind::Primitive(primitive) => self.primitive(*primitive, offset),
            Kind::Text => self.text(offset),
            Kind::Array { element, len } => self.row(*element, offset, *len, depth),
            Kind::Maybe(some) => {
                let inside = 8_u64.next_multiple_of(schema.get(*some).align);
                match self.segment.long(offset)? {
                    0 => Ok(Value::Nothing),
                    1 => self.value(*some, offset + inside, depth),
                    _ => Ok(flaw(offset, "neither a value nor none")),
                }
            }
            Kind::Vec(element) => self.vec(*element, offset, depth),
            Kind::Box(inside) => match self.segment.long(offset)? {
                0 => Ok(Value::Nothing),
                address => match self.place(*inside, address, 1) {
                    Some(place) => self.value(*inside, place, depth),
                    None => Ok(flaw(offset, "a box that leads out of the segment")),
                },
            },
            Kind::HashMap { key, value } => maps::hash_map(self, *key, *value, offset, depth),
            Kind::BTreeMap { key, value } => maps::btree_map(self, *key, *value, offset, depth),
            Kind::Struct(all) => self.record(all, offset, depth),
            Kind::Enum(all) => self.variant(all, one.size, offset),
            Kind::Opaque(_) => {
                let len = one.size.min(self.limits.text);
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                self.segment.bytes.read(offset, &mut bytes)?;
                Ok(Value::Opaque(bytes, one.size - len))
            }
        }
    }

    /// Where `len` values of a type begin that lie at an address; `None` if they do not fit there.
    pub(super) fn place(&self, at: TypeRef, address: u64, len: u64) -> Option<u64> {
        let of = self.schema.get(at);
        let bytes = of.size.checked_mul(len)?;
        if !address.is_multiple_of(of.align) {
            return None;
        }
        self.segment.offset(address, bytes)
    }

    fn primitive(&mut self, primitive: Primitive, offset: u64) -> Result<Value, B::Error> {
        let mut raw = [0; 16];
        let size = usize::try_from(primitive.size()).unwrap_or(0);
        if let Some(bytes) = raw.get_mut(..size) {
            self.segment.bytes.read(offset, bytes)?;
        }
        let wide = u128::from_le_bytes(raw);
        let unused = 128 - 8 * u32::from(u8::try_from(size).unwrap_or(16));
        let signed = (wide << unused).cast_signed() >> unused;
        let low = u32::try_from(wide & u128::from(u32::MAX)).unwrap_or(0);
        let long = u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
        Ok(match primitive {
            Primitive::U8
            | Primitive::U16
            | Primitive::U32
            | Primitive::U64
            | Primitive::U128
            | Primitive::Usize => Value::Unsigned(wide),
            Primitive::I8
            | Primitive::I16
            | Primitive::I32
            | Primitive::I64
            | Primitive::I128
            | Primitive::Isize => Value::Signed(signed),
            Primitive::F32 => Value::F32(f32::from_bits(low)),
            Primitive::F64 => Value::F64(f64::from_bits(long)),
            Primitive::Bool => match low {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => flaw(offset, "neither true nor false"),
            },
            Primitive::Char => {
                let found = char::from_u32(low);
                found.map_or_else(|| flaw(offset, "no character"), Value::Char)
            }
        })
    }

    /// Address and length of a vector or text, whose room must hold them.
    fn block(&mut self, offset: u64) -> Result<Result<(u64, u64), &'static str>, B::Error> {
        let (address, room) = (self.segment.long(offset)?, self.segment.long(offset + 8)?);
        let len = self.segment.long(offset + 16)?;
        Ok(if len > room {
            Err("longer than it has room for")
        } else {
            Ok((address, len))
        })
    }

    fn text(&mut self, offset: u64) -> Result<Value, B::Error> {
        let (address, len) = match self.block(offset)? {
            Ok((_, 0)) => return Ok(Value::Text(String::new(), 0)),
            Ok(found) => found,
            Err(what) => return Ok(flaw(offset, what)),
        };
        let Some(place) = self.segment.offset(address, len) else {
            return Ok(flaw(offset, "a text that leads out of the segment"));
        };
        let shown = len.min(self.limits.text);
        if !self.may_read(shown) {
            return Ok(Value::Cut(Cut::Enough));
        }
        let mut bytes = vec![0; usize::try_from(shown).unwrap_or(0)];
        self.segment.bytes.read(place, &mut bytes)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text, len - shown)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                // A character that is cut in two is none of the text's fault.
                if shown < len && error.utf8_error().error_len().is_none() {
                    let mut bytes = error.into_bytes();
                    bytes.truncate(good);
                    let text = String::from_utf8(bytes).unwrap_or_default();
                    return Ok(Value::Text(text, len - good as u64));
                }
                Ok(flaw(place + good as u64, "a text that is not UTF-8"))
            }
        }
    }

    fn vec(&mut self, element: TypeRef, offset: u64, depth: u32) -> Result<Value, B::Error> {
        let (address, len) = match self.block(offset)? {
            Ok((_, 0)) => return Ok(Value::List(Vec::new(), 0)),
            Ok(found) => found,
            Err(what) => return Ok(flaw(offset, what)),
        };
        match self.place(element, address, len) {
            Some(place) => self.row(element, place, len, depth),
            None => Ok(flaw(offset, "a vector that leads out of the segment")),
        }
    }

    fn row(
        &mut self,
        element: TypeRef,
        offset: u64,
        len: u64,
        depth: u32,
    ) -> Result<Value, B::Error> {
        let size = self.schema.get(element).size;
        let shown = len.min(self.limits.items);
        let mut items = Vec::new();
        for n in 0..shown {
            if self.limits.values == 0 {
                break;
            }
            items.push(self.value(element, offset + n * size, depth)?);
        }
        let more = len - items.len() as u64;
        Ok(Value::List(items, more))
    }

    fn record(&mut self, all: &Struct, offset: u64, depth: u32) -> Result<Value, B::Error> {
        let mut fields = Vec::with_capacity(all.fields.len());
        for field in &all.fields {
            let value = self.value(field.of, offset + field.offset, depth)?;
            fields.push((field.name.clone(), value));
        }
        Ok(Value::Record(fields))
    }

    fn variant(&mut self, all: &Enum, size: u64, offset: u64) -> Result<Value, B::Error> {
        let mut raw = [0; 16];
        let size = usize::try_from(size.min(8)).unwrap_or(8);
        if let Some(bytes) = raw.get_mut(..size) {
            self.segment.bytes.read(offset, bytes)?;
        }
        let number = u128::from_le_bytes(raw);
        let mask = (1_u128 << (8 * size)) - 1;
        let found = all
            .variants
            .iter()
            .find(|variant| variant.number.cast_unsigned() & mask == number);
        Ok(found.map_or_else(
            || flaw(offset, "a number that no variant has"),
            |variant| Value::Variant(variant.name.clone()),
        ))
    }
}
