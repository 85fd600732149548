use std::{cmp::Ordering, fmt};

use super::{Text, hash::Seed};
use crate::persist::Persist;

/// A type whose values can be keys of a map: numbers, `bool`, `char`, arrays of numbers, [`Text`], and plain structs and
/// enums that derive [`Persist`] with `#[persist(key)]`.
///
/// Equality, order and hash are the format's, not std's traits': another build must find what this one put in.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key of a map in a segment",
    note = "keys are numbers, bool, char, arrays of numbers, `Text`, and plain types that say so: \
            `#[derive(Persist, Debug, Clone, Copy)] #[repr(C)] #[persist(plain, key)]`"
)]
pub trait Key: Persist + Lookup<Self> + fmt::Debug {}

/// What a key of type `K` can be looked up by: `str` for [`Text`], else the key itself.
#[diagnostic::on_unimplemented(
    message = "a key `{K}` cannot be looked up by `{Self}`",
    note = "look a `Text` up by `&str`, and other keys by a reference to the key"
)]
pub trait Lookup<K: ?Sized> {
    /// The hash of the key that is looked for.
    fn hash(&self, seed: Seed) -> u64;
    /// Tells whether `key` is the one that is looked for.
    fn is(&self, key: &K) -> bool;
    /// How what is looked for compares with `key`.
    fn order(&self, key: &K) -> Ordering;
}

macro_rules! number_keys {
    ($($type:ty: $this:ident => $number:expr),* $(,)?) => {$(
        impl Key for $type {}

        impl Lookup<Self> for $type {
            #[inline]
            fn hash(&self, seed: Seed) -> u64 {
                let $this = *self;
                seed.of_number($number)
            }

            #[inline]
            fn is(&self, key: &Self) -> bool {
                self == key
            }

            #[inline]
            fn order(&self, key: &Self) -> Ordering {
                self.cmp(key)
            }
        }
    )*};
}

number_keys!(
    u8: n => n.into(), u16: n => n.into(), u32: n => n.into(), u64: n => n, usize: n => n as u64,
    i8: n => i64::from(n).cast_unsigned(), i16: n => i64::from(n).cast_unsigned(),
    i32: n => i64::from(n).cast_unsigned(), i64: n => n.cast_unsigned(),
    isize: n => n.cast_unsigned() as u64, bool: n => n.into(), char: n => n.into(),
);

macro_rules! array_keys {
    ($($type:ty),*) => {$(
        impl<const N: usize> Key for [$type; N] {}

        impl<const N: usize> Lookup<Self> for [$type; N] {
            fn hash(&self, seed: Seed) -> u64 {
                self.iter().fold(seed.0, |state, part| part.hash(Seed(state)))
            }

            fn is(&self, key: &Self) -> bool {
                self == key
            }

            fn order(&self, key: &Self) -> Ordering {
                self.cmp(key)
            }
        }
    )*};
}

array_keys!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Key for Text {}

macro_rules! text_lookups {
    ($($type:ty),*) => {$(
        impl Lookup<Text> for $type {
            #[inline]
            fn hash(&self, seed: Seed) -> u64 {
                let text: &str = self;
                seed.of_bytes(text.as_bytes())
            }

            #[inline]
            fn is(&self, key: &Text) -> bool {
                let text: &str = self;
                text == key.as_str()
            }

            #[inline]
            fn order(&self, key: &Text) -> Ordering {
                let text: &str = self;
                text.cmp(key.as_str())
            }
        }
    )*};
}

text_lookups!(str, &str, String, &String, Text);
