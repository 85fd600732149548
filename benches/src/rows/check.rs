//! Reading and hashing all that a store has.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::fs::OFlags;

use super::image;
use crate::{
    command,
    error::BenchError,
    file::CHUNK,
    measure::{Ctx, Measured, Side, alternate, ms},
    memory::PAGE,
};

/// The default block size of a segment.
const BLOCK: usize = 16 << 10;

/// `segvm fsck --deep` of 1 GiB as a process, against the slower of reading the packs past the page cache and hashing
/// them block by block, in one thread each.
pub(super) fn deep(ctx: &Ctx) -> Result<Measured, BenchError> {
    let store = ctx.path("fsck");
    image::make(&store, ctx.mib(1024))?;
    let packs = packs(&store)?;
    let mut room = vec![0; CHUNK + PAGE];
    let aligned = room.as_ptr().align_offset(PAGE);
    let other = Side::run(|| {
        let (mut reading, mut hashing) = (0.0, 0.0);
        let chunk = room.get_mut(aligned..).unwrap_or_default();
        let chunk = chunk.get_mut(..CHUNK).unwrap_or_default();
        for pack in &packs {
            let direct = OFlags::DIRECT.bits().cast_signed();
            let open = OpenOptions::new()
                .read(true)
                .custom_flags(direct)
                .open(pack);
            let file = open.map_err(BenchError::file("open for direct reads", pack))?;
            let mut at = 0;
            loop {
                let begun = Instant::now();
                let read = file.read_at(chunk, at);
                let read = read.map_err(BenchError::file("read directly from", pack))?;
                reading += ms(begun.elapsed());
                if read == 0 {
                    break;
                }
                let begun = Instant::now();
                for block in chunk.chunks(BLOCK).take(read.div_ceil(BLOCK)) {
                    std::hint::black_box(blake3::hash(block));
                }
                hashing += ms(begun.elapsed());
                at += read as u64;
            }
        }
        Ok(vec![f64::max(reading, hashing), reading, hashing])
    });
    // Beside each of the other's.
    let ours = Side::run(|| {
        Ok(vec![
            ms(command::segvm(&store, &["fsck", "--deep"])?.took);
            3
        ])
    });
    let measured = alternate(ctx.times(9), ours, other);
    image::remove(&store)?;
    Ok(measured)
}

fn packs(store: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let dir = store.join("packs");
    let entries = fs::read_dir(&dir).map_err(BenchError::file("list", &dir))?;
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(BenchError::file("list", &dir))
}
