//! Frees what nothing refers to: whole packs, blocks among dead ones, extent maps, and what dead writers left.
//!
//! | file | for |
//! |---|---|
//! | `inventory` | all packs, and which of them may go at all |
//! | `mark` | from the roots to everything that they need |
//! | `plan` | which packs stay, which go, and which are written again |
//! | `rewrite` | copies what is needed out of packs that are mostly dead |
//! | `sweep` | deletes |
//!
//! Simple, exclusive and right: whoever collects has the store [alone](Alone), so there is no writer that is about to
//! name something and no session that is about to map something. What is referred to, the caller says, and reads it
//! *after* it has the store alone. Marking comes first and ends the collection where it fails; then bytes are copied
//! and synced; then maps go, and packs last. A collection that is cut off at any point has lost nothing.

mod inventory;
mod mark;
mod plan;
mod rewrite;
mod sweep;

use std::io;

use crate::{
    id::{BlockId, NodeId, PackId},
    pack::PackError,
    root::{ImageMark, TreeRoot},
    spans,
    store::{Alone, StoreError},
    tree::DecodeError,
};
use inventory::Inventory;
use mark::Marked;
use plan::Plan;

/// Whether anything is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Says what would be freed, and changes nothing.
    #[default]
    Plan,
    /// Frees it.
    Collect,
}

/// How a store is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether anything is done.
    pub mode: Mode,
    /// A pack of which less than so many hundredths are needed is written again; 0 rewrites none.
    pub rewrite_below_percent: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Plan,
            // Rewriting then costs at most as many bytes as it frees.
            rewrite_below_percent: 50,
        }
    }
}

/// Why a pack goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// No root needs anything in it, or other packs have what is needed.
    Unneeded,
    /// Its writer died before its first checkpoint, or gave up: it is neither sealed nor marked.
    Orphan,
    /// What is needed of it was written again.
    Rewritten,
}

/// A pack that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The pack.
    pub pack: PackId,
    /// The length of its file.
    pub bytes: u64,
    /// Why it goes.
    pub why: Why,
}

/// What a collection freed, or would free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packs that go, in the order of their ids.
    pub removed: Vec<Removed>,
    /// Packs that stay; those that a rewrite makes are not among them.
    pub kept: u64,
    /// The length of their files.
    pub kept_bytes: u64,
    /// Packs that stay because they could not be read, whatever is in them: a check says more.
    pub damaged: Vec<PackId>,
    /// Different blocks that the roots need.
    pub blocks: u64,
    /// Different nodes that they need, heads included.
    pub nodes: u64,
    /// Bytes of blocks and nodes that are written again.
    pub rewritten: u64,
    /// The packs that have them now; none of a plan.
    pub made: Vec<PackId>,
    /// Extent maps that go: of trees that are no root's, not whole, or showing packs that go. The latter are made
    /// again.
    pub maps: u64,
    /// Drafts of extent maps that go: their writers are dead.
    pub drafts: u64,
}

impl Report {
    /// Bytes of pack files that are freed, less those that are written again.
    #[must_use]
    pub fn freed(&self) -> u64 {
        let removed: u64 = self.removed.iter().map(|removed| removed.bytes).sum();
        removed.saturating_sub(self.rewritten)
    }
}

/// Why a collection ended early. Nothing that is referred to was deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// A tree refers to a block that no pack has, so that what it needs is not known. A check says more.
    #[error("nothing is collected: block {id:.12}, which {root} needs, is nowhere")]
    AbsentBlock {
        /// The first root that needs it.
        root: Box<TreeRoot>,
        /// The block.
        id: BlockId,
    },
    /// A tree refers to a node that no pack has, so that what it needs is not known. A check says more.
    #[error("nothing is collected: node {id:.12}, which {root} needs, is nowhere")]
    AbsentNode {
        /// The first root that needs it.
        root: Box<TreeRoot>,
        /// The node.
        id: NodeId,
    },
    /// No copy of a node can be read, so that what is below it is not known. A check says more.
    #[error("nothing is collected: node {id:.12}, which {root} needs, is damaged")]
    Node {
        /// The first root that needs it.
        root: Box<TreeRoot>,
        /// The node.
        id: NodeId,
        /// The kernel's word, if the bytes could not be read.
        source: Option<io::Error>,
    },
    /// A node is what its id names and does not belong where it is. A check says more.
    #[error("nothing is collected: node {id:.12}, which {root} needs, is malformed")]
    Malformed {
        /// The first root that needs it.
        root: Box<TreeRoot>,
        /// The node.
        id: NodeId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// What is needed could not be written again.
    #[error("what is needed could not be written again")]
    Rewrite(#[source] PackError),
    /// The store could not be listed, or a file of it could not be removed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// What there is: packs.
    Looking {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// What is needed: roots.
    Marking {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Bytes of blocks and nodes that are written again.
    Rewriting {
        /// Done so far.
        done: u64,
        /// In all; less comes of it where a pack turns out to be damaged.
        total: u64,
    },
    /// Packs that go.
    Removing {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
}

/// Frees what neither roots nor marks need.
///
/// `roots` are all of them: the trees of every commit of every image, tag and pin. `marks` are those of every image's
/// newest record; a marked pack always stays, since whoever opens the image asks for it. Both were read since the store
/// is held alone. `progress` is told of every pack and every root.
///
/// - **Cost**: reads every node that a root reaches; what is written again; and, before a pack goes of which another
///   has a copy, that copy. Memory as of a check.
/// - **Durable**: on `Ok`, yes. On `Err` some packs may be gone, and all that is needed is there.
/// - **Errors**: all but [`GcError::Store`] and [`GcError::Rewrite`] come before anything is changed.
pub fn collect(
    alone: &Alone,
    roots: &[TreeRoot],
    marks: &[ImageMark],
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, GcError> {
    let store = alone.store();
    let span = spans::span!(
        INFO,
        "gc",
        mode = ?options.mode,
        roots = roots.len(),
        packs_freed = spans::Empty,
        bytes_freed = spans::Empty,
        bytes_rewritten = spans::Empty,
    );
    let inventory = Inventory::take(store, roots, marks, progress)?;
    let marking = spans::span!(DEBUG, "mark");
    let marked = Marked::from_roots(&inventory, roots, progress)?;
    drop(marking);
    let mut plan = Plan::make(&inventory, &marked, options);
    let made = match options.mode {
        Mode::Plan => Vec::new(),
        Mode::Collect => {
            let _rewriting = spans::span!(DEBUG, "rewrite");
            let made = rewrite::rewrite(store, &inventory, &marked, &mut plan, progress)?;
            plan.settle(&inventory, &marked);
            made
        }
    };
    let report = plan.report(&inventory, &marked, made);
    if options.mode == Mode::Collect {
        let _sweeping = spans::span!(DEBUG, "sweep");
        sweep::sweep(store, &inventory, &marked, &plan, progress)?;
    }
    spans::record!(
        span,
        packs_freed = report.removed.len(),
        bytes_freed = report.freed(),
        bytes_rewritten = report.rewritten,
    );
    Ok(report)
}
