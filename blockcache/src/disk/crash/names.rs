//! The names of a crashing disk: what the process sees beside what its directories hold durably.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::dice::{Dice, Luck};

/// The number of a file, whatever its name.
pub(super) type Ino = usize;

/// One tree of names.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<PathBuf, Ino>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// Names in two trees, and the steps between them.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) live: Tree,
    durable: Tree,
    /// In the order in which they were made.
    pending: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    MakeDir(PathBuf),
    Create(PathBuf, Ino),
    Rename(PathBuf, PathBuf, Ino),
    Remove(PathBuf),
}

impl Tree {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::MakeDir(dir) => {
                self.dirs.insert(dir.clone());
            }
            Step::Create(path, ino) => {
                self.files.insert(path.clone(), *ino);
            }
            Step::Rename(from, to, ino) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *ino);
            }
            Step::Remove(path) => {
                self.files.remove(path);
            }
        }
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.dirs.contains(path)
    }

    /// Drops what lies in directories that are not there.
    fn without_orphans(mut self) -> Self {
        let all = self.dirs.clone();
        let reached = |path: &PathBuf| {
            path.ancestors().skip(1).all(|dir| {
                all.contains(dir) || dir.parent().is_none() || dir.as_os_str().is_empty()
            })
        };
        self.dirs.retain(reached);
        self.files.retain(|path, _| reached(path));
        self
    }
}

impl Step {
    fn concerns(&self, dir: &Path) -> bool {
        match self {
            Self::MakeDir(path) | Self::Create(path, _) | Self::Remove(path) => {
                path.parent() == Some(dir)
            }
            Self::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

impl Names {
    /// A disk as found after a crash: what is there is durable.
    pub(super) fn settled(tree: Tree) -> Self {
        Self {
            live: tree.clone(),
            durable: tree,
            pending: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.live.apply(&step);
        self.pending.push(step);
    }

    pub(super) fn sync(&mut self, dir: &Path) {
        for step in self.pending.extract_if(.., |step| step.concerns(dir)) {
            self.durable.apply(&step);
        }
    }

    /// One of the trees that a power cut now may leave: each step that was not synced happened, or did not.
    pub(super) fn after_crash(&self, dice: &mut Dice, luck: Luck) -> Tree {
        let mut tree = self.durable.clone();
        for step in &self.pending {
            if dice.survives(luck) {
                tree.apply(step);
            }
        }
        tree.without_orphans()
    }
}
