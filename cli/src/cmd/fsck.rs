//! `segvm fsck`: whether everything is what it should be, and whom it touches where it is not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use segvm_blockcache::{
    TreeRoot,
    fsck::{Depth, Finding, Options, Progress, Report, Severity, check},
};

use segvm_home::Roots;

use crate::{
    exit::Code,
    failure::Failure,
    local::Local,
    output::{Meter, Output, Paint, bytes, count, counted},
};

/// An image of which not all that it needs is known.
struct Unread {
    image: String,
    why: Failure,
}

pub(super) fn run(local: &Local, deep: bool, out: &mut Output) -> Result<Code, Failure> {
    let store = local.store()?;
    // Before the check begins, so that the packs hold all that the records speak of.
    let mut roots = Roots::default();
    let mut unread = Vec::new();
    for image in local.home.images()? {
        let mut read = || {
            roots.add(&local.home, &image)?;
            // The lease is no root, and an image whose lease cannot be read cannot be opened.
            local.home.holder(&image)?;
            Ok(())
        };
        if let Err(why) = read() {
            let image = image.to_string();
            unread.push(Unread { image, why });
        }
    }
    let options = Options {
        depth: if deep { Depth::Deep } else { Depth::Structure },
        ..Options::default()
    };
    let mut meter = Meter::new(out);
    let report = check(
        &store,
        &roots.trees,
        &roots.marks,
        options,
        &mut |progress| meter.show(|| text(progress)),
    )?;
    meter.clear();
    if out.is_json() {
        out.json(&to_json(&roots, &unread, &report))?;
    } else {
        show(&roots, &unread, &report, out)?;
    }
    let harm = report.worst() == Some(Severity::Harm) || !unread.is_empty();
    Ok(if harm { Code::Corrupt } else { Code::Success })
}

fn text(progress: Progress) -> Option<String> {
    match progress {
        Progress::Packs { done, total } => {
            Some(format!("packs: {} of {}", bytes(done), bytes(total)))
        }
        Progress::Trees { done, total } => {
            Some(format!("trees: {} of {}", count(done), count(total)))
        }
        Progress::Maps { done, total } => {
            Some(format!("extent maps: {} of {}", count(done), count(total)))
        }
        _ => None,
    }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Harm => "harm",
        Severity::Mendable => "mendable",
        Severity::Unreached => "unreached",
    }
}

/// The roots that a finding touches.
fn touched<'a>(roots: &'a Roots, finding: &Finding) -> Vec<&'a TreeRoot> {
    let places = finding.touches.iter();
    places.filter_map(|at| roots.trees.get(*at)).collect()
}

fn show(
    roots: &Roots,
    unread: &[Unread],
    report: &Report,
    out: &mut Output,
) -> Result<(), Failure> {
    for Unread { image, why } in unread {
        let harm = out.paint(Paint::Bad, "harm");
        out.line(format!("{harm}  image {image}: {why}"))?;
    }
    for finding in &report.findings {
        let paint = match finding.severity {
            Severity::Harm => Paint::Bad,
            Severity::Mendable => Paint::Warn,
            Severity::Unreached => Paint::Dim,
        };
        let severity = out.paint(paint, name(finding.severity));
        out.line(format!("{severity}  {finding}"))?;
        let touched = touched(roots, finding);
        let names: Vec<String> = touched.iter().take(8).map(ToString::to_string).collect();
        if !names.is_empty() {
            let more = touched.len().saturating_sub(names.len());
            let more = match more {
                0 => String::new(),
                more => format!(
                    " and {} more",
                    count(u64::try_from(more).unwrap_or(u64::MAX))
                ),
            };
            out.line(format!("      touches {}{more}", names.join(", ")))?;
        }
    }
    for stray in &report.strays {
        out.note(&format!("{} is no file of a store", stray.display()));
    }
    let hashed = match report.hashed {
        0 => "no block was hashed (--deep does)".to_owned(),
        hashed => format!("{} blocks and nodes hashed", count(hashed)),
    };
    out.line(format!(
        "{}, {}; {} with {}; {}, {}, {}; {hashed}",
        counted(roots.images, "image"),
        counted(roots.commits, "commit"),
        counted(report.packs, "pack"),
        counted(report.blocks, "block"),
        counted(report.trees, "tree"),
        counted(report.reached_nodes, "node"),
        counted(report.maps, "extent map")
    ))?;
    let images: BTreeSet<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Harm)
        .flat_map(|finding| touched(roots, finding))
        .map(|root| &*root.image)
        .chain(unread.iter().map(|unread| unread.image.as_str()))
        .collect();
    let verdict = match report.worst() {
        _ if !images.is_empty() => {
            let images: Vec<&str> = images.into_iter().collect();
            let text = format!(
                "damaged: {}. A whole commit is found with `segvm log` and brought back with `segvm restore`",
                images.join(", ")
            );
            out.paint(Paint::Bad, &text)
        }
        None => out.paint(Paint::Good, "nothing is wrong"),
        Some(_) => out.paint(
            Paint::Warn,
            "every commit can be read; nothing needs to be done",
        ),
    };
    out.line(verdict)
}

fn to_json(roots: &Roots, unread: &[Unread], report: &Report) -> Value {
    let findings = report.findings.iter().map(|finding| {
        let touches = touched(roots, finding).into_iter().map(|root| {
            json!({
                "image": &*root.image,
                "commit": root.commit.to_string(),
                "segment": &*root.segment,
            })
        });
        json!({
            "severity": name(finding.severity),
            "what": finding.what.to_string(),
            "path": finding.path.as_ref().map(|path| path.display().to_string()),
            "offset": finding.offset,
            "touches": touches.collect::<Vec<_>>(),
        })
    });
    let unread = unread
        .iter()
        .map(|unread| json!({ "image": unread.image, "why": unread.why.to_string() }));
    json!({
        "worst": report.worst().map(name),
        "findings": findings.collect::<Vec<_>>(),
        "unreadable_images": unread.collect::<Vec<_>>(),
        "images": roots.images,
        "commits": roots.commits,
        "packs": report.packs,
        "blocks": report.blocks,
        "nodes": report.nodes,
        "hashed": report.hashed,
        "bytes": report.bytes,
        "trees": report.trees,
        "extent_maps": report.maps,
        "unmarked_packs": report.unmarked.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "strays": report.strays.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}
