//! The rules of leases and commits: against a slow twin, and in every small world.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod examples;
mod twin;
mod worlds;

use segvm_blockcache::CommitId;
use segvm_home::{Holder, Timestamp};

fn holder(pid: u32) -> Holder {
    Holder {
        pid,
        host: "box".into(),
        program: format!("program-{pid}"),
        since: Timestamp::default(),
    }
}

fn commit(n: u32) -> CommitId {
    CommitId::of(&n.to_le_bytes())
}

fn at(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0).unwrap()
}
