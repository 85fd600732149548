use proc_macro2::TokenStream;
use quote::quote;
use syn::{Ident, Member, Type};

/// Implements `Persist` and `Plain` for a type that owns nothing and is changed through `&mut`.
///
/// What comes before it in the expansion has checked that the layout is fixed, that zeros are a value, and that every
/// field is plain.
pub(crate) fn implement(name: &Ident, describe: &TokenStream) -> TokenStream {
    quote! {
        // SAFETY: a fixed layout that owns nothing, in which zeros are a value: checked before.
        #[automatically_derived]
        #[allow(unsafe_code)]
        unsafe impl ::segvm::persist::Persist for #name {
            type Mut<'segvm> = &'segvm mut Self;
            const OWNS: bool = false;

            unsafe fn project<'segvm>(
                mut place: ::core::ptr::NonNull<Self>,
                _heap: &'segvm ::segvm::heap::Heap,
            ) -> &'segvm mut Self {
                // SAFETY: the caller promises a valid value that nothing else reaches.
                unsafe { place.as_mut() }
            }

            unsafe fn drop_in(place: ::core::ptr::NonNull<Self>, _heap: &::segvm::heap::Heap) {
                // SAFETY: the place is the caller's, and zeros are a value.
                unsafe { place.write_bytes(0, 1) };
            }

            fn describe(schema: &mut ::segvm::persist::SchemaBuilder) -> ::segvm::persist::Kind {
                #describe
            }
        }
        // SAFETY: nothing in it owns anything: checked before.
        #[automatically_derived]
        #[allow(unsafe_code)]
        unsafe impl ::segvm::persist::Plain for #name {}
    }
}

/// Makes a plain struct a key of maps: hashed, compared and ordered field by field, in the order of the fields.
///
/// Never by the type's own `Hash`, `Eq` and `Ord`: another build must find what this one put in, and the fields are what
/// the schema holds both to.
pub(crate) fn struct_key(name: &Ident, members: &[Member], types: &[&Type]) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::segvm::collections::Key for #name {}

        #[automatically_derived]
        impl ::segvm::collections::Lookup<Self> for #name {
            fn hash(&self, seed: ::segvm::collections::Seed) -> u64 {
                let state = seed.0;
                #(let state = <#types as ::segvm::collections::Lookup<#types>>::hash(
                    &self.#members,
                    ::segvm::collections::Seed(state),
                );)*
                state
            }

            fn is(&self, key: &Self) -> bool {
                true #(&& <#types as ::segvm::collections::Lookup<#types>>::is(&self.#members, &key.#members))*
            }

            fn order(&self, key: &Self) -> ::core::cmp::Ordering {
                ::core::cmp::Ordering::Equal
                    #(.then_with(|| {
                        <#types as ::segvm::collections::Lookup<#types>>::order(&self.#members, &key.#members)
                    }))*
            }
        }
    }
}

/// Makes a fieldless enum a key of maps: hashed, compared and ordered as its number is.
pub(crate) fn enum_key(name: &Ident, integer: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::segvm::collections::Key for #name {}

        #[automatically_derived]
        impl ::segvm::collections::Lookup<Self> for #name {
            fn hash(&self, seed: ::segvm::collections::Seed) -> u64 {
                ::segvm::collections::Lookup::<#integer>::hash(&(*self as #integer), seed)
            }

            fn is(&self, key: &Self) -> bool {
                *self as #integer == *key as #integer
            }

            fn order(&self, key: &Self) -> ::core::cmp::Ordering {
                (*self as #integer).cmp(&(*key as #integer))
            }
        }
    }
}
