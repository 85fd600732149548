//! Locks of a disk in memory: who holds what.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// How a lock is wanted or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// By one alone.
    Alone,
    /// Beside others.
    Shared,
}

/// The locks that are held.
#[derive(Default)]
pub(super) struct Locks {
    /// How many have a share; none where one holds the lock alone.
    held: BTreeMap<PathBuf, Option<usize>>,
}

impl Locks {
    /// Takes the lock, if it is free for that.
    pub(super) fn take(&mut self, path: &Path, share: Share) -> bool {
        match (self.held.get_mut(path), share) {
            (None, Share::Alone) => {
                self.held.insert(path.to_owned(), None);
                true
            }
            (None, Share::Shared) => {
                self.held.insert(path.to_owned(), Some(1));
                true
            }
            (Some(Some(shares)), Share::Shared) => {
                *shares += 1;
                true
            }
            (Some(_), _) => false,
        }
    }

    pub(super) fn is_held(&self, path: &Path) -> bool {
        self.held.contains_key(path)
    }

    /// Gives back what one [`take`](Self::take) took.
    pub(super) fn give_back(&mut self, path: &Path) {
        match self.held.get_mut(path) {
            Some(Some(shares)) if *shares > 1 => *shares -= 1,
            _ => drop(self.held.remove(path)),
        }
    }
}
