use std::time::Duration;

use segvm_home::RangeKind;
use segvm_os::KernelError;

use crate::{gate::GateError, hooks::HookError};

/// Why a region could not be made, entered, discarded or filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A region is whole blocks.
    #[error(
        "a region of segment `{segment}` is whole blocks of {block} bytes, and {len} bytes at {offset} are not"
    )]
    Unaligned {
        /// The segment.
        segment: String,
        /// Where it should begin.
        offset: usize,
        /// How long it should be.
        len: usize,
        /// The size of the segment's blocks.
        block: usize,
    },
    /// The bytes are in use, or have another attribute.
    #[error(
        "{len} bytes at {offset} of segment `{segment}` overlap what is in use{}: a region is made of new memory, past the \
         segment's {used} bytes", kind_text(.has)
    )]
    InUse {
        /// The segment.
        segment: String,
        /// Where it should begin.
        offset: usize,
        /// How long it should be.
        len: usize,
        /// How long the segment is.
        used: usize,
        /// What the bytes are, where they are exactly another region.
        has: Option<RangeKind>,
    },
    /// The reservation ends before the region does.
    #[error(
        "segment `{segment}` has {reserved} bytes reserved, and the region ends at {end}: make it with SegmentOptions::reserve"
    )]
    Reservation {
        /// The segment.
        segment: String,
        /// Where the region would end.
        end: usize,
        /// What is reserved.
        reserved: usize,
    },
    /// Each may take maps of its own, of which a process has not many.
    #[error("segment `{segment}` has {most} regions already, and there can be no more")]
    TooMany {
        /// The segment.
        segment: String,
        /// How many there may be.
        most: usize,
    },
    /// A restore went back to before the region was made.
    #[error(
        "the region of segment `{segment}` at {offset} was not there at the commit that was restored"
    )]
    Gone {
        /// The segment.
        segment: String,
        /// Where it was.
        offset: usize,
    },
    /// Its callback has not filled it, or failed.
    #[error(
        "the region of segment `{segment}` at {offset} is not filled: its callback failed, or is running"
    )]
    Unfilled {
        /// The segment.
        segment: String,
        /// Where it is.
        offset: usize,
    },
    /// There is nothing to fill it with.
    #[error(
        "segment `{segment}` has a region that is made again after a resume, and no callback: give it to SessionOptions::regenerate"
    )]
    NoCallback {
        /// The segment.
        segment: String,
    },
    /// This thread has a guard that it would wait for.
    #[error(
        "this thread holds a guard of the region of segment `{segment}` at {offset}: drop it first"
    )]
    HeldHere {
        /// The segment.
        segment: String,
        /// Where it is.
        offset: usize,
    },
    /// Another thread did not let go in time.
    #[error(
        "a guard of the region of segment `{segment}` at {offset} is still held after {waited:?}: keep guards for one change"
    )]
    TimedOut {
        /// The segment.
        segment: String,
        /// Where it is.
        offset: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The session is over, or this is a fork.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The kernel refused.
    #[error(transparent)]
    Memory(#[from] KernelError),
    /// The callback failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

fn kind_text(kind: &Option<RangeKind>) -> String {
    kind.map(|kind| format!(" as `{kind:?}`"))
        .unwrap_or_default()
}
