//! Pages and page-aligned ranges of this process's address space, as types.
//!
//! Every number that crosses the [`Kernel`](crate::Kernel) seam is one of these, so that alignment is
//! checked once, where a number enters, and carried in the type afterwards.

use std::fmt;

/// The size of a page on this machine: read from the kernel, never assumed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    /// 12 for 4 KiB pages, 14 for 16 KiB, 16 for 64 KiB: between 12 and 16.
    log2: u32,
}

impl PageSize {
    /// The smallest page any supported machine has: 4 KiB.
    pub const MIN: Self = Self { log2: 12 };

    /// Accepts the powers of two from 4 KiB to 64 KiB.
    #[must_use]
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 12 && bytes <= 1 << 16 {
            Some(Self {
                log2: bytes.trailing_zeros(),
            })
        } else {
            None
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.log2
    }

    /// The base-2 logarithm of the size in bytes.
    #[must_use]
    pub const fn log2(self) -> u32 {
        self.log2
    }

    /// Tells whether `n` is a multiple of the page size.
    #[must_use]
    pub const fn divides(self, n: usize) -> bool {
        n & (self.bytes() - 1) == 0
    }

    /// Rounds `n` down to a multiple of the page size.
    #[must_use]
    pub const fn floor(self, n: usize) -> usize {
        n & !(self.bytes() - 1)
    }

    /// Rounds `n` up to a multiple of the page size, or `None` where that overflows.
    #[must_use]
    pub const fn ceil(self, n: usize) -> Option<usize> {
        match n.checked_add(self.bytes() - 1) {
            Some(m) => Some(self.floor(m)),
            None => None,
        }
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB pages", self.bytes() >> 10)
    }
}

/// A run of whole pages in this process's address space.
///
/// It is only two numbers: it neither owns nor keeps alive what lies there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// Address of the first byte; a multiple of the page size it was made with.
    start: usize,
    /// Length in bytes; a multiple of that page size, and `start + len` does not overflow.
    len: usize,
}

impl PageRange {
    /// Makes a range from an address and a length in bytes, both multiples of `page`.
    #[must_use]
    pub const fn new(page: PageSize, start: usize, len: usize) -> Option<Self> {
        if page.divides(start) && page.divides(len) && start.checked_add(len).is_some() {
            Some(Self { start, len })
        } else {
            None
        }
    }

    /// The smallest range of whole pages that covers `len` bytes from `start`.
    #[must_use]
    pub const fn covering(page: PageSize, start: usize, len: usize) -> Option<Self> {
        let Some(end) = start.checked_add(len) else {
            return None;
        };
        let Some(end) = page.ceil(end) else {
            return None;
        };
        let start = page.floor(start);
        Some(Self {
            start,
            len: end - start,
        })
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn start(self) -> usize {
        self.start
    }

    /// Address of the byte after the last.
    #[must_use]
    pub const fn end(self) -> usize {
        self.start + self.len
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Tells whether there is no page in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Tells whether every byte of `other` lies in this range (an empty one: its place does).
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// The pages that both ranges have; `None` where there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self {
            start,
            len: end - start,
        })
    }

    /// Splits the range into pieces that each end at a multiple of `step` or at the range's end.
    ///
    /// - **Panics**: if `step` is not a power of two (the caller's constant).
    pub fn windows(self, step: usize) -> impl Iterator<Item = Self> {
        assert!(
            step.is_power_of_two(),
            "a window is a power of two, not {step}"
        );
        let (mut at, end) = (self.start, self.end());
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let next = (at | (step - 1)).saturating_add(1).min(end);
                let piece = Self {
                    start: at,
                    len: next - at,
                };
                at = next;
                piece
            })
        })
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end())
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Appends `run` to a sorted list of runs, merging it with the last one where they touch.
pub fn push_run(runs: &mut Vec<PageRange>, run: PageRange) {
    match runs.last_mut() {
        Some(last) if last.end() == run.start => last.len += run.len,
        _ if run.is_empty() => {}
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageSize = PageSize::MIN;

    fn range(start: usize, len: usize) -> PageRange {
        PageRange::new(PAGE, start << 12, len << 12).unwrap()
    }

    #[test]
    fn sizes_other_than_a_supported_power_of_two_are_refused() {
        for bad in [0, 1, 2048, 4095, 4097, 12288, 1 << 17] {
            assert_eq!(PageSize::new(bad), None, "{bad}");
        }
        for good in [1 << 12, 1 << 14, 1 << 16] {
            assert_eq!(PageSize::new(good).map(PageSize::bytes), Some(good));
        }
    }

    #[test]
    fn a_range_is_aligned_and_does_not_overflow() {
        assert!(PageRange::new(PAGE, 4096, 8192).is_some());
        assert!(PageRange::new(PAGE, 4097, 8192).is_none());
        assert!(PageRange::new(PAGE, 4096, 8191).is_none());
        assert!(PageRange::new(PAGE, usize::MAX - 4095, 4096).is_none());
        assert_eq!(PageRange::covering(PAGE, 5000, 1), Some(range(1, 1)));
        assert_eq!(PageRange::covering(PAGE, 4095, 2), Some(range(0, 2)));
    }

    #[test]
    fn windows_cover_the_range_once() {
        let pieces: Vec<_> = range(3, 10).windows(4 << 12).collect();
        assert_eq!(
            pieces,
            [range(3, 1), range(4, 4), range(8, 4), range(12, 1)]
        );
    }

    #[test]
    fn neighbouring_runs_merge() {
        let mut runs = Vec::new();
        for run in [range(1, 2), range(3, 1), range(5, 0), range(6, 1)] {
            push_run(&mut runs, run);
        }
        assert_eq!(runs, [range(1, 3), range(6, 1)]);
    }
}
