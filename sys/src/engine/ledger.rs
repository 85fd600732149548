//! Which pages are ours, and which of them are clean: readable and changeable from a signal handler at any instant.
//!
//! Two bits a page, in a table that begins at a static array and is never given back, so that a handler needs neither a
//! lock nor anybody's permission to look:
//!
//! ```text
//!   address  ->  TABLE[1 GiB]  ->  Chunk { ours: one bit a page, clean: one bit a page }
//! ```
//!
//! - *ours*: the page was registered since its memory was put there, and a write to it that faults is ours to let through.
//! - *clean*: it is write-protected and was not written since it was armed. Everything else counts as written.
//!
//! **The invariant: outside [`arm`] and [`take_written`], an `ours` page that can be written is not `clean`.**
//!
//! A handler (or a handler's thread) takes back `clean` *first* and lifts the protection *then*. Whoever arms sets `clean`
//! first, then waits until every handler that was under way has ended, then protects. So a handler whose mark was taken
//! by this arming has also lifted the protection before it is put back; and the mark of one that begins later stands. In
//! between a page may be writable and clean, but what is written there is written before the protection, and the page was
//! reported, or the caller says that it need not be.

use std::{
    alloc::{Layout, alloc_zeroed},
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::handlers::{AtWork, wait_for_handlers};
use crate::page::{PageRange, PageSize, push_run};

const CHUNK_LOG2: u32 = 30;
const CHUNK: usize = 1 << CHUNK_LOG2;

/// User addresses end below this on every 64-bit machine that pages of up to 64 KiB are known of.
const ADDRESSES_LOG2: u32 = 48;

/// Bits of a chunk, at pages of 4 KiB; larger pages leave the rest unused.
const WORDS: usize = 1 << (CHUNK_LOG2 - PageSize::MIN.log2() - u64::BITS.trailing_zeros());

/// 4 MiB that nobody touches but where addresses are ours.
static TABLE: [OnceLock<&'static Chunk>; 1 << (ADDRESSES_LOG2 - CHUNK_LOG2)] =
    [const { OnceLock::new() }; _];

/// How often protection was lifted since it was put back, in all chunks: the sum of their `lifted`.
static LIFTED: AtomicUsize = AtomicUsize::new(0);

/// The bits of 1 GiB of addresses. All zero: nothing is ours.
struct Chunk {
    ours: [AtomicU64; WORDS],
    clean: [AtomicU64; WORDS],
    /// How often protection was lifted here since it was put back.
    lifted: AtomicUsize,
}

impl Chunk {
    fn alloc() -> &'static Self {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not empty.
        let zeros = unsafe { alloc_zeroed(layout) };
        if zeros.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        #[expect(clippy::cast_ptr_alignment, reason = "allocated with the layout of it")]
        let chunk = zeros.cast::<Self>();
        // SAFETY: of the layout of a chunk, all zero, which is a value of it (atomics alone), and never freed.
        unsafe { &*chunk }
    }

    /// The chunk of an address, if anything in it was ever ours. Async-signal-safe: two loads.
    fn at(address: usize) -> Option<&'static Self> {
        TABLE.get(address >> CHUNK_LOG2)?.get().copied()
    }
}

/// Some bits of one word: neighbouring pages of one chunk.
struct Word {
    chunk: &'static Chunk,
    index: usize,
    /// The pages that are meant.
    mask: u64,
    /// Address of the page that bit 0 stands for.
    start: usize,
}

impl Word {
    fn ours(&self) -> &'static AtomicU64 {
        bits(&self.chunk.ours, self.index)
    }

    fn clean(&self) -> &'static AtomicU64 {
        bits(&self.chunk.clean, self.index)
    }
}

