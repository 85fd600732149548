//! `segvm images`: what is in the store.

use std::{sync::Arc, thread};

use serde_json::json;

use segvm_blockcache::{Store, StoreError};
use segvm_home::{Holder, ImageName, Record};

use super::{blocks, holder_json, size_of, whereabouts};
use crate::{
    args::Images,
    failure::Failure,
    local::{HOME, Local},
    output::{Align, Output, Table, age, bytes, count},
};

/// Up to so many images, how much each has stored is found out unasked: it reads a file for each segment.
const FEW: usize = 1000;

/// A thread is not worth making for less.
const PER_THREAD: usize = 256;

struct Row {
    image: ImageName,
    head: Option<Record>,
    holder: Option<Holder>,
    /// Bytes of blocks that are no holes; `None` where nobody asked, or what is needed is damaged.
    stored: Option<u64>,
}

pub(super) fn run(local: &Local, args: &Images, out: &mut Output) -> Result<(), Failure> {
    let names = local.home.images()?;
    if names.is_empty() && !local.is_there()? {
        out.note(&format!(
            "no store at {} yet: a program makes it when it first opens an image",
            local.root.display()
        ));
    }
    let with_stored = args.stored || names.len() <= FEW;
    let store = match (with_stored && !names.is_empty()).then(|| local.store()) {
        Some(Ok(store)) => Some(store),
        // While somebody collects, everything but this column can be told.
        None | Some(Err(Failure::Store(StoreError::Closed { .. }))) => None,
        Some(Err(error)) => return Err(error),
    };
    let (rows, failed) = look(local, &names, store.as_ref());
    show(local, &rows, out)?;
    failed.map_or(Ok(()), Err)
}

/// Looks at all images, a part of them in each thread: it is a dozen system calls each. The first failure is told beside what
/// else was found: one damaged image must not hide the others.
fn look(
    local: &Local,
    names: &[ImageName],
    store: Option<&Arc<Store>>,
) -> (Vec<Row>, Option<Failure>) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = names.len().div_ceil(threads).max(PER_THREAD);
    let part = |names: &[ImageName]| {
        let mut failed = None;
        let rows: Vec<Row> = names
            .iter()
            .map(|image| row(local, image, store, &mut failed))
            .collect();
        (rows, failed)
    };
    let mut chunks = names.chunks(each);
    let first = chunks.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = chunks
            .map(|names| scope.spawn(move || part(names)))
            .collect();
        let (mut rows, mut failed) = part(first);
        for other in others {
            let (more, failure) = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            rows.extend(more);
            failed = failed.or(failure);
        }
        (rows, failed)
    })
}

fn row(
    local: &Local,
    image: &ImageName,
    store: Option<&Arc<Store>>,
    failed: &mut Option<Failure>,
) -> Row {
    let mut note = |error| {
        failed.get_or_insert(Failure::Home(error));
    };
    let state = local.home.image(image).unwrap_or_else(|error| {
        note(error);
        None
    });
    let holder = local.home.holder(image).unwrap_or_else(|error| {
        note(error);
        None
    });
    let head = state.and_then(|state| state.head);
    // What is damaged in its trees, `show` and `fsck` name.
    let of_head = head.as_ref().zip(store);
    let stored = of_head.and_then(|(head, store)| blocks::stored_of(store, image, head).ok());
    Row {
        image: image.clone(),
        head,
        holder,
        stored,
    }
}

fn show(local: &Local, rows: &[Row], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&rows.iter().map(to_json).collect());
    }
    let heads = [
        ("IMAGE", Align::Left),
        ("HOME", Align::Left),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("COMMITS", Align::Right),
        ("LAST", Align::Left),
        ("LEASE", Align::Left),
    ];
    let mut table = Table::new(&heads);
    let none = || "-".to_owned();
    for row in rows {
        let head = row.head.as_ref();
        table.row([
            row.image.to_string(),
            HOME.to_owned(),
            head.map_or_else(none, |head| bytes(size_of(head))),
            row.stored.map_or_else(none, bytes),
            head.map_or_else(none, |head| count(head.seq + 1)),
            head.map_or_else(none, |head| age(local.now, head.commit.time)),
            row.holder.as_ref().map_or_else(none, whereabouts),
        ]);
    }
    out.table(&table)
}

fn to_json(row: &Row) -> serde_json::Value {
    let head = row.head.as_ref();
    json!({
        "image": row.image.as_str(),
        "home": HOME,
        "size": head.map(size_of),
        "stored": row.stored,
        "commits": head.map_or(0, |head| head.seq + 1),
        "head": head.map(|head| head.commit_id.to_string()),
        "last": head.map(|head| head.commit.time.to_string()),
        "lease": holder_json(row.holder.as_ref()),
    })
}
