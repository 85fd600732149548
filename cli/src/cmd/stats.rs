//! `segvm stats`: the store in a few numbers.

use std::{collections::HashSet, io};

use serde_json::json;

use segvm_blockcache::{PackId, TreeId, disk::Open};

use super::size_of;
use crate::{
    failure::Failure,
    local::Local,
    output::{Output, Paint, bytes, count, counted},
};

#[derive(Default)]
struct Sums {
    images: u64,
    open: u64,
    commits: u64,
    tags: u64,
    /// Of the newest commits.
    size: u64,
    trees: HashSet<TreeId>,
    packs: u64,
    unsealed: u64,
    pack_bytes: u64,
    extent_bytes: u64,
}

pub(super) fn run(local: &Local, out: &mut Output) -> Result<(), Failure> {
    let store = local.store()?;
    let mut sums = Sums::default();
    for image in local.home.images()? {
        sums.images += 1;
        sums.tags += u64::try_from(local.home.tags(&image)?.len()).unwrap_or(u64::MAX);
        sums.open += u64::from(local.home.holder(&image)?.is_some());
        if let Some(head) = local.home.image(&image)?.and_then(|state| state.head) {
            sums.commits += head.seq + 1;
            sums.size += size_of(&head);
            sums.trees
                .extend(head.commit.segments.iter().map(|segment| segment.tree));
        }
    }
    for (name, len) in files(local, "packs")? {
        let Some(Ok(id)) = name.strip_suffix(".pack").map(str::parse::<PackId>) else {
            continue;
        };
        sums.packs += 1;
        sums.pack_bytes += len;
        sums.unsealed += u64::from(!store.has_sealed(id));
    }
    sums.extent_bytes = files(local, "extents")?.iter().map(|(_, len)| len).sum();
    show(local, &sums, out)
}

/// The files in a directory of the store, with their lengths.
fn files(local: &Local, directory: &str) -> Result<Vec<(String, u64)>, Failure> {
    let path = local.root.join(directory);
    let names = match local.disk.list(&path) {
        Ok(names) => names,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Failure::Read { path, source }),
    };
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let file = path.join(&name);
        match local
            .disk
            .open(&file, Open::Read)
            .and_then(|file| file.len())
        {
            Ok(len) => files.push((name, len)),
            // Somebody replaced it meanwhile.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Failure::Read { path: file, source }),
        }
    }
    Ok(files)
}

fn show(local: &Local, sums: &Sums, out: &mut Output) -> Result<(), Failure> {
    let trees = u64::try_from(sums.trees.len()).unwrap_or(u64::MAX);
    if out.is_json() {
        return out.json(&json!({
            "store": local.root.display().to_string(),
            "images": sums.images,
            "open": sums.open,
            "commits": sums.commits,
            "tags": sums.tags,
            "size": sums.size,
            "trees": trees,
            "packs": sums.packs,
            "unsealed_packs": sums.unsealed,
            "pack_bytes": sums.pack_bytes,
            "extent_map_bytes": sums.extent_bytes,
        }));
    }
    let lines = [
        ("store", local.root.display().to_string()),
        (
            "images",
            format!("{}, {} open for writing", count(sums.images), sums.open),
        ),
        (
            "commits",
            format!("{}, {}", count(sums.commits), counted(sums.tags, "tag")),
        ),
        (
            "size",
            format!(
                "{} in the newest commits, {}",
                bytes(sums.size),
                counted(trees, "different tree")
            ),
        ),
        (
            "packs",
            format!(
                "{} in {}, {} not sealed",
                bytes(sums.pack_bytes),
                count(sums.packs),
                sums.unsealed
            ),
        ),
        ("extent maps", bytes(sums.extent_bytes)),
    ];
    for (name, text) in lines {
        let name = out.paint(Paint::Bold, &format!("{name:<12}"));
        out.line(format!("{name}{text}"))?;
    }
    Ok(())
}
