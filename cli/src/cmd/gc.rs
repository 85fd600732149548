//! `segvm gc`: frees what nobody needs.

use std::sync::Arc;

use serde_json::json;

use segvm_blockcache::{
    Alone,
    gc::{Mode, Options, Progress, Report, Why, collect},
};
use segvm_home::Roots;

use crate::{
    failure::Failure,
    local::Local,
    output::{Align, Meter, Output, Paint, Table, bytes, count, counted},
};

pub(super) fn run(local: &Local, dry_run: bool, out: &mut Output) -> Result<(), Failure> {
    local.must_be_there()?;
    // Alone first, then the roots: nobody gives a commit a name meanwhile.
    let alone = Alone::open(Arc::clone(&local.disk), &local.root)?;
    // An image that cannot be read ends it: what it needs is not known.
    let roots = Roots::of(&local.home)?;
    let options = Options {
        mode: if dry_run { Mode::Plan } else { Mode::Collect },
        ..Options::default()
    };
    let mut meter = Meter::new(out);
    let report = collect(
        &alone,
        &roots.trees,
        &roots.marks,
        options,
        &mut |progress| {
            meter.show(|| text(progress));
        },
    );
    meter.clear();
    let report = report?;
    drop(alone);
    if out.is_json() {
        return out.json(&to_json(dry_run, &report));
    }
    show(dry_run, &report, &roots, out)
}

fn text(progress: Progress) -> Option<String> {
    match progress {
        Progress::Looking { done, total } => Some(format!(
            "looking: {} of {}",
            count(done),
            counted(total, "pack")
        )),
        Progress::Marking { done, total } => Some(format!(
            "marking: {} of {}",
            count(done),
            counted(total, "tree")
        )),
        Progress::Rewriting { done, total } => Some(format!(
            "writing again: {} of {}",
            bytes(done),
            bytes(total)
        )),
        Progress::Removing { done, total } => Some(format!(
            "removing: {} of {}",
            count(done),
            counted(total, "pack")
        )),
        _ => None,
    }
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Unneeded => "not needed",
        Why::Orphan => "no image marks it, and its writer is gone",
        Why::Rewritten => "what is needed of it is written again",
        _ => "other",
    }
}

fn show(dry_run: bool, report: &Report, roots: &Roots, out: &mut Output) -> Result<(), Failure> {
    if !report.removed.is_empty() {
        let heads = [
            ("PACK", Align::Left),
            ("BYTES", Align::Right),
            ("WHY", Align::Left),
        ];
        let mut table = Table::new(&heads);
        for removed in &report.removed {
            table.row([
                removed.pack.to_string(),
                bytes(removed.bytes),
                why(removed.why).to_owned(),
            ]);
        }
        out.table(&table)?;
    }
    let frees = if dry_run { "would free" } else { "freed" };
    let freed = out.paint(Paint::Bold, &bytes(report.freed()));
    let went = u64::try_from(report.removed.len()).unwrap_or(u64::MAX);
    out.line(format!(
        "{frees} {freed}, of {} and {}; what stays: {} with {}, for {} of {} in {}",
        counted(went, "pack"),
        counted(report.maps + report.drafts, "extent map"),
        counted(report.kept, "pack"),
        bytes(report.kept_bytes),
        counted(report.blocks, "block"),
        counted(roots.commits, "commit"),
        counted(roots.images, "image")
    ))?;
    if !report.damaged.is_empty() {
        let names: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
        let text = format!(
            "packs that cannot be read stay, `segvm fsck` says why: {}",
            names.join(", ")
        );
        out.line(out.paint(Paint::Warn, &text))?;
    }
    Ok(())
}

fn to_json(dry_run: bool, report: &Report) -> serde_json::Value {
    let removed = report.removed.iter().map(|removed| {
        json!({
            "pack": removed.pack.to_string(),
            "bytes": removed.bytes,
            "why": match removed.why {
                Why::Unneeded => "unneeded",
                Why::Orphan => "orphan",
                Why::Rewritten => "rewritten",
                _ => "other",
            },
        })
    });
    let names = |packs: &[segvm_blockcache::PackId]| -> Vec<String> {
        packs.iter().map(ToString::to_string).collect()
    };
    json!({
        "dry_run": dry_run,
        "freed": report.freed(),
        "removed": removed.collect::<Vec<_>>(),
        "kept": report.kept,
        "kept_bytes": report.kept_bytes,
        "damaged": names(&report.damaged),
        "made": names(&report.made),
        "rewritten": report.rewritten,
        "blocks": report.blocks,
        "nodes": report.nodes,
        "extent_maps": report.maps,
        "drafts": report.drafts,
    })
}
