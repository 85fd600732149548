//! The memory that an open session takes for itself.

use std::fs;

use super::{image, number};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate},
    memory::Plain,
    peer,
};

/// The peer that holds so many bytes of plain memory: answers with the MiB beyond them.
pub(super) const PLAIN: &str = "plain-footprint";

/// What a process with 1 GiB of plain, resident memory needs beyond it.
pub(super) fn clean(ctx: &Ctx) -> Result<Measured, BenchError> {
    let arguments = [ctx.mib(1024).to_string()];
    let other = Side::run(|| peer::once(PLAIN, &arguments));
    let store = ctx.path("footprint");
    image::make(&store, ctx.mib(1024))?;
    let image = image::arguments(&store, ctx.mib(1024));
    let ours = Side::run(|| peer::once(image::FOOTPRINT, &image));
    let measured = alternate(5, ours, other);
    image::remove(&store)?;
    Ok(measured)
}

pub(super) fn serve_plain(arguments: &[String]) -> Result<(), BenchError> {
    let bytes = number(PLAIN, arguments, 0)?;
    let memory = Plain::filled(bytes, 17)?;
    peer::serve(|| {
        let beyond = beyond(bytes)?;
        std::hint::black_box(memory.view());
        Ok(vec![beyond])
    })
}

/// MiB of this process's page tables.
pub(super) fn page_tables() -> Result<f64, BenchError> {
    Ok(kib("/proc/self/status", "VmPTE:")? / 1024.0)
}

/// MiB that this process has resident, page tables included, beyond `bytes`.
pub(super) fn beyond(bytes: usize) -> Result<f64, BenchError> {
    // The roll-up is exact; the counters in `status` are kept per core and lag behind.
    let resident = kib("/proc/self/smaps_rollup", "Rss:")?;
    Ok(resident / 1024.0 + page_tables()? - (bytes >> 20) as f64)
}

/// A number of KiB that a file in `/proc` gives under a name; NaN where it does not.
pub(super) fn kib(path: &str, name: &str) -> Result<f64, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let words = line.map(str::split_whitespace);
    let number = words.and_then(|mut words| words.next()?.parse().ok());
    Ok(number.unwrap_or(f64::NAN))
}
