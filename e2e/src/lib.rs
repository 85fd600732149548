//! Whole-system tests: programs that are killed, and what is found afterwards. This library is what both sides of a
//! test know: which bytes a page has after a number of steps; and the guide, whose programs and commands the tests run.

pub mod page;
pub mod programs;

/// Pages that the victim writes; a power of two.
pub const PAGES: usize = 2048;
/// Bytes in one of them.
pub const PAGE: usize = 4096;
/// Odd, so that steps visit every page before they come back.
const STRIDE: u64 = 7919;

/// The page that step `n` (from 1) writes.
#[must_use]
pub fn page_of(n: u64) -> usize {
    usize::try_from(n.wrapping_mul(STRIDE) % PAGES as u64).unwrap_or_default()
}

/// What step `n` writes there.
#[must_use]
pub fn content_of(n: u64) -> Vec<u8> {
    // A period of 251 is prime to every power of two: a page in the wrong place shows.
    (0..PAGE as u64)
        .map(|at| u8::try_from((n.wrapping_mul(31) + at) % 251).unwrap_or_default())
        .collect()
}

/// The last step up to `count` that wrote `page`; `None` if none did.
#[must_use]
pub fn last_writer(page: usize, count: u64) -> Option<u64> {
    (count.saturating_sub(PAGES as u64 - 1).max(1)..=count)
        .rev()
        .find(|&n| page_of(n) == page)
}

/// Bytes to look for: others for each `n`, computed so that they are in no program file.
#[must_use]
pub fn mark(n: u64) -> Vec<u8> {
    (0..48).map(|at| mark_at(n, at)).collect()
}

/// One of them.
#[must_use]
pub fn mark_at(n: u64, at: u64) -> u8 {
    let n = std::hint::black_box(n);
    u8::try_from((n * 37 + at * at * 7 + at * n + 11) % 251).unwrap_or_default()
}

/// A small, seeded generator: a failure is repeated with its seed.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator that belongs to a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `n`, which is not 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
