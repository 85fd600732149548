//! `segvm images`: what is in the store.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::json;

use segvm_blockcache::{CommitId, Store, StoreError};
use segvm_home::{Holder, ImageName, Record, Timestamp};

use super::{blocks, holder_json, size_of, whereabouts};
use crate::{
    args::Images,
    failure::Failure,
    local::{HOME, Local},
    output::{Align, Output, Table, age, bytes, count},
};

/// Up to so many images, how much each has stored is found out unasked: it reads a file for each segment.
const FEW: usize = 1000;

/// How many images a thread takes at a time; one is not worth making for less.
const PART: usize = 256;

struct Row {
    image: ImageName,
    head: Option<Head>,
    holder: Option<Holder>,
    /// Bytes of blocks that are no holes; `None` where nobody asked, or what is needed is damaged.
    stored: Option<u64>,
}

/// What is told of the newest commit: records of 10,000 images would be dear to keep.
struct Head {
    size: u64,
    commits: u64,
    commit_id: CommitId,
    time: Timestamp,
}

impl From<&Record> for Head {
    fn from(record: &Record) -> Self {
        Self {
            size: size_of(record),
            commits: record.seq + 1,
            commit_id: record.commit_id,
            time: record.commit.time,
        }
    }
}

pub(super) fn run(local: &Local, args: &Images, out: &mut Output) -> Result<(), Failure> {
    let names = local.home.names()?;
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
    let look = Look {
        local,
        names: &names,
        store: store.as_ref(),
    };
    let failed = if out.is_json() {
        let (rows, failed) = look.at_all(to_json);
        out.json(&rows.into())?;
        failed
    } else {
        let (rows, failed) = look.at_all(|row| cells(local, &row));
        let mut table = Table::new(&HEADS);
        rows.into_iter().for_each(|row| table.row(row));
        out.table(&table)?;
        failed
    };
    failed.map_or(Ok(()), Err)
}

/// What is to be looked at.
struct Look<'a> {
    local: &'a Local,
    names: &'a [ImageName],
    store: Option<&'a Arc<Store>>,
}

impl Look<'_> {
    /// Looks at all images and makes something of each, in as many threads as there are processors: it is ten system calls each, most
    /// of which wait for memory. The first failure is told beside what else was found: one damaged image must not hide the others.
    fn at_all<T: Send>(&self, make: impl Fn(Row) -> T + Sync) -> (Vec<T>, Option<Failure>) {
        let parts: Vec<_> = self.names.chunks(PART).collect();
        // The next part that nobody has; it pairs with nothing: the scope's end brings the results.
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(names) = parts.get(at) else {
                    return done;
                };
                let mut failed = None;
                let rows = names
                    .iter()
                    .filter_map(|image| self.row(image, &mut failed));
                let made: Vec<T> = rows.map(&make).collect();
                done.push((at, made, failed));
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut done = thread::scope(|scope| {
            let others = threads.min(parts.len()).saturating_sub(1);
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            done
        });
        done.sort_unstable_by_key(|(at, ..)| *at);
        let (mut all, mut first) = (Vec::with_capacity(self.names.len()), None);
        for (_, made, failed) in done {
            all.extend(made);
            first = first.or(failed);
        }
        (all, first)
    }

    fn row(&self, image: &ImageName, failed: &mut Option<Failure>) -> Option<Row> {
        let mut note = |error| {
            failed.get_or_insert(Failure::Home(error));
        };
        let head = match self.local.home.image(image) {
            Ok(Some(state)) => state.head,
            // Being made or removed.
            Ok(None) => return None,
            Err(error) => {
                note(error);
                None
            }
        };
        let holder = self.local.home.holder(image).unwrap_or_else(|error| {
            note(error);
            None
        });
        // What is damaged in its trees, `show` and `fsck` name.
        let of_head = head.as_ref().zip(self.store);
        let stored = of_head.and_then(|(head, store)| blocks::stored_of(store, image, head).ok());
        Some(Row {
            image: image.clone(),
            head: head.as_ref().map(Head::from),
            holder,
            stored,
        })
    }
}

const HEADS: [(&str, Align); 7] = [
    ("IMAGE", Align::Left),
    ("HOME", Align::Left),
    ("SIZE", Align::Right),
    ("STORED", Align::Right),
    ("COMMITS", Align::Right),
    ("LAST", Align::Left),
    ("LEASE", Align::Left),
];

fn cells(local: &Local, row: &Row) -> [String; 7] {
    let none = || "-".to_owned();
    let head = row.head.as_ref();
    [
        row.image.to_string(),
        HOME.to_owned(),
        head.map_or_else(none, |head| bytes(head.size)),
        row.stored.map_or_else(none, bytes),
        head.map_or_else(none, |head| count(head.commits)),
        head.map_or_else(none, |head| age(local.now, head.time)),
        row.holder.as_ref().map_or_else(none, whereabouts),
    ]
}

fn to_json(row: Row) -> serde_json::Value {
    let head = row.head.as_ref();
    json!({
        "image": row.image.as_str(),
        "home": HOME,
        "size": head.map(|head| head.size),
        "stored": row.stored,
        "commits": head.map_or(0, |head| head.commits),
        "head": head.map(|head| head.commit_id.to_string()),
        "last": head.map(|head| head.time.to_string()),
        "lease": holder_json(row.holder.as_ref()),
    })
}
