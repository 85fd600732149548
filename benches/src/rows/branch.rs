//! A new image that starts at a commit of another.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::atomic::Ordering::Relaxed};

use segvm::Rounds;

use super::{image, number, path};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, ms},
    memory::PAGE,
    ours::Image,
    peer::{self, Peer},
};

/// Branches when asked: arguments are store and bytes. Answers with milliseconds, KiB of disk, and milliseconds right
/// after a checkpoint.
pub(super) const BRANCH: &str = "image-branch";

/// Branches of 4 GiB.
pub(super) fn large(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (store, bytes) = (ctx.path("branch"), ctx.mib(4096));
    image::make(&store, bytes)?;
    let mut brancher = Peer::start(BRANCH, &image::arguments(&store, bytes))?;
    let nobody = Side::missing("there is none: a copy of the file writes all of it");
    let measured = alternate(ctx.times(41), Side::run(|| brancher.ask()), nobody);
    drop(brancher);
    image::remove(&store)?;
    Ok(measured)
}

pub(super) fn serve_branch(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = (path(BRANCH, arguments)?, number(BRANCH, arguments, 1)?);
    let image = Image::open(&store, bytes)?;
    let mut branches = 0_u64;
    let mut branch = || {
        branches += 1;
        image.branch(&format!("branch-{branches}"))
    };
    peer::serve(|| {
        let before = on_disk(&store)?;
        let clean = branch()?;
        let grown = on_disk(&store)?.saturating_sub(before);
        image.change(|view| view.word(PAGE).fetch_add(1, Relaxed))?;
        image.checkpoint(Rounds::Auto)?;
        let sealing = branch()?;
        Ok(vec![ms(clean), (grown >> 10) as f64, ms(sealing)])
    })?;
    drop(image);
    Ok(())
}

/// Bytes that a directory and everything in it take on the disk.
fn on_disk(path: &Path) -> Result<u64, BenchError> {
    let data = fs::symlink_metadata(path).map_err(BenchError::file("look at", path))?;
    let mut bytes = data.blocks() * 512;
    if data.is_dir() {
        for entry in fs::read_dir(path).map_err(BenchError::file("list", path))? {
            let entry = entry.map_err(BenchError::file("list", path))?;
            bytes += on_disk(&entry.path())?;
        }
    }
    Ok(bytes)
}
