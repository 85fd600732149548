use syn::{Attribute, DeriveInput, Error, Ident, LitInt, LitStr, Result, ext::IdentExt as _};

/// What the attributes say.
#[derive(Default)]
pub(crate) struct Attributes {
    /// `#[repr(C)]` or `#[repr(transparent)]`.
    pub(crate) fixed_struct: bool,
    /// `#[repr(packed)]`: its fields cannot be borrowed.
    pub(crate) packed: bool,
    /// `#[repr(u8)]` and the like.
    pub(crate) integer: Option<Ident>,
    pub(crate) plain: bool,
    /// Its values can be keys of maps.
    pub(crate) key: bool,
    pub(crate) version: u32,
}

pub(crate) fn read(input: &DeriveInput) -> Result<Attributes> {
    let mut out = Attributes {
        version: 1,
        ..Attributes::default()
    };
    for attribute in &input.attrs {
        if attribute.path().is_ident("repr") {
            attribute.parse_nested_meta(|meta| {
                let name = meta.path.require_ident()?;
                match name.to_string().as_str() {
                    "C" | "transparent" => out.fixed_struct = true,
                    "packed" => out.packed = true,
                    "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" => {
                        out.integer = Some(name.unraw());
                    }
                    _ => {}
                }
                if meta.input.peek(syn::token::Paren) {
                    let inner;
                    syn::parenthesized!(inner in meta.input);
                    inner.parse::<LitInt>()?;
                }
                Ok(())
            })?;
        } else if attribute.path().is_ident("persist") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("plain") {
                    out.plain = true;
                    Ok(())
                } else if meta.path.is_ident("key") {
                    out.key = true;
                    Ok(())
                } else if meta.path.is_ident("version") {
                    out.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
                    Ok(())
                } else {
                    Err(meta.error("persist knows `plain`, `key` and `version = N`"))
                }
            })?;
        }
    }
    Ok(out)
}

/// The longest name that a schema keeps, in bytes.
const MOST_NAME: usize = 255;

/// The name by which a schema knows something.
pub(crate) fn name(ident: &Ident) -> Result<String> {
    let name = ident.unraw().to_string();
    if name.len() > MOST_NAME {
        return Err(Error::new_spanned(
            ident,
            "a name in a schema has at most 255 bytes",
        ));
    }
    Ok(name)
}

/// What a field or a variant was called before: `#[persist(renamed_from = "..")]`, as often as it was.
pub(crate) fn renamed_from(attributes: &[Attribute]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for attribute in attributes {
        if attribute.path().is_ident("persist") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("renamed_from") {
                    out.push(meta.value()?.parse::<LitStr>()?.value());
                    Ok(())
                } else {
                    Err(meta
                        .error("of a field or a variant, persist knows `renamed_from = \"..\"`"))
                }
            })?;
        }
    }
    Ok(out)
}
