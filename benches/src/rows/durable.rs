//! From "checkpoint" to "on disk".

use std::{collections::BTreeSet, fs, os::unix::fs::FileExt, time::Instant};

use rustix::fs::fdatasync;

use super::image::{self, Life, Writes};
use crate::{
    error::BenchError,
    file::{self, CHUNK},
    measure::{Ctx, Measured, Sample, Side, alternate, ms},
    memory::{PAGE, Pages, Plain},
    rng::Rng,
};

/// The default block size of a segment.
const BLOCK: usize = 16 << 10;

/// Hashes and directly writes the blocks that 1 % random dirty pages lie in, then syncs.
///
/// The expert knows the dirty blocks for nothing, copies them into an aligned staging buffer of 1 MiB,
/// hashes them there and writes the buffer to a file whose space is allocated.
pub(super) fn dirty(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 8)?;
    let view = memory.view();
    let staging = Plain::new(CHUNK, Pages::Default)?;
    let path = ctx.path("blocks");
    let mut rng = Rng::new(9);
    let other = Side::run(|| {
        let pages = view.pages() / 100;
        let blocks: BTreeSet<usize> = (0..pages)
            .map(|_| rng.below(view.pages()) * PAGE / BLOCK)
            .collect();
        let blocks: Vec<usize> = blocks.into_iter().collect();
        let file = file::create_direct(&path, blocks.len() * BLOCK)?;
        let begun = Instant::now();
        let mut ids = Vec::with_capacity(blocks.len());
        let mut place = 0;
        for batch in blocks.chunks(CHUNK / BLOCK) {
            for (at, block) in batch.iter().enumerate() {
                for page in 0..BLOCK / PAGE {
                    staging.view().copy_page(
                        at * (BLOCK / PAGE) + page,
                        view,
                        block * (BLOCK / PAGE) + page,
                    );
                }
                // SAFETY: the staging buffer is written by this thread alone, and not while the slice lives.
                let bytes = unsafe { staging.view().bytes(at * BLOCK, BLOCK) };
                ids.push(blake3::hash(bytes));
            }
            let len = batch.len() * BLOCK;
            // SAFETY: as above.
            let bytes = unsafe { staging.view().bytes(0, len) };
            file.write_all_at(bytes, place)
                .map_err(BenchError::file("write directly to", &path))?;
            place += len as u64;
        }
        fdatasync(&file).map_err(BenchError::file("sync", &path))?;
        let took = ms(begun.elapsed());
        std::hint::black_box(ids);
        fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        Ok(vec![took])
    });
    let store = ctx.path("durable");
    let mut checkpointer = image::checkpointer(&store, ctx.mib(1024), Life::Warm, Writes::Percent)?;
    let ours = Side::run(|| Ok(checkpointer.ask()?.get(1).copied().into_iter().collect()));
    let measured = alternate(ctx.times(25), ours, other);
    drop(checkpointer);
    image::remove(&store)?;
    Ok(measured)
}

/// A checkpoint of nothing, warm. There is no other side: whoever does not track pays for everything.
pub(super) fn clean_warm(ctx: &Ctx) -> Result<Measured, BenchError> {
    let store = ctx.path("clean");
    let mut checkpointer = image::checkpointer(&store, ctx.mib(1024), Life::Warm, Writes::Nothing)?;
    let ours = Side::run(|| Ok(in_ms(&checkpointer.ask()?)));
    let measured = alternate(ctx.times(25), ours, nobody());
    drop(checkpointer);
    image::remove(&store)?;
    Ok(measured)
}

/// The same, in a process that has just resumed and read everything.
pub(super) fn clean_resumed(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (store, bytes) = (ctx.path("clean-resumed"), ctx.mib(1024));
    image::make(&store, bytes)?;
    let ours = Side::run(|| {
        let mut checkpointer = image::checkpointer(&store, bytes, Life::Resumed, Writes::Nothing)?;
        Ok(in_ms(&checkpointer.ask()?))
    });
    let measured = alternate(ctx.times(11), ours, nobody());
    image::remove(&store)?;
    Ok(measured)
}

fn nobody() -> Side<'static> {
    Side::missing("there is none: whoever does not track changes writes everything")
}

/// From a pause in microseconds and a time in milliseconds to two times in milliseconds.
fn in_ms(sample: &[f64]) -> Sample {
    sample
        .iter()
        .zip([1e-3, 1.0])
        .map(|(time, unit)| time * unit)
        .collect()
}
