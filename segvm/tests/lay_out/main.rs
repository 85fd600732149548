//! Windows that are written again to bound fragmentation: what is shown afterwards is what was saved, whatever fails meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

mod beside;
mod end;
mod harness;
mod places;
