//! Regions on whole sessions: what is not saved is nowhere in the store, comes back as it should, and is not pulled from under guards.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

mod caches;
mod guards;
mod harness;
mod secrets;
