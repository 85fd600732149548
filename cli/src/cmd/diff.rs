//! `segvm diff`: what two commits do not have in common.

use std::collections::BTreeSet;

use serde_json::json;

use segvm_blockcache::{Store, TreeError, diff};
use segvm_home::{ImageRef, Record, SegmentRecord};

use super::blocks;
use crate::{
    failure::Failure,
    local::Local,
    output::{Align, Output, Table, bytes, count, printable},
};

/// What became of a segment on the way from one commit to the other.
#[derive(Default)]
struct Change {
    segment: String,
    /// `same`, `changed`, `added` or `removed`.
    what: &'static str,
    /// Blocks that differ, holes among them.
    blocks: u64,
    /// Blocks of the one that the other has not at their places.
    gone: u64,
    /// Blocks of the other that the one has not at their places.
    new: u64,
    bytes: u64,
    lens: [Option<u64>; 2],
}

pub(super) fn run(
    local: &Local,
    a: &ImageRef,
    b: &ImageRef,
    out: &mut Output,
) -> Result<(), Failure> {
    let (one, other) = (local.resolve(a)?, local.resolve(b)?);
    let view = local.view(&[(&a.name, &one), (&b.name, &other)])?;
    let segments = one.commit.segments.iter().chain(&other.commit.segments);
    let names: BTreeSet<&str> = segments.map(|segment| segment.name.as_str()).collect();
    let mut changes = Vec::with_capacity(names.len());
    for name in names {
        changes.push(change(&view, name, find(&one, name), find(&other, name))?);
    }
    if out.is_json() {
        return out.json(&json!({
            "a": one.commit_id.to_string(),
            "b": other.commit_id.to_string(),
            "segments": changes.iter().map(to_json).collect::<Vec<_>>(),
        }));
    }
    let heads = [
        ("SEGMENT", Align::Left),
        ("CHANGE", Align::Left),
        ("BLOCKS", Align::Right),
        ("BYTES", Align::Right),
        ("LENGTH", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for change in &changes {
        let len = |len: Option<u64>| len.map_or_else(|| "-".to_owned(), bytes);
        let [before, after] = change.lens;
        table.row([
            printable(&change.segment),
            change.what.to_owned(),
            count(change.blocks),
            bytes(change.bytes),
            if before == after {
                len(after)
            } else {
                format!("{} -> {}", len(before), len(after))
            },
        ]);
    }
    out.table(&table)
}

pub(super) fn find<'a>(record: &'a Record, name: &str) -> Option<&'a SegmentRecord> {
    let mut segments = record.commit.segments.iter();
    segments.find(|segment| segment.name == name)
}

fn change(
    view: &Store,
    name: &str,
    a: Option<&SegmentRecord>,
    b: Option<&SegmentRecord>,
) -> Result<Change, Failure> {
    let mut change = Change {
        segment: name.to_owned(),
        lens: [a.map(|a| a.len), b.map(|b| b.len)],
        ..Change::default()
    };
    let size = match (a, b) {
        (Some(a), Some(b)) => {
            diff(view, a.tree, b.tree, |_, before, after| {
                change.blocks += 1;
                change.gone += u64::from(before.is_some());
                change.new += u64::from(after.is_some());
            })
            .map_err(|source| failed(name, source))?;
            change.what = if a.tree == b.tree { "same" } else { "changed" };
            blocks::size(b)
        }
        (Some(only), None) => {
            change.what = "removed";
            change.blocks = blocks::number(view, only)?;
            change.gone = change.blocks;
            blocks::size(only)
        }
        (None, Some(only)) => {
            change.what = "added";
            change.blocks = blocks::number(view, only)?;
            change.new = change.blocks;
            blocks::size(only)
        }
        (None, None) => 0,
    };
    change.bytes = change.blocks * size;
    Ok(change)
}

pub(super) fn failed(segment: &str, source: TreeError) -> Failure {
    let segment = segment.to_owned();
    match source {
        TreeError::BlockSizesDiffer { a, b } => Failure::BlockSizes { segment, a, b },
        source => Failure::Tree { segment, source },
    }
}

fn to_json(change: &Change) -> serde_json::Value {
    json!({
        "segment": change.segment,
        "change": change.what,
        "blocks": change.blocks,
        "blocks_of_a": change.gone,
        "blocks_of_b": change.new,
        "bytes": change.bytes,
        "length_a": change.lens[0],
        "length_b": change.lens[1],
    })
}
