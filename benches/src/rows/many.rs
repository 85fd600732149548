//! A store with thousands of images.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{image, number, path, wrong};
use crate::{
    command,
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, ms},
    ours::Image,
    peer,
};

/// Branches the image in a store so many times: arguments are store, bytes and how many. Answers nothing.
pub(super) const BRANCHES: &str = "image-branches";

/// Images in the store; all of them share the blocks of one.
const IMAGES: usize = 10_000;

/// What one of them holds.
const MIB: usize = 16;

/// `segvm images` as a process, against one thread that reads the two files of each image in which all of it stands.
pub(super) fn list(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (store, images) = crowd(ctx)?;
    let ours = Side::run(|| {
        let table = command::segvm(&store, &["images"])?;
        // A head and a line for each.
        if table.lines != images + 1 {
            return Err(wrong("segvm images", &[format!("{} lines", table.lines)]));
        }
        let json = command::segvm(&store, &["images", "--json"])?;
        Ok(vec![ms(table.took), ms(json.took)])
    });
    let other = Side::run(|| {
        let begun = Instant::now();
        read_each(&store.join("images"))?;
        Ok(vec![ms(begun.elapsed())])
    });
    Ok(alternate(15, ours, other))
}

fn read_each(images: &Path) -> Result<(), BenchError> {
    for entry in fs::read_dir(images).map_err(BenchError::file("list", images))? {
        let dir = entry.map_err(BenchError::file("list", images))?.path();
        for name in ["log", "lease"] {
            let file = dir.join(name);
            let bytes = fs::read(&file).map_err(BenchError::file("read", &file))?;
            std::hint::black_box(bytes);
        }
    }
    Ok(())
}

/// Open to first byte in that store, against the same image in a store of its own.
pub(super) fn open_among(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (crowd, _) = crowd(ctx)?;
    let lone = ctx.path("lone");
    image::make(&lone, ctx.mib(MIB))?;
    let first_byte = |store: &Path| {
        let arguments = image::arguments(store, ctx.mib(MIB));
        move || peer::once(image::FIRST_BYTE, &arguments)
    };
    let measured = alternate(
        ctx.times(101),
        Side::run(first_byte(&crowd)),
        Side::run(first_byte(&lone)),
    );
    image::remove(&lone)?;
    Ok(measured)
}

/// The store with all the images, and how many those are. Made by the first row that wants it, and removed with the run.
fn crowd(ctx: &Ctx) -> Result<(PathBuf, usize), BenchError> {
    let (store, images) = (ctx.path("crowd"), ctx.times(IMAGES));
    if !store.exists() {
        image::make(&store, ctx.mib(MIB))?;
        let mut arguments = image::arguments(&store, ctx.mib(MIB));
        arguments.push((images - 1).to_string());
        peer::once(BRANCHES, &arguments)?;
    }
    Ok((store, images))
}

pub(super) fn serve_branches(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = (path(BRANCHES, arguments)?, number(BRANCHES, arguments, 1)?);
    let branches = number(BRANCHES, arguments, 2)?;
    let image = Image::open(&store, bytes)?;
    peer::serve(|| {
        for n in 0..branches {
            image.branch(&format!("branch-{n}"))?;
        }
        Ok(Vec::new())
    })?;
    drop(image);
    Ok(())
}
