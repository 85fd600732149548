//! The rows: one file a family, each with what a program would do without segvm beside what segvm does.

mod branch;
mod check;
mod churn;
mod collections;
mod durable;
mod footprint;
mod heap;
mod hookless;
mod image;
mod latency;
mod many;
mod pause;
mod readers;
mod resume;
mod sparse;
mod suspend;
mod write;

use crate::{
    error::BenchError,
    measure::{Ctx, Measured},
};

/// A row as code.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in rows.toml.
    pub name: &'static str,
    /// Measures both sides.
    pub run: fn(&Ctx) -> Result<Measured, BenchError>,
}

const fn row(name: &'static str, run: fn(&Ctx) -> Result<Measured, BenchError>) -> Row {
    Row { name, run }
}

/// Every row, as rows.toml lists them.
pub const ALL: &[Row] = &[
    row("core.suspend-full", suspend::full),
    row("core.suspend-resume-read", suspend::then_read),
    row("core.pause-residue-warm", pause::residue_warm),
    row("core.pause-residue-cold", pause::residue_cold),
    row("core.pause-writer-warm", pause::writer_warm),
    row("core.pause-writer-cold", pause::writer_cold),
    row("core.durable", durable::dirty),
    row("core.clean-warm", durable::clean_warm),
    row("core.clean-resumed", durable::clean_resumed),
    row("core.write-latency", latency::stores),
    row("core.resume-256m", resume::first_byte_256m),
    row("core.resume-1g", resume::first_byte_1g),
    row("core.resume-4g", resume::first_byte_4g),
    row("core.resume-read-all", resume::read_all),
    row("core.churn-hot", churn::hot),
    row("core.churn-random", churn::random),
    row("core.sparse-1tib", sparse::runs),
    row("core.write-tracked-random", write::random),
    row("core.write-tracked-sequential", write::sequential),
    row("core.first-touch", write::first_touch),
    row("core.memory", footprint::clean),
    row("core.heap-1", heap::one_thread),
    row("core.heap-2", heap::two_threads),
    row("core.hashmap-insert", collections::hashmap_insert),
    row("core.hashmap-lookup", collections::hashmap_lookup),
    row("core.btreemap-insert", collections::btreemap_insert),
    row("core.btreemap-lookup", collections::btreemap_lookup),
    row("core.hookless-checkpoint", hookless::checkpoint),
    row("core.images-10000", many::list),
    row("core.open-among-10000", many::open_among),
    row("core.branch-4gib", branch::large),
    row("core.readers-200", readers::crowd),
    row("core.fsck-deep", check::deep),
];

/// What a peer process does, by its name.
type Serve = fn(&[String]) -> Result<(), BenchError>;

const PEERS: &[(&str, Serve)] = &[
    (pause::FORK, pause::serve_fork),
    (resume::FIRST_BYTE, resume::serve_first_byte),
    (resume::READ_ALL, resume::serve_read_all),
    (footprint::PLAIN, footprint::serve_plain),
    (image::MAKE, image::serve_make),
    (image::FIRST_BYTE, image::serve_first_byte),
    (image::READ_ALL, image::serve_read_all),
    (image::CHECKPOINT, image::serve_checkpoint),
    (image::FOOTPRINT, image::serve_footprint),
    (image::CHURN, image::serve_churn),
    (hookless::CHECKPOINTS, hookless::serve_checkpoints),
    (many::BRANCHES, many::serve_branches),
    (branch::BRANCH, branch::serve_branch),
    (readers::READER, readers::serve_reader),
    (sparse::LIFE, sparse::serve_life),
    (write::FIRST_TOUCH, write::serve_first_touch),
];

/// Runs as the peer called `name`.
///
/// - **Errors**: the peer's own, or [`BenchError::Peer`] for a name that nobody has.
pub fn serve(name: &str, arguments: &[String]) -> Result<(), BenchError> {
    match PEERS.iter().find(|(known, _)| *known == name) {
        Some((_, serve)) => serve(arguments),
        None => Err(wrong(name, arguments)),
    }
}

fn wrong(name: &str, arguments: &[String]) -> BenchError {
    BenchError::Peer {
        name: name.to_owned(),
        answer: format!("started with {arguments:?}"),
    }
}

/// A peer's argument at a place, as a number.
fn number(name: &str, arguments: &[String], at: usize) -> Result<usize, BenchError> {
    let text = arguments.get(at).and_then(|text| text.parse().ok());
    text.ok_or_else(|| wrong(name, arguments))
}

/// A peer's first argument, as a path.
fn path(name: &str, arguments: &[String]) -> Result<std::path::PathBuf, BenchError> {
    let path = arguments.first().map(std::path::PathBuf::from);
    path.ok_or_else(|| wrong(name, arguments))
}
