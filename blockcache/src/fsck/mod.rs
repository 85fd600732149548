//! Checks a whole store: the structure of every pack, every tree of every root, every extent map; and, if asked, the
//! hash of everything.
//!
//! | file | for |
//! |---|---|
//! | `report` | what is asked and what is answered |
//! | `pack`, `batches`, `found` | the structure of one pack, whatever is wrong with parts of it |
//! | `packs` | all of them, one after the other, and the threads beside |
//! | `deep` | reads packs and hashes what is in them |
//! | `trees` | from the roots to the blocks, and back from a finding to its roots |
//! | `maps` | extent maps against their trees |
//! | `book` | findings by place |
//!
//! Nothing is written, and nothing ends the check early: what is damaged is a finding, and what lies behind it is
//! looked for. Sessions may go on meanwhile. What an image is, the caller knows: it gives [`TreeRoot`]s and marks, read
//! *before* the check begins, so that the packs hold all that they speak of.

mod batches;
mod book;
mod deep;
mod found;
mod maps;
mod pack;
mod packs;
mod report;
mod trees;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

pub use report::{Finding, Progress, Report, Severity, What};

use crate::{
    id::TreeId,
    pack::format::{Kind, len64},
    root::{ImageMark, TreeRoot},
    store::{Store, StoreError, catalog::Catalog},
};
use book::{Book, Number};
use maps::{Maps, tree_of};
use pack::Scene;
use packs::{check_packs, deep, list};
use trees::Walk;

/// How much is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Depth {
    /// Headers, seals, directories, indexes, extent maps, and every node that a root reaches.
    #[default]
    Structure,
    /// The same, and the hash of every block and node in every sealed or marked pack.
    Deep,
}

/// How a store is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much is read.
    pub depth: Depth,
    /// How many threads read and hash.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        // Two: one hashes while the other reads.
        Self {
            depth: Depth::Structure,
            threads: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}

/// Checks a store against what refers to it.
///
/// Every flipped bit in a header, a seal, a directory, an index or an extent map is found, and in every block and node
/// that a root reaches, the blocks with [`Depth::Deep`] only. What nothing reads is docs/design/fsck-gc.md's to list.
///
/// - **Cost**: reads 48 bytes for each block in the store twice, every node that a root reaches, and, if deep, all
///   packs. Memory: 6 bytes for each block in the store, the indexes of small packs, 100 bytes for each node reached.
/// - **Errors**: where the packs cannot be listed, or no thread can be made. All else is a [`Finding`].
pub fn check(
    store: &Store,
    roots: &[TreeRoot],
    marks: &[ImageMark],
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut book = Book::default();
    let listed = list(store, marks, &mut report, &mut book)?;
    let held = match options.depth {
        Depth::Structure => {
            let (mut done, total) = (0, listed.iter().map(|pack| pack.len).sum());
            let mut scene = Scene {
                book: &mut book,
                report: &mut report,
                jobs: None,
            };
            check_packs(store, &listed, marks, &mut scene, &mut |len| {
                done += len;
                progress(Progress::Packs { done, total });
            })
        }
        Depth::Deep => {
            let threads = options.threads.get();
            deep(
                store,
                &listed,
                marks,
                threads,
                &mut book,
                &mut report,
                progress,
            )?
        }
    };
    let catalog = Catalog::new(store.disk().clone(), held);

    let total = len64(roots.len());
    let mut walk = Walk::new(&catalog, &mut book);
    for (at, root) in roots.iter().enumerate() {
        walk.root(at, root);
        progress(Progress::Trees {
            done: len64(at) + 1,
            total,
        });
    }
    report.trees = len64(walk.trees());
    report.reached_nodes = len64(walk.nodes());
    let unsealed = walk.into_unsealed();
    touch_images(&mut book, roots);
    check_maps(store, &catalog, roots, &mut book, &mut report, progress)?;
    settle(&mut book, &catalog);
    let not_shared = not_shared(&mut book, &catalog, &unsealed, roots, marks);
    let findings = book.findings.into_iter().enumerate();
    let findings = findings.filter(|(number, _)| {
        !unsealed.values().any(|unsealed| unsealed == number) || not_shared.contains(number)
    });
    report.findings = findings.map(|(_, finding)| finding).collect();
    report
        .findings
        .sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    Ok(report)
}

