//! `segvm show`: one commit and its segments; a root is for `root`.

use serde_json::{Value, json};

use segvm_blockcache::Store;
use segvm_home::{History, RangeKind, Record, SegmentKind, SegmentRecord};

use super::{blocks, diff, log::origin, map, root, svg};
use crate::{
    args::Show,
    failure::Failure,
    local::Local,
    output::{Align, Output, Paint, Table, age, bytes, count, printable},
};

/// A segment and what was found of it.
struct Shown<'a> {
    record: &'a SegmentRecord,
    stored: u64,
    map: Option<map::Strip>,
}

pub(super) fn run(local: &Local, args: &Show, out: &mut Output) -> Result<(), Failure> {
    if let Some(name) = &args.root {
        return root::run(local, args, name, out);
    }
    let record = local.resolve(&args.image)?;
    let parent = if args.map {
        parent(local, args, &record)?
    } else {
        None
    };
    let mut needed = vec![(&args.image.name, &record)];
    needed.extend(parent.as_ref().map(|parent| (&args.image.name, parent)));
    let view = local.view(&needed)?;
    let mut segments = Vec::with_capacity(record.commit.segments.len());
    for segment in &record.commit.segments {
        let before = parent
            .as_ref()
            .and_then(|parent| diff::find(parent, &segment.name));
        segments.push(look(&view, segment, before, args.map)?);
    }
    if let Some(path) = &args.svg {
        let strips = segments.iter().filter_map(|shown| {
            let name = &shown.record.name;
            Some((name.as_str(), shown.map.as_ref()?))
        });
        let title = format!("{}@{:.12}", args.image.name, record.commit_id);
        let drawing = svg::draw(&title, &strips.collect::<Vec<_>>());
        std::fs::write(path, drawing).map_err(|source| Failure::Write {
            path: path.clone(),
            source,
        })?;
    }
    if out.is_json() {
        return out.json(&to_json(args, &record, &segments));
    }
    show(local, args, &record, &segments, out)
}

/// The commit that this one continues, where it can still be found.
fn parent(local: &Local, args: &Show, record: &Record) -> Result<Option<Record>, Failure> {
    let Some(parent) = record.commit.parents.first() else {
        return Ok(None);
    };
    for earlier in History::of(&local.home, &args.image.name)? {
        let earlier = earlier?;
        if earlier.commit_id == *parent {
            return Ok(Some(earlier));
        }
    }
    Ok(None)
}

fn look<'a>(
    view: &Store,
    record: &'a SegmentRecord,
    before: Option<&SegmentRecord>,
    with_map: bool,
) -> Result<Shown<'a>, Failure> {
    if !with_map {
        let stored = blocks::number(view, record)?;
        return Ok(Shown {
            record,
            stored,
            map: None,
        });
    }
    let strip = map::Strip::of(view, record, before)?;
    Ok(Shown {
        record,
        stored: strip.stored(),
        map: Some(strip),
    })
}

fn show(
    local: &Local,
    args: &Show,
    record: &Record,
    segments: &[Shown<'_>],
    out: &mut Output,
) -> Result<(), Failure> {
    let commit = &record.commit;
    let mut lines = vec![
        ("commit", record.commit_id.to_string()),
        ("image", args.image.name.to_string()),
        (
            "time",
            format!("{} ({})", commit.time, age(local.now, commit.time)),
        ),
        (
            "by",
            format!(
                "{} on {}, generation {}",
                printable(&commit.program),
                printable(&commit.host),
                commit.generation
            ),
        ),
    ];
    lines.extend(commit.parents.iter().map(|id| ("parent", id.to_string())));
    lines.extend(origin(commit).map(|origin| ("note", origin)));
    for (name, text) in lines {
        let name = out.paint(Paint::Bold, &format!("{name:<8}"));
        out.line(format!("{name}{text}"))?;
    }
    out.line("")?;
    let heads = [
        ("SEGMENT", Align::Left),
        ("KIND", Align::Left),
        ("BASE", Align::Left),
        ("LENGTH", Align::Right),
        ("RESERVED", Align::Right),
        ("BLOCK", Align::Right),
        ("BLOCKS", Align::Right),
        ("HOLES", Align::Right),
        ("STORED", Align::Right),
        ("RANGES", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for Shown { record, stored, .. } in segments {
        table.row([
            printable(&record.name),
            kind(record.kind).to_owned(),
            format!("{:#x}", record.base),
            bytes(record.len),
            bytes(record.reserved),
            bytes(blocks::size(record)),
            count(*stored),
            count(holes(record, *stored)),
            bytes(stored * blocks::size(record)),
            ranges(record),
        ]);
    }
    out.table(&table)?;
    let mut drawn = false;
    for shown in segments {
        if let Some(strip) = &shown.map {
            map::show(&shown.record.name, strip, out)?;
            drawn = true;
        }
    }
    if drawn {
        map::legend(out)?;
    }
    Ok(())
}

fn holes(record: &SegmentRecord, stored: u64) -> u64 {
    record.block_size.count(record.len).saturating_sub(stored)
}

fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Raw => "raw",
        SegmentKind::Heap => "heap",
        _ => "other",
    }
}

fn range_kind(kind: RangeKind) -> &'static str {
    match kind {
        RangeKind::Drop => "drop",
        RangeKind::Wipe => "wipe",
        RangeKind::Regenerate => "regenerate",
        _ => "other",
    }
}

/// How much of a segment is not simply kept.
fn ranges(record: &SegmentRecord) -> String {
    let kinds = [RangeKind::Drop, RangeKind::Wipe, RangeKind::Regenerate];
    let texts = kinds.iter().filter_map(|kind| {
        let of_kind = record.ranges.iter().filter(|range| range.kind == *kind);
        let len: u64 = of_kind.map(|range| range.len).sum();
        (len > 0).then(|| format!("{} {}", bytes(len), range_kind(*kind)))
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn to_json(args: &Show, record: &Record, segments: &[Shown<'_>]) -> Value {
    let commit = &record.commit;
    let segments = segments.iter().map(|shown| {
        let record = shown.record;
        let ranges = record.ranges.iter().map(|range| {
            json!({ "start": range.start, "length": range.len, "kind": range_kind(range.kind) })
        });
        json!({
            "name": record.name,
            "kind": kind(record.kind),
            "tree": record.tree.to_string(),
            "base": record.base,
            "length": record.len,
            "reserved": record.reserved,
            "block_size": blocks::size(record),
            "blocks": shown.stored,
            "holes": holes(record, shown.stored),
            "ranges": ranges.collect::<Vec<_>>(),
            "map": shown.map.as_ref().map(map::Strip::to_json),
        })
    });
    json!({
        "image": args.image.name.as_str(),
        "commit": record.commit_id.to_string(),
        "time": commit.time.to_string(),
        "program": commit.program,
        "host": commit.host,
        "generation": commit.generation,
        "page_size": 1_u64 << commit.page_size_log2.min(63),
        "pointer_width": commit.pointer_width,
        "parents": commit.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "note": origin(commit),
        "segments": segments.collect::<Vec<_>>(),
    })
}
