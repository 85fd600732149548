use std::ptr::NonNull;

use super::{Kind, Persist, Plain, Primitive, SchemaBuilder};
use crate::heap::Heap;

macro_rules! plain {
    ($($type:ty => $name:ident),*) => {$(
        // SAFETY: a primitive whose layout Rust fixes on the 64-bit targets that segvm runs on; zero bytes are a value of it,
        // and it owns nothing.
        unsafe impl Persist for $type {
            type Mut<'a> = &'a mut Self;
            const OWNS: bool = false;

            unsafe fn project(mut place: NonNull<Self>, _heap: &Heap) -> &mut Self {
                // SAFETY: a valid value that nothing else reaches during 'a: the caller's promise.
                unsafe { place.as_mut() }
            }

            unsafe fn drop_in(place: NonNull<Self>, _heap: &Heap) {
                // SAFETY: the place is the caller's, and zeros are a value.
                unsafe { place.write(<$type>::default()) };
            }

            fn describe(_schema: &mut SchemaBuilder) -> Kind {
                Kind::Primitive(Primitive::$name)
            }
        }

        // SAFETY: a number owns nothing, and Mut is &mut.
        unsafe impl Plain for $type {}
    )*};
}

plain!(
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, u128 => U128, usize => Usize,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, i128 => I128, isize => Isize,
    f32 => F32, f64 => F64, bool => Bool, char => Char
);

// SAFETY: N plain values in a row: fixed layout, zeros valid, nothing owned.
unsafe impl<T: Plain, const N: usize> Persist for [T; N] {
    type Mut<'a> = &'a mut Self;
    const OWNS: bool = false;

    unsafe fn project(mut place: NonNull<Self>, _heap: &Heap) -> &mut Self {
        // SAFETY: a valid value that nothing else reaches during 'a: the caller's promise.
        unsafe { place.as_mut() }
    }

    unsafe fn drop_in(place: NonNull<Self>, _heap: &Heap) {
        // SAFETY: the place is the caller's, and zeros are a value (Persist of T).
        unsafe { place.write_bytes(0, 1) };
    }

    fn describe(schema: &mut SchemaBuilder) -> Kind {
        Kind::Array {
            element: schema.of::<T>(),
            len: N as u64,
        }
    }
}

// SAFETY: plain values in a row are plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
