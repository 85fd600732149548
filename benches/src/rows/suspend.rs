//! Everything to disk, once.

use std::fs;

use super::{NO_SESSION, resume};
use crate::{
    error::BenchError,
    file,
    measure::{Ctx, Measured, Side, alternate, ms},
    memory::Plain,
    peer,
};

/// Writes 1 GiB past the page cache and syncs it.
pub(super) fn full(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 1)?;
    let path = ctx.path("direct");
    let other = Side::run(|| {
        let took = file::write_direct(&path, memory.view())?;
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        Ok(vec![ms(took)])
    });
    Ok(alternate(5, Side::missing(NO_SESSION), other))
}

/// Writes 1 GiB through the page cache, syncs it, and lets a new process map and read it at once.
///
/// The other side reads from the page cache, which its own write has filled: that is what makes this row
/// hard for whoever writes past it.
pub(super) fn then_read(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 2)?;
    let path = ctx.path("buffered");
    let other = Side::run(|| {
        let write = ms(file::write_buffered(&path, memory.view())?);
        let read = peer::once(resume::READ_ALL, &[path.display().to_string()])?;
        let read = read.first().copied().unwrap_or(f64::NAN);
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        Ok(vec![write + read, write, read])
    });
    Ok(alternate(5, Side::missing(NO_SESSION), other))
}
