//! The watched ranges and their words, readable from a signal handler at any instant.
//!
//! Each slot is a sequence lock: a writer makes its number odd, changes it, and makes it even again; a reader copies
//! and then compares the numbers. Readers never wait, so a handler that interrupts a writer merely skips the slot.

use std::{
    fmt, io,
    sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering, fence},
};

use super::handler;
use crate::page::PageRange;

/// Ranges that can be watched at a time: sessions have a handful each.
const SLOTS: usize = 512;

/// The longest text, in bytes; more is cut.
pub(super) const TEXT_LEN: usize = 400;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

struct Slot {
    /// Odd while the slot changes. Written with Release after a change, read with Acquire before the fields.
    sequence: AtomicU32,
    /// A [`FaultKind`]; 0 while the slot is free.
    kind: AtomicU8,
    start: AtomicUsize,
    end: AtomicUsize,
    len: AtomicUsize,
    text: [AtomicU8; TEXT_LEN],
}

impl Slot {
    const fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            kind: AtomicU8::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            text: [const { AtomicU8::new(0) }; TEXT_LEN],
        }
    }

    /// Makes the slot this writer's, if no other has it.
    fn lock(&self) -> Option<u32> {
        let now = self.sequence.load(Ordering::Relaxed);
        let locked = now.is_multiple_of(2)
            && self
                .sequence
                .compare_exchange(
                    now,
                    now.wrapping_add(1),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok();
        // Keeps the changes behind the odd number: pairs with the fence of `read`.
        fence(Ordering::Release);
        locked.then(|| now.wrapping_add(2))
    }

    fn unlock(&self, next: u32) {
        self.sequence.store(next, Ordering::Release);
    }

    /// Copies the slot's text if it is about a fault of this kind at this address.
    fn read(&self, kind: FaultKind, at: usize, text: &mut Text) -> bool {
        let before = self.sequence.load(Ordering::Acquire);
        let span = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        let ours = self.kind.load(Ordering::Relaxed) == kind as u8 && span.contains(&at);
        if !ours || !before.is_multiple_of(2) {
            return false;
        }
        text.len = self.len.load(Ordering::Relaxed).min(TEXT_LEN);
        for (to, from) in text.bytes.iter_mut().zip(&self.text) {
            *to = from.load(Ordering::Relaxed);
        }
        text.offset = at - span.start;
        fence(Ordering::Acquire);
        self.sequence.load(Ordering::Relaxed) == before
    }
}

/// What a handler found out: on its stack.
pub(super) struct Text {
    pub(super) bytes: [u8; TEXT_LEN],
    pub(super) len: usize,
    /// From the start of the watched range.
    pub(super) offset: usize,
}

/// Finds the text for a fault. Async-signal-safe: loads from a static table.
pub(super) fn find(kind: FaultKind, at: usize) -> Option<Text> {
    let mut text = Text {
        bytes: [0; TEXT_LEN],
        len: 0,
        offset: 0,
    };
    let found = TABLE.iter().any(|slot| slot.read(kind, at, &mut text));
    found.then_some(text)
}

/// Which fault on a range has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// SIGBUS: what is mapped there could not be read, or is shorter than it was.
    Unreadable = 1,
    /// SIGSEGV: nothing may be read or written there (any more).
    Forbidden = 2,
}

/// Why a range could not be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchFaultsError {
    /// All slots are taken.
    #[error("{SLOTS} ranges are watched for faults already: no room for {range}")]
    Full {
        /// The range that found none.
        range: PageRange,
    },
    /// The handler could not be installed.
    #[error("installing the handler for SIGBUS and SIGSEGV failed")]
    Install(#[source] io::Error),
}

/// A watched range: until this is dropped. Forget it (`mem::forget`) for the life of the process.
#[must_use = "dropping it ends the watch"]
pub struct FaultWatch {
    slot: &'static Slot,
    range: PageRange,
}

/// Watches a range: a fault of this `kind` in it prints `text`, the address and the offset before the process dies; with
/// [`FaultKind::Unreadable`] also the name of the file that is mapped there and the offset in it, if the kernel says so.
///
/// The handler is installed once per process, with the first range; it is on the alternate stack where the thread has
/// one, and passes every signal on to the handler that was there before.
///
/// - **Cost**: 400 bytes of text at most are kept; what is longer is cut.
/// - **Errors**: [`WatchFaultsError::Full`]; ranges may overlap, and then one of the texts is printed.
pub fn watch_faults(
    range: PageRange,
    kind: FaultKind,
    text: &str,
) -> Result<FaultWatch, WatchFaultsError> {
    handler::install().map_err(WatchFaultsError::Install)?;
    for slot in &TABLE {
        if slot.kind.load(Ordering::Relaxed) != 0 {
            continue;
        }
        let Some(next) = slot.lock() else {
            continue;
        };
        // Another writer may have been here between the two lines above.
        if slot.kind.load(Ordering::Relaxed) != 0 {
            slot.unlock(next);
            continue;
        }
        slot.kind.store(kind as u8, Ordering::Relaxed);
        slot.start.store(range.start(), Ordering::Relaxed);
        slot.end.store(range.end(), Ordering::Relaxed);
        slot.len.store(text.len().min(TEXT_LEN), Ordering::Relaxed);
        for (to, from) in slot.text.iter().zip(text.bytes()) {
            to.store(from, Ordering::Relaxed);
        }
        slot.unlock(next);
        return Ok(FaultWatch { slot, range });
    }
    Err(WatchFaultsError::Full { range })
}

impl Drop for FaultWatch {
    fn drop(&mut self) {
        // Only who looks for a free slot holds one of ours, and for a moment.
        let next = loop {
            match self.slot.lock() {
                Some(next) => break next,
                None => std::thread::yield_now(),
            }
        };
        self.slot.kind.store(0, Ordering::Relaxed);
        self.slot.unlock(next);
    }
}

impl fmt::Debug for FaultWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultWatch({})", self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PageSize;

    fn range(start: usize) -> PageRange {
        PageRange::new(PageSize::MIN, start, 0x2000).unwrap()
    }

    fn said(kind: FaultKind, at: usize) -> Option<String> {
        let text = find(kind, at)?;
        Some(String::from_utf8(text.bytes[..text.len].to_vec()).unwrap())
    }

    #[test]
    fn only_watched_addresses_and_kinds_have_words() {
        let one = watch_faults(range(0x10_0000), FaultKind::Unreadable, "one").unwrap();
        let two = watch_faults(range(0x10_2000), FaultKind::Forbidden, &"2".repeat(999)).unwrap();
        assert_eq!(
            said(FaultKind::Unreadable, 0x10_1fff).as_deref(),
            Some("one")
        );
        assert_eq!(said(FaultKind::Unreadable, 0x10_2000), None);
        assert_eq!(said(FaultKind::Forbidden, 0x10_1fff), None);
        assert_eq!(
            said(FaultKind::Forbidden, 0x10_2000).unwrap().len(),
            TEXT_LEN
        );
        drop(one);
        assert_eq!(said(FaultKind::Unreadable, 0x10_1fff), None);
        drop(two);
    }

    #[test]
    fn a_full_table_says_so_and_slots_are_used_again() {
        for _ in 0..2 {
            let watches: Vec<_> = (0..SLOTS)
                .map(|i| watch_faults(range(i << 16), FaultKind::Forbidden, "x").unwrap())
                .collect();
            let more = watch_faults(range(0), FaultKind::Forbidden, "x");
            assert!(matches!(more, Err(WatchFaultsError::Full { .. })));
            drop(watches);
        }
    }
}
