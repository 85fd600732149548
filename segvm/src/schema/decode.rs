//! Bytes that may be anything, as a schema.

use super::{
    Enum, Field, Kind, Primitive, Schema, SchemaError, Struct, Type, TypeRef, Variant,
    check::{self, MOST_TYPES},
    encode::{
        ARRAY, BOX, BTREE_MAP, ENUM, HASH_MAP, MAGIC, MAYBE, MOST_BYTES, OPAQUE, PRIMITIVE, STRUCT,
        TEXT, VEC, VERSION,
    },
};

/// What is there of the bytes, and where in them.
struct In<'b> {
    rest: &'b [u8],
    len: usize,
}

impl<'b> In<'b> {
    fn flaw(&self, flaw: &'static str) -> SchemaError {
        SchemaError::Damaged {
            at: self.len - self.rest.len(),
            flaw,
        }
    }

    fn bytes(&mut self, n: usize) -> Result<&'b [u8], SchemaError> {
        let Some((first, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.flaw("it ends too early"));
        };
        self.rest = rest;
        Ok(first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SchemaError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, SchemaError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn word(&mut self) -> Result<u32, SchemaError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn long(&mut self) -> Result<u64, SchemaError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn of(&mut self) -> Result<TypeRef, SchemaError> {
        self.word().map(TypeRef)
    }

    fn name(&mut self) -> Result<String, SchemaError> {
        let len = self.byte()?;
        let bytes = self.bytes(len.into())?;
        let name = std::str::from_utf8(bytes).map_err(|_error| self.flaw("a name is not UTF-8"))?;
        Ok(name.to_owned())
    }

    /// So many of what takes at least `least` bytes each: more than are there is a lie.
    fn many<T>(
        &mut self,
        least: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, SchemaError>,
    ) -> Result<Vec<T>, SchemaError> {
        let n = self.word()? as usize;
        if n > self.rest.len() / least {
            return Err(self.flaw("a number of things that are not there"));
        }
        let mut all = Vec::with_capacity(n);
        for _ in 0..n {
            all.push(one(self)?);
        }
        Ok(all)
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Schema, SchemaError> {
    if bytes.len() > MOST_BYTES {
        return Err(SchemaError::TooLarge { bytes: bytes.len() });
    }
    let mut input = In {
        rest: bytes,
        len: bytes.len(),
    };
    if input.bytes(MAGIC.len())? != MAGIC {
        return Err(SchemaError::Damaged {
            at: 0,
            flaw: "it does not begin with SEGVMSCH",
        });
    }
    let got = u16::from_le_bytes(input.array()?);
    if got != VERSION {
        return Err(SchemaError::Version { got });
    }
    if input.array()? != [0; 2] {
        return Err(input.flaw("a reserved byte is not zero"));
    }
    // The least a type takes is its kind, alignment and size.
    let types = input.many(10, one)?;
    if types.len() > MOST_TYPES {
        return Err(SchemaError::TooLarge { bytes: bytes.len() });
    }
    if !input.rest.is_empty() {
        return Err(input.flaw("something follows its end"));
    }
    check::check(&types).map_err(|flaw| SchemaError::Damaged {
        at: bytes.len(),
        flaw,
    })?;
    Ok(Schema { types })
}

fn one(input: &mut In<'_>) -> Result<Type, SchemaError> {
    let (code, log2) = (input.byte()?, input.byte()?);
    let align = 1_u64
        .checked_shl(log2.into())
        .ok_or_else(|| input.flaw("an alignment that no address has"))?;
    let size = input.long()?;
    let kind = match code {
        PRIMITIVE => {
            let code = input.byte()?;
            let known = Primitive::from_code(code);
            Kind::Primitive(known.ok_or_else(|| input.flaw("an unknown primitive"))?)
        }
        TEXT => Kind::Text,
        ARRAY => Kind::Array {
            element: input.of()?,
            len: input.long()?,
        },
        MAYBE => Kind::Maybe(input.of()?),
        VEC => Kind::Vec(input.of()?),
        BOX => Kind::Box(input.of()?),
        HASH_MAP => Kind::HashMap {
            key: input.of()?,
            value: input.of()?,
        },
        BTREE_MAP => Kind::BTreeMap {
            key: input.of()?,
            value: input.of()?,
        },
        STRUCT => Kind::Struct(Struct {
            name: input.name()?,
            version: input.word()?,
            fields: input.many(13, |input| {
                Ok(Field {
                    name: input.name()?,
                    renamed_from: Vec::new(),
                    offset: input.long()?,
                    of: input.of()?,
                })
            })?,
        }),
        ENUM => Kind::Enum(Enum {
            name: input.name()?,
            version: input.word()?,
            variants: input.many(17, |input| {
                Ok(Variant {
                    name: input.name()?,
                    renamed_from: Vec::new(),
                    number: i128::from_le_bytes(input.array()?),
                })
            })?,
        }),
        OPAQUE => Kind::Opaque(input.name()?),
        _ => return Err(input.flaw("a type of unknown kind")),
    };
    Ok(Type { size, align, kind })
}
