//! Why memory holds what it holds: what a program is told that goes on from an earlier state.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use segvm_home::{BRANCHED_FROM, Record, Timestamp};

/// How a session came to its memory's content; told to resume hooks, and by [`Session::resumed`](crate::Session::resumed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It went on where the image's last writer had stopped.
    Resume,
    /// It has a copy: whoever made the commit may live and go on too, or others may have read it.
    Clone,
    /// It went on where another image was branched off, or became the writer of such a branch itself.
    Branch,
    /// It went back to an older commit.
    Restore,
    /// For resume hooks alone: flush hooks ran, and then the checkpoint or suspend failed; memory is what it was.
    Failed,
}

/// When, how and as which copy a session came to its memory's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// How.
    pub cause: Cause,
    /// Another number each time, also where two processes go on from one commit: random numbers, ids and retry counters that
    /// depend on it differ between copies. Not a secret. Higher than the one recorded in the commit.
    pub generation: u64,
    /// By the clock on the wall, since the instant of the commit; zero if that clock went back meanwhile.
    pub elapsed: Duration,
}

impl Resumed {
    pub(crate) fn from(record: &Record, cause: Cause, before: u64, now: Timestamp) -> Self {
        Self {
            cause,
            generation: next_generation(before.max(record.commit.generation), now),
            elapsed: now.since(record.commit.time),
        }
    }
}

/// How an opening session comes to a commit: `copied` where another process may have the same memory.
pub(crate) fn cause_of(record: &Record, copied: bool) -> Cause {
    let first_of_branch = record.seq == 0 && record.commit.attributes.contains_key(BRANCHED_FROM);
    match (copied, first_of_branch) {
        (true, _) => Cause::Clone,
        (false, true) => Cause::Branch,
        (false, false) => Cause::Resume,
    }
}

/// A generation after `before`: by a random step, so that two processes that go on from one commit do not agree.
pub(crate) fn next_generation(before: u64, now: Timestamp) -> u64 {
    // Forked children have the same random state: process and time tell them apart.
    let step = RandomState::new().hash_one((before, std::process::id(), now)) >> 32;
    before.saturating_add(1 + step)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn copies_of_one_commit_get_different_generations() {
        let now = Timestamp::default();
        let copies: BTreeSet<u64> = (0..100).map(|_| next_generation(7, now)).collect();
        assert_eq!(copies.len(), 100);
        assert!(copies.iter().all(|&generation| generation > 7));
        assert_eq!(next_generation(u64::MAX, now), u64::MAX);
    }
}
