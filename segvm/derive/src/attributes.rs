use syn::{DeriveInput, Ident, LitInt, Result, ext::IdentExt as _};

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
