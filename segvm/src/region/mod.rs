//! Ranges of raw segments that are not simply kept: caches, secrets, and what is made again.
//!
//! | room | for |
//! |---|---|
//! | `table` | which regions a segment has |
//! | `turns` | who is in one |
//! | `handle` | what the application holds |
//! | `secret` | single values in secret memory |
//! | `refill` | filling those that the program makes again |
//!
//! A region is whole blocks of new memory, reached through guards alone. Nothing of it is in the segment's tree, so a hole is what
//! a resume shows: docs/design/hooks.md. This room never looks at blocks, packs or dirt; `checkpoint` asks the table what to leave out.

mod error;
mod handle;
mod refill;
mod secret;
pub(crate) mod table;
mod turns;

use segvm_home::RangeKind;

pub use self::{
    error::RegionError,
    handle::{Region, RegionRead, RegionWrite},
    refill::Refill,
    secret::Secret,
};
pub(crate) use self::{
    refill::{Unfilled, fill_all, unfilled},
    secret::Slots,
};

/// What becomes of a region. What is not in one persists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attribute {
    /// A cache: not saved, zero after a resume.
    Drop,
    /// A secret: never written to disk by segvm, zero after a resume, in no core dump and no forked child.
    Wipe,
    /// Not saved; filled by the callback of [`SessionOptions::regenerate`](crate::SessionOptions::regenerate) before the session, or
    /// the region, can be used.
    Regenerate,
}

impl From<Attribute> for RangeKind {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Drop => Self::Drop,
            Attribute::Wipe => Self::Wipe,
            Attribute::Regenerate => Self::Regenerate,
        }
    }
}