fn bits(words: &'static [AtomicU64; WORDS], index: usize) -> &'static AtomicU64 {
    match words.get(index) {
        Some(word) => word,
        // An index is an address within a chunk, divided.
        None => unreachable!("a chunk has a bit for each of its pages"),
    }
}

/// The words of a range, ascending; `None` where no chunk is there yet. Async-signal-safe.
fn words(page: PageSize, range: PageRange) -> impl Iterator<Item = Option<Word>> {
    let shift = page.log2();
    let step = (u64::BITS as usize) << shift;
    range.windows(step).map(move |window| {
        let start = window.start() & !(step - 1);
        let first = (window.start() - start) >> shift;
        let len = window.len() >> shift;
        let mask = (u64::MAX >> (u64::BITS as usize - len)) << first;
        Some(Word {
            chunk: Chunk::at(start)?,
            index: (start & (CHUNK - 1)) / step,
            mask,
            start,
        })
    })
}

/// Appends the runs of set bits.
fn push_bits(page: PageSize, start: usize, mut set: u64, out: &mut Vec<PageRange>) {
    while set != 0 {
        let first = set.trailing_zeros();
        let len = (!(set >> first)).trailing_zeros().min(u64::BITS - first);
        let (at, bytes) = (
            start + ((first as usize) << page.log2()),
            (len as usize) << page.log2(),
        );
        if let Some(run) = PageRange::new(page, at, bytes) {
            push_run(out, run);
        }
        let done = first + len;
        set = if done == u64::BITS {
            0
        } else {
            set >> done << done
        };
    }
}

/// Tells whether the table has room for the addresses of a range.
pub(super) fn reaches(range: PageRange) -> bool {
    range.end() <= 1 << ADDRESSES_LOG2
}

/// Makes pages ours: their faults are resolved from now on.
pub(super) fn add(page: PageSize, range: PageRange) {
    for window in range.windows(CHUNK) {
        if let Some(slot) = TABLE.get(window.start() >> CHUNK_LOG2) {
            slot.get_or_init(Chunk::alloc);
        }
    }
    for word in words(page, range).flatten() {
        word.ours().fetch_or(word.mask, Ordering::SeqCst);
    }
}

/// Ends that pages are ours, and waits until no handler is at work on them any more.
///
/// What was clean stays so: whoever means to forget it calls [`forget`].
pub(super) fn remove(page: PageSize, range: PageRange) {
    for word in words(page, range).flatten() {
        word.ours().fetch_and(!word.mask, Ordering::SeqCst);
    }
    wait_for_handlers();
}

/// Takes every page of the range for written.
pub(super) fn forget(page: PageSize, range: PageRange) {
    for word in words(page, range).flatten() {
        word.clean().fetch_and(!word.mask, Ordering::SeqCst);
    }
}

/// Takes every page for clean, from the moment when the caller has protected them, which it does next.
pub(super) fn arm(page: PageSize, range: PageRange) {
    for word in words(page, range).flatten() {
        word.clean().fetch_or(word.mask, Ordering::SeqCst);
        settle(word.chunk);
    }
    wait_for_handlers();
}

/// Appends the pages that are not clean, and takes them for clean from the moment when the caller has protected the range
/// again, which it does next.
pub(super) fn take_written(page: PageSize, range: PageRange, out: &mut Vec<PageRange>) {
    for word in words(page, range).flatten() {
        let before = word.clean().fetch_or(word.mask, Ordering::SeqCst);
        settle(word.chunk);
        push_bits(page, word.start, word.mask & !before, out);
    }
    wait_for_handlers();
}

/// Appends the pages that are not clean.
pub(super) fn written(page: PageSize, range: PageRange, out: &mut Vec<PageRange>) {
    for word in words(page, range).flatten() {
        let clean = word.clean().load(Ordering::SeqCst);
        push_bits(page, word.start, word.mask & !clean, out);
    }
}

/// Notes that protection in this chunk was, or is about to be, put back.
fn settle(chunk: &Chunk) {
    if chunk.lifted.load(Ordering::Relaxed) > 0 {
        let lifted = chunk.lifted.swap(0, Ordering::Relaxed);
        LIFTED.fetch_sub(lifted, Ordering::Relaxed);
    }
}

/// How many pages are let through with one that faults, in words: so many that a pattern of single pages does not use up
/// the maps that the kernel allows a process (65,530).
const WIDEN: [(usize, usize); 3] = [(0, 0), (4096, 1), (8192, 32)];

/// Lets a write to `at` through by calling `lift` with the pages to unprotect, if the page is ours.
///
/// Where `lift` fails, it is tried with more pages around: it fails where the kernel would have to split a map and may not,
/// and the whole run of pages that are ours needs no split. Async-signal-safe, if `lift` is.
pub(crate) fn let_through(
    page: PageSize,
    at: usize,
    mut lift: impl FnMut(PageRange) -> bool,
) -> bool {
    let Some(chunk) = Chunk::at(at) else {
        return false;
    };
    let _at_work = AtWork::begin();
    let Some(here) = PageRange::covering(page, at, 1) else {
        return false;
    };
    if !is_ours(page, here) {
        return false;
    }
    let count = LIFTED.fetch_add(1, Ordering::Relaxed);
    chunk.lifted.fetch_add(1, Ordering::Relaxed);
    let enough = WIDEN.iter().rev().find(|(from, _)| count >= *from);
    let least = enough.map_or(0, |(_, words)| *words);
    let spans = WIDEN.iter().map(|(_, words)| *words);
    for span in spans.filter(|span| *span >= least).chain([usize::MAX]) {
        let run = around(page, here, span);
        // First the mark, then the protection.
        forget(page, run);
        if lift(run) {
            return true;
        }
    }
    false
}

/// Notes a write to one page, and calls `lift` then: what [`let_through`] is to a signal handler, for a thread that is told of
/// faults by a descriptor. Who is told so may lift, whether the page is still ours or not.
pub(super) fn note(page: PageSize, here: PageRange, lift: impl FnOnce(PageRange)) {
    let _at_work = AtWork::begin();
    // First the mark, then the protection.
    forget(page, here);
    lift(here);
}

fn is_ours(page: PageSize, one: PageRange) -> bool {
    let all = |word: Word| word.ours().load(Ordering::SeqCst) & word.mask == word.mask;
    words(page, one).all(|word| word.is_some_and(all))
}

/// The pages around `one` that are ours without a gap, within so many words' pages.
fn around(page: PageSize, one: PageRange, span: usize) -> PageRange {
    let step = page.bytes();
    let bytes = span.saturating_mul((u64::BITS as usize) << page.log2());
    let (lowest, end) = match bytes {
        0 => return one,
        usize::MAX => (0, 1 << ADDRESSES_LOG2),
        bytes => {
            let lowest = one.start() & !(bytes - 1);
            (lowest, lowest + bytes)
        }
    };
    let is_ours = |at| PageRange::covering(page, at, 1).is_some_and(|one| is_ours(page, one));
    let mut from = one.start();
    while from > lowest && is_ours(from - step) {
        from -= step;
    }
    let mut to = one.end();
    while to < end && is_ours(to) {
        to += step;
    }
    PageRange::new(page, from, to - from).unwrap_or(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageSize = PageSize::MIN;

    fn pages(start: usize, len: usize) -> PageRange {
        PageRange::new(PAGE, start << 12, len << 12).unwrap()
    }

    fn found(range: PageRange) -> Vec<PageRange> {
        let mut out = Vec::new();
        written(PAGE, range, &mut out);
        out
    }

    #[test]
    fn bits_are_runs_across_words_and_chunks() {
        // The last pages of a chunk and the first of the next.
        let base = (0x7100_0000_0000 >> 12) + (CHUNK >> 12) - 100;
        let range = pages(base, 200);
        add(PAGE, range);
        assert_eq!(found(range), [range]);
        arm(PAGE, range);
        assert_eq!(found(range), []);
        forget(PAGE, pages(base + 3, 1));
        forget(PAGE, pages(base + 60, 70));
        forget(PAGE, pages(base + 199, 1));
        let expected = [
            pages(base + 3, 1),
            pages(base + 60, 70),
            pages(base + 199, 1),
        ];
        assert_eq!(found(range), expected);
        assert_eq!(found(pages(base + 61, 2)), [pages(base + 61, 2)]);
        let mut taken = Vec::new();
        take_written(PAGE, pages(base, 62), &mut taken);
        assert_eq!(taken, [pages(base + 3, 1), pages(base + 60, 2)]);
        assert_eq!(found(range), [pages(base + 62, 68), pages(base + 199, 1)]);
    }

    #[test]
    fn only_what_is_ours_is_let_through_and_it_is_marked_first() {
        let base = 0x7200_0000_0000 >> 12;
        add(PAGE, pages(base, 10));
        arm(PAGE, pages(base, 10));
        let here = pages(base + 4, 1);
        let mut lifted = Vec::new();
        let done = let_through(PAGE, here.start() + 77, |run| {
            assert_eq!(found(pages(base, 10)), [here]);
            lifted.push(run);
            true
        });
        assert!(done);
        assert_eq!(lifted, [here]);
        let never = |_| panic!("not ours");
        assert!(!let_through(PAGE, pages(base + 10, 1).start(), never));
        remove(PAGE, here);
        assert!(!let_through(PAGE, here.start(), never));
        assert!(!let_through(PAGE, 0x10, never));
        assert!(!let_through(PAGE, usize::MAX, never));
    }

    #[test]
    fn where_one_page_cannot_be_split_off_more_are_let_through() {
        let base = (0x7300_0000_0000 >> 12) + 10;
        add(PAGE, pages(base, 100));
        add(PAGE, pages(base + 101, 5));
        arm(PAGE, pages(base, 100));
        let mut tried = Vec::new();
        let done = let_through(PAGE, pages(base + 20, 1).start(), |run| {
            tried.push(run);
            tried.len() == 3
        });
        assert!(done);
        assert_eq!(
            tried,
            [pages(base + 20, 1), pages(base, 54), pages(base, 100)]
        );
        assert_eq!(found(pages(base, 100)), [pages(base, 100)]);
        let mut count = 0;
        assert!(!let_through(PAGE, pages(base, 1).start(), |_| {
            count += 1;
            false
        }));
        assert_eq!(count, 4);
    }
}