/// Of the packs that are not sealed, the findings that hold: those with a root whose image does not mark the pack.
fn not_shared(
    book: &mut Book,
    catalog: &Catalog,
    unsealed: &HashMap<usize, Number>,
    roots: &[TreeRoot],
    marks: &[ImageMark],
) -> Vec<Number> {
    let mut hold = Vec::new();
    for (pack, number) in unsealed {
        let id = catalog.pack(*pack).map(|held| held.id);
        let marking = marks.iter().filter(|mark| Some(mark.mark.pack) == id);
        let marking: HashSet<&str> = marking.map(|mark| &*mark.image).collect();
        if let Some(finding) = book.findings.get_mut(*number) {
            finding.touches.retain(|at| {
                roots
                    .get(*at)
                    .is_some_and(|root| !marking.contains(&*root.image))
            });
            if !finding.touches.is_empty() {
                hold.push(*number);
            }
        }
    }
    hold
}

/// Findings that keep an image from being opened touch all its roots.
fn touch_images(book: &mut Book, roots: &[TreeRoot]) {
    for (image, number) in &book.images {
        let Some(finding) = book.findings.get_mut(*number) else {
            continue;
        };
        let of_image = roots.iter().enumerate();
        let of_image = of_image.filter(|(_, root)| root.image == *image);
        finding.touches.extend(of_image.map(|(at, _)| at));
        finding.touches.sort_unstable();
        finding.touches.dedup();
    }
}

fn check_maps(
    store: &Store,
    catalog: &Catalog,
    roots: &[TreeRoot],
    book: &mut Book,
    report: &mut Report,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let dir = store.extents_dir();
    let mut names = store
        .disk()
        .list(dir)
        .map_err(|source| StoreError::io("list", dir, source))?;
    names.sort_unstable();
    let reached: HashSet<TreeId> = roots.iter().map(|root| root.tree).collect();
    let maps = Maps::new(&**store.disk(), catalog);
    let total = len64(names.len());
    for (done, name) in (1..).zip(names) {
        let path = dir.join(&name);
        match tree_of(&name) {
            None => report.strays.push(path),
            Some(tree) => {
                report.maps += 1;
                let number = maps.check(book, &path, tree, reached.contains(&tree));
                if let Some(finding) = number.and_then(|number| book.findings.get_mut(number)) {
                    let named = roots.iter().enumerate();
                    let named = named.filter(|(_, root)| root.tree == tree);
                    finding.touches.extend(named.map(|(at, _)| at));
                }
            }
        }
        progress(Progress::Maps { done, total });
    }
    Ok(())
}

/// Says how bad each finding is, now that it is known who is touched and what is there twice.
fn settle(book: &mut Book, catalog: &Catalog) {
    let mut elsewhere = Vec::new();
    for (number, finding) in book.findings.iter().enumerate() {
        let (kind, id) = match &finding.what {
            What::Block { id, .. } => (Kind::Block, *id.as_bytes()),
            What::Node { id, .. } => (Kind::Node, *id.as_bytes()),
            _ => continue,
        };
        let spots = catalog.find(kind, &id).into_iter();
        let mut good = spots.filter(|spot| !book.harmed(spot.pack, spot.entry.offset(), &id));
        if let Some(held) = good.next().and_then(|spot| catalog.pack(spot.pack)) {
            elsewhere.push((number, held.id));
        }
    }
    for (number, pack) in elsewhere {
        if let Some(finding) = book.findings.get_mut(number) {
            finding.severity = Severity::Mendable;
            match &mut finding.what {
                What::Block { elsewhere, .. } | What::Node { elsewhere, .. } => {
                    *elsewhere = Some(pack);
                }
                _ => {}
            }
        }
    }
    for finding in &mut book.findings {
        if finding.touches.is_empty() && finding.severity == Severity::Harm {
            finding.severity = Severity::Unreached;
        }
    }
}
