//! `segvm log`: the commits of an image, and what they are called.

use std::collections::HashMap;

use serde_json::json;

use segvm_blockcache::CommitId;
use segvm_home::{Commit, History, Record};

use super::size_of;
use crate::{
    args::Log,
    failure::Failure,
    local::Local,
    output::{Align, Output, Table, age, bytes, printable},
};

pub(super) fn run(local: &Local, args: &Log, out: &mut Output) -> Result<(), Failure> {
    local.head(&args.image)?;
    let mut tags: HashMap<CommitId, Vec<String>> = HashMap::new();
    for tag in local.home.tags(&args.image)? {
        let names = tags.entry(tag.record.commit_id).or_default();
        names.push(tag.name.to_string());
    }
    let mut history = History::of(&local.home, &args.image)?;
    let wanted = history.by_ref().take(args.limit.unwrap_or(usize::MAX));
    let records = wanted.collect::<Result<Vec<Record>, _>>()?;
    if out.is_json() {
        let rows = records.iter().enumerate();
        let rows = rows.map(|(back, record)| to_json(back, record, tags.get(&record.commit_id)));
        return out.json(&rows.collect());
    }
    let heads = [
        ("AT", Align::Left),
        ("COMMIT", Align::Left),
        ("TIME", Align::Left),
        ("AGE", Align::Left),
        ("SIZE", Align::Right),
        ("PROGRAM", Align::Left),
        ("HOST", Align::Left),
        ("NOTES", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for (back, record) in records.iter().enumerate() {
        let commit = &record.commit;
        let mut notes = tags.get(&record.commit_id).cloned().unwrap_or_default();
        notes.extend(origin(commit));
        table.row([
            format!("@-{back}"),
            format!("{:.12}", record.commit_id),
            commit.time.to_string(),
            age(local.now, commit.time),
            bytes(size_of(record)),
            printable(&commit.program),
            printable(&commit.host),
            notes.join(", "),
        ]);
    }
    out.table(&table)?;
    if let Some(gone) = history.gone() {
        out.note(&format!(
            "branched off image {gone}, which is not there any more"
        ));
    }
    Ok(())
}

/// Where a commit comes from, if not simply from the one before it.
pub(super) fn origin(commit: &Commit) -> Option<String> {
    let attribute = |name: &str| commit.attributes.get(name);
    if let Some(image) = attribute("branched-from") {
        return Some(format!(
            "branched off {}",
            printable(&String::from_utf8_lossy(image))
        ));
    }
    let id = attribute("restored-from")?.first_chunk::<32>()?;
    Some(format!("restored from {:.12}", CommitId::from_bytes(*id)))
}

fn to_json(back: usize, record: &Record, tags: Option<&Vec<String>>) -> serde_json::Value {
    let commit = &record.commit;
    let parents = commit.parents.iter().map(ToString::to_string);
    json!({
        "back": back,
        "commit": record.commit_id.to_string(),
        "sequence": record.seq,
        "time": commit.time.to_string(),
        "size": size_of(record),
        "program": commit.program,
        "host": commit.host,
        "generation": commit.generation,
        "parents": parents.collect::<Vec<String>>(),
        "tags": tags.cloned().unwrap_or_default(),
        "note": origin(commit),
    })
}
