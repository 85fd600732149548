use std::ptr::NonNull;

use super::{Persist, Plain, SchemaBuilder};
use crate::heap::Heap;

macro_rules! plain {
    ($($type:ty => $name:literal),*) => {$(
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

            fn describe(schema: &mut SchemaBuilder) {
                schema.primitive($name);
            }
        }

        // SAFETY: a number owns nothing, and Mut is &mut.
        unsafe impl Plain for $type {}
    )*};
}

plain!(
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "usize",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "isize",
    f32 => "f32", f64 => "f64", bool => "bool", char => "char"
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

    fn describe(schema: &mut SchemaBuilder) {
        schema.array::<T>(N);
    }
}

// SAFETY: plain values in a row are plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
