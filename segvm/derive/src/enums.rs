use proc_macro2::TokenStream;
use quote::quote;
use syn::{DataEnum, DeriveInput, Error, Result};

use crate::{
    attributes::{self, Attributes},
    plain,
};

pub(crate) fn expand(
    input: &DeriveInput,
    data: &DataEnum,
    attributes: &Attributes,
) -> Result<TokenStream> {
    let name = &input.ident;
    let Some(integer) = &attributes.integer else {
        return Err(Error::new_spanned(
            name,
            "an enum in a segment needs numbers that every compiler agrees on: add `#[repr(u8)]` above it",
        ));
    };
    if let Some(variant) = data.variants.iter().find(|v| !v.fields.is_empty()) {
        return Err(Error::new_spanned(
            variant,
            "a variant in a segment has no fields: keep the fields in a struct beside the enum, as `Maybe<..>`",
        ));
    }
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    if variants.is_empty() {
        return Err(Error::new_spanned(
            name,
            "an enum without variants has no value",
        ));
    }
    let text_of = attributes::name(name)?;
    let mut described = Vec::with_capacity(variants.len());
    for variant in &data.variants {
        let ident = &variant.ident;
        let text = attributes::name(ident)?;
        let renamed = attributes::renamed_from(&variant.attrs)?;
        described.push(quote! { (#text, #name::#ident as i128, &[#(#renamed),*]) });
    }
    let version = attributes.version;
    let no_zero =
        format!("`{name}` needs a variant with the number 0: new values in a segment are zeros");
    let implemented = plain::implement(
        name,
        &quote! {
            schema.enumeration(#text_of, #version, &[#(#described),*])
        },
    );
    let key = attributes.key.then(|| plain::enum_key(name, integer));
    Ok(quote! {
        const _: () = assert!(false #(|| #name::#variants as #integer == 0)*, #no_zero);
        #implemented
        #key
    })
}
