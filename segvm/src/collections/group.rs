//! Sixteen control bytes at once. The width is the format's, on every machine; how they are compared is not.

/// Control byte of a slot that was never used since the table was made.
pub(super) const EMPTY: u8 = 0xff;
/// Of one whose entry was removed: a search goes on behind it.
pub(super) const DELETED: u8 = 0x80;
/// Control bytes that are looked at together.
pub(super) const WIDTH: usize = 16;

/// One bit for each of the group's slots, the first slot lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matches(pub(super) u16);

impl Matches {
    pub(super) const fn first(self) -> Option<usize> {
        if self.0 == 0 {
            None
        } else {
            Some(self.0.trailing_zeros() as usize)
        }
    }
}

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let first = self.first()?;
        self.0 &= self.0 - 1;
        Some(first)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::sse2::Group;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use self::portable::Group;

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::{
        arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8,
        },
        ptr::NonNull,
    };

    use super::{EMPTY, Matches};

    /// SSE2 is part of every x86-64.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Group(__m128i);

    impl Group {
        /// # Safety
        ///
        /// `at` points to 16 control bytes.
        #[inline]
        pub(in super::super) unsafe fn load(at: NonNull<u8>) -> Self {
            // SAFETY: the caller's promise; no alignment is needed.
            Self(unsafe { _mm_loadu_si128(at.as_ptr().cast()) })
        }

        #[inline]
        pub(in super::super) fn matching(self, byte: u8) -> Matches {
            // SAFETY: every x86-64 has SSE2.
            let wanted = unsafe { _mm_set1_epi8(byte.cast_signed()) };
            // SAFETY: every x86-64 has SSE2.
            mask(unsafe { _mm_cmpeq_epi8(self.0, wanted) })
        }

        #[inline]
        pub(in super::super) fn empty(self) -> Matches {
            self.matching(EMPTY)
        }

        /// Slots without an entry: their top bit is set.
        #[inline]
        pub(in super::super) fn vacant(self) -> Matches {
            mask(self.0)
        }
    }

    #[inline]
    fn mask(bytes: __m128i) -> Matches {
        // SAFETY: every x86-64 has SSE2.
        let bits = unsafe { _mm_movemask_epi8(bytes) }.cast_unsigned();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "sixteen bytes give sixteen bits"
        )]
        Matches(bits as u16)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use std::ptr::NonNull;

    use super::{EMPTY, Matches, WIDTH};

    /// The bytes themselves: compilers turn the loops into what the machine has.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Group([u8; WIDTH]);

    impl Group {
        /// # Safety
        ///
        /// `at` points to 16 control bytes.
        pub(in super::super) unsafe fn load(at: NonNull<u8>) -> Self {
            // SAFETY: the caller's promise; bytes need no alignment.
            Self(unsafe { at.cast::<[u8; WIDTH]>().read() })
        }

        pub(in super::super) fn matching(self, byte: u8) -> Matches {
            self.mask(|have| have == byte)
        }

        pub(in super::super) fn empty(self) -> Matches {
            self.matching(EMPTY)
        }

        pub(in super::super) fn vacant(self) -> Matches {
            self.mask(|have| have & 0x80 != 0)
        }

        fn mask(self, wanted: impl Fn(u8) -> bool) -> Matches {
            let bits = self.0.iter().enumerate();
            Matches(bits.fold(0, |bits, (at, &byte)| bits | u16::from(wanted(byte)) << at))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_of_comparing_agree(
            bytes in prop::array::uniform16(prop_oneof![0..4u8, Just(EMPTY), Just(DELETED), any::<u8>()]),
            byte in 0..4u8,
        ) {
            let at = NonNull::from(&bytes).cast();
            // SAFETY: 16 bytes.
            let fast = unsafe { Group::load(at) };
            // SAFETY: 16 bytes.
            let slow = unsafe { portable::Group::load(at) };
            prop_assert_eq!(fast.matching(byte), slow.matching(byte));
            prop_assert_eq!(fast.empty(), slow.empty());
            prop_assert_eq!(fast.vacant(), slow.vacant());
            let expected: Vec<_> = (0..16).filter(|at| bytes[*at] == byte).collect();
            prop_assert_eq!(slow.matching(byte).collect::<Vec<_>>(), expected);
        }
    }
}
