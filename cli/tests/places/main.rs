//! Places that are not as a store wants them: read-only, full, somebody else's; and names that mean harm.
//!
//! A process of its own for each look, since a place belongs to a process: its user, its mounts, its limits.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops where it is surprised"
)]

mod full;
mod gone;
mod limits;
mod names;
mod read_only;
mod support;
mod users;

/// What the other process does.
#[test]
#[ignore = "the other process of these tests"]
fn session() {
    support::act();
}
