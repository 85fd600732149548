//! The memory that an open session takes for itself.

use std::fs;

use super::{NO_SESSION, number};
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
    Ok(alternate(5, Side::missing(NO_SESSION), other))
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

/// MiB that this process has resident, page tables included, beyond `bytes`.
fn beyond(bytes: usize) -> Result<f64, BenchError> {
    // The roll-up is exact; the counters in `status` are kept per core and lag behind.
    let resident = kib("/proc/self/smaps_rollup", "Rss:")?;
    let tables = kib("/proc/self/status", "VmPTE:")?;
    Ok((resident + tables) / 1024.0 - (bytes >> 20) as f64)
}

fn kib(path: &str, name: &str) -> Result<f64, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let words = line.map(str::split_whitespace);
    let number = words.and_then(|mut words| words.next()?.parse().ok());
    Ok(number.unwrap_or(f64::NAN))
}
