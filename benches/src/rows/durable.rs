//! From "checkpoint" to "on disk".

use std::{collections::BTreeSet, fs, os::unix::fs::FileExt, time::Instant};

use rustix::fs::fdatasync;

use super::NO_SESSION;
use crate::{
    error::BenchError,
    file::{self, CHUNK},
    measure::{Ctx, Measured, Side, alternate, ms},
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
    Ok(alternate(ctx.times(25), Side::missing(NO_SESSION), other))
}

/// A checkpoint of nothing, warm. There is no other side: whoever does not track pays for everything.
pub(super) fn clean_warm(_ctx: &Ctx) -> Result<Measured, BenchError> {
    Ok(Measured::failed(NO_SESSION.to_owned()))
}

/// The same, in a process that has just resumed and read everything.
pub(super) fn clean_resumed(_ctx: &Ctx) -> Result<Measured, BenchError> {
    Ok(Measured::failed(NO_SESSION.to_owned()))
}
