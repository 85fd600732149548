use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DataStruct, DeriveInput, Error, Field, Fields, Index, Member, Result};

use crate::{
    attributes::{self, Attributes},
    plain,
};

pub(crate) fn expand(
    input: &DeriveInput,
    data: &DataStruct,
    attributes: &Attributes,
) -> Result<TokenStream> {
    if !attributes.fixed_struct || attributes.packed {
        return Err(Error::new_spanned(
            &input.ident,
            "a struct in a segment needs a layout that every compiler agrees on: add `#[repr(C)]` (not packed) above it",
        ));
    }
    if data.fields.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "a struct without fields has nothing to keep in a segment",
        ));
    }
    let described = describe(input, data, attributes)?;
    if attributes.plain {
        Ok(plain(input, data, attributes, &described))
    } else if attributes.key {
        Err(Error::new_spanned(
            &input.ident,
            "a key is given whole to a map, so it owns nothing: `#[persist(plain, key)]`, with plain fields",
        ))
    } else {
        Ok(owning(input, data, &described))
    }
}

fn members(data: &DataStruct) -> Vec<(Member, &Field)> {
    let member = |(at, field): (usize, &_)| -> Member {
        let field: &Field = field;
        match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(at)),
        }
    };
    let fields = data.fields.iter();
    fields
        .enumerate()
        .map(|(at, field)| (member((at, field)), field))
        .collect()
}

fn describe(
    input: &DeriveInput,
    data: &DataStruct,
    attributes: &Attributes,
) -> Result<TokenStream> {
    let version = attributes.version;
    let name = &input.ident;
    let text_of = attributes::name(name)?;
    let mut fields = Vec::with_capacity(data.fields.len());
    for (member, field) in members(data) {
        let ty = &field.ty;
        let text = match &member {
            Member::Named(name) => attributes::name(name)?,
            Member::Unnamed(index) => index.index.to_string(),
        };
        let renamed = attributes::renamed_from(&field.attrs)?;
        fields.push(quote! {
            fields.field::<#ty>(#text, ::core::mem::offset_of!(#name, #member), &[#(#renamed),*]);
        });
    }
    Ok(quote! { schema.structure(#text_of, #version, |fields| { #(#fields)* }) })
}

fn plain(
    input: &DeriveInput,
    data: &DataStruct,
    attributes: &Attributes,
    described: &TokenStream,
) -> TokenStream {
    let name = &input.ident;
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let implemented = plain::implement(name, described);
    let key = attributes.key.then(|| {
        let members: Vec<_> = members(data)
            .into_iter()
            .map(|(member, _)| member)
            .collect();
        plain::struct_key(name, &members, &types)
    });
    // Said here, the refusal is about the field; from the implementation it would be about a look-up.
    let keys = attributes.key.then(|| {
        quote! {
            const fn key<T: ::segvm::collections::Key>() {}
            #(key::<#types>();)*
        }
    });
    quote! {
        const _: () = {
            const fn plain<T: ::segvm::persist::Plain>() {}
            #(plain::<#types>();)*
            #keys
        };
        #implemented
        #key
    }
}

fn owning(input: &DeriveInput, data: &DataStruct, described: &TokenStream) -> TokenStream {
    let (name, vis) = (&input.ident, &input.vis);
    let mut_name = format_ident!("{name}Mut");
    let members = members(data);
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let names: Vec<_> = members.iter().map(|(member, _)| member).collect();
    let declared = members.iter().map(|(member, field)| {
        let (ty, vis) = (&field.ty, &field.vis);
        let ty = quote! { <#ty as ::segvm::persist::Persist>::Mut<'segvm> };
        match member {
            Member::Named(name) => {
                let doc = format!("Changes `{name}`.");
                quote! { #[doc = #doc] #vis #name: #ty }
            }
            Member::Unnamed(_) => quote! { #vis #ty },
        }
    });
    let body = match &data.fields {
        Fields::Named(_) => quote! { { #(#declared),* } },
        Fields::Unnamed(_) | Fields::Unit => quote! { ( #(#declared),* ); },
    };
    let doc = format!("Changes a [`{name}`] in its place in a segment.");
    quote! {
        #[doc = #doc]
        #[allow(missing_debug_implementations, dead_code)]
        #vis struct #mut_name<'segvm> #body

        // SAFETY: repr(C), every field is Persist (the impl does not compile otherwise), and the projection hands out no
        // more than the projections of the fields.
        #[automatically_derived]
        #[allow(unsafe_code)]
        unsafe impl ::segvm::persist::Persist for #name {
            type Mut<'segvm> = #mut_name<'segvm>;
            const OWNS: bool = false #(|| <#types as ::segvm::persist::Persist>::OWNS)*;

            unsafe fn project<'segvm>(
                place: ::core::ptr::NonNull<Self>,
                heap: &'segvm ::segvm::heap::Heap,
            ) -> #mut_name<'segvm> {
                #mut_name {
                    #(#names: {
                        // SAFETY: a field of a valid value, reached by nothing else; no other field's bytes are touched.
                        unsafe {
                            <#types as ::segvm::persist::Persist>::project(
                                place.byte_add(::core::mem::offset_of!(#name, #names)).cast(),
                                heap,
                            )
                        }
                    }),*
                }
            }

            unsafe fn drop_in(place: ::core::ptr::NonNull<Self>, heap: &::segvm::heap::Heap) {
                // SAFETY: each field of a valid value once.
                unsafe {
                    #(<#types as ::segvm::persist::Persist>::drop_in(
                        place.byte_add(::core::mem::offset_of!(#name, #names)).cast(),
                        heap,
                    );)*
                }
            }

            fn describe(schema: &mut ::segvm::persist::SchemaBuilder) -> ::segvm::persist::Kind {
                #described
            }
        }
    }
}
