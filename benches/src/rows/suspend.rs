//! Everything to disk, once.

use std::fs;

use super::{image, resume};
use crate::{
    error::BenchError,
    file,
    measure::{Ctx, Measured, Side, alternate, ms},
    memory::Plain,
    peer,
};

/// Writes 1 GiB past the page cache and syncs it.
pub(super) fn full(ctx: &Ctx) -> Result<Measured, BenchError> {
    let bytes = ctx.mib(1024);
    let store = ctx.path("suspend");
    let ours = Side::run(|| {
        let took = image::make(&store, bytes)?;
        image::remove(&store)?;
        Ok(vec![took])
    });
    let memory = Plain::filled(bytes, 1)?;
    let path = ctx.path("direct");
    let other = Side::run(|| {
        let took = file::write_direct(&path, memory.view())?;
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        Ok(vec![ms(took)])
    });
    Ok(alternate(5, ours, other))
}

/// Writes 1 GiB through the page cache, syncs it, and lets a new process map and read it at once.
///
/// The other side reads from the page cache, which its own write has filled: that is what makes this row
/// hard for whoever writes past it.
pub(super) fn then_read(ctx: &Ctx) -> Result<Measured, BenchError> {
    let bytes = ctx.mib(1024);
    let store = ctx.path("suspend-read");
    let ours = Side::run(|| {
        let write = image::make(&store, bytes)?;
        let read = peer::once(image::READ_ALL, &image::arguments(&store, bytes))?;
        image::remove(&store)?;
        Ok(parts(write, &read))
    });
    let memory = Plain::filled(bytes, 2)?;
    let path = ctx.path("buffered");
    let other = Side::run(|| {
        Plain::touch_free(bytes + bytes / 8)?;
        let write = ms(file::write_buffered(&path, memory.view())?);
        let read = peer::once(resume::READ_ALL, &[path.display().to_string()])?;
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        Ok(parts(write, &read))
    });
    Ok(alternate(5, ours, other))
}

fn parts(write: f64, read: &[f64]) -> Vec<f64> {
    let read = read.first().copied().unwrap_or(f64::NAN);
    vec![write + read, write, read]
}
