//! From nothing to the first byte, and to the last, in a process that has just begun.

use std::{path::PathBuf, time::Instant};

use super::{image, path};
use crate::{
    error::BenchError,
    file,
    measure::{Ctx, Measured, Side, alternate, ms, us},
    peer,
};

/// The peer that opens, maps and reads one word: answers with microseconds.
pub(super) const FIRST_BYTE: &str = "bare-first-byte";
/// The peer that opens, maps and reads everything: answers with milliseconds.
pub(super) const READ_ALL: &str = "bare-read-all";

pub(super) fn first_byte_256m(ctx: &Ctx) -> Result<Measured, BenchError> {
    first_byte(ctx, 256)
}

pub(super) fn first_byte_1g(ctx: &Ctx) -> Result<Measured, BenchError> {
    first_byte(ctx, 1024)
}

pub(super) fn first_byte_4g(ctx: &Ctx) -> Result<Measured, BenchError> {
    first_byte(ctx, 4096)
}

fn first_byte(ctx: &Ctx, mib: usize) -> Result<Measured, BenchError> {
    let path = ctx.path(&format!("first-byte-{mib}"));
    file::create_warm(&path, ctx.mib(mib), 3)?;
    let arguments = [path.display().to_string()];
    let other = Side::run(|| peer::once(FIRST_BYTE, &arguments));
    let (store, image) = warm_image(ctx, mib)?;
    let ours = Side::run(|| peer::once(image::FIRST_BYTE, &image));
    let measured = alternate(ctx.times(21), ours, other);
    image::remove(&store)?;
    std::fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
    Ok(measured)
}

/// Maps 1 GiB privately and reads every cache line, from the page cache.
pub(super) fn read_all(ctx: &Ctx) -> Result<Measured, BenchError> {
    let path = ctx.path("read-all");
    file::create_warm(&path, ctx.mib(1024), 4)?;
    let arguments = [path.display().to_string()];
    let other = Side::run(|| peer::once(READ_ALL, &arguments));
    let (store, image) = warm_image(ctx, 1024)?;
    let ours = Side::run(|| peer::once(image::READ_ALL, &image));
    let measured = alternate(ctx.times(11), ours, other);
    image::remove(&store)?;
    std::fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
    Ok(measured)
}

/// Makes an image and reads it once: its packs are then in the page cache. Gives its store and peers' arguments.
fn warm_image(ctx: &Ctx, mib: usize) -> Result<(PathBuf, Vec<String>), BenchError> {
    let store = ctx.path(&format!("image-{mib}"));
    let arguments = image::arguments(&store, ctx.mib(mib));
    image::make(&store, ctx.mib(mib))?;
    peer::once(image::READ_ALL, &arguments)?;
    Ok((store, arguments))
}

pub(super) fn serve_first_byte(arguments: &[String]) -> Result<(), BenchError> {
    let path = path(FIRST_BYTE, arguments)?;
    peer::serve(|| {
        let begun = Instant::now();
        let memory = file::map(&path)?;
        std::hint::black_box(
            memory
                .view()
                .word(0)
                .load(std::sync::atomic::Ordering::Relaxed),
        );
        Ok(vec![us(begun.elapsed())])
    })
}

pub(super) fn serve_read_all(arguments: &[String]) -> Result<(), BenchError> {
    let path = path(READ_ALL, arguments)?;
    peer::serve(|| {
        let begun = Instant::now();
        let _ = file::map(&path)?.view().read_all();
        Ok(vec![ms(begun.elapsed())])
    })
}
