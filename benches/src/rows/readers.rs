//! What many readers of one commit have in common.

use std::{fs, path::Path};

use rustix::fs::{Advice, fadvise};
use segvm::SessionOptions;

use super::{
    footprint::{kib, page_tables},
    image, number, path,
};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, together},
    memory::Plain,
    ours::Image,
    peer::{self, Peer},
};

/// Opens an image as a reader and reads everything; answers with MiB of its own, and of page tables.
pub(super) const READER: &str = "image-reader";

/// How many at once.
const READERS: usize = 200;

/// Readers of 1 GiB, against one of them, and what each has besides.
pub(super) fn crowd(ctx: &Ctx) -> Result<Measured, BenchError> {
    let (store, bytes) = (ctx.path("readers"), ctx.mib(1024));
    image::make(&store, bytes)?;
    let arguments = image::arguments(&store, bytes);
    let readers = ctx.times(READERS);
    let measured = together(3, || {
        each_file(&store, &forget)?;
        let cached = kib("/proc/meminfo", "Cached:")?;
        let grown = || Ok::<_, BenchError>((kib("/proc/meminfo", "Cached:")? - cached) / 1024.0);
        let mut all = vec![Peer::start(READER, &arguments)?];
        let one = vec![resident(&store)?, f64::NAN, f64::NAN, grown()?];
        while all.len() < readers {
            all.push(Peer::start(READER, &arguments)?);
        }
        let (mut own, mut tables) = (0.0_f64, 0.0_f64);
        for reader in &mut all {
            let answer = reader.ask()?;
            let [of_it, its_tables] = answer.as_slice() else {
                continue;
            };
            own = own.max(*of_it);
            tables = tables.max(*its_tables);
        }
        Ok((vec![resident(&store)?, own, tables, grown()?], one))
    });
    image::remove(&store)?;
    Ok(measured)
}

pub(super) fn serve_reader(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = (path(READER, arguments)?, number(READER, arguments, 1)?);
    let image = Image::open_with(SessionOptions::new().reader(), &store, bytes)?;
    let _ = image.view().read_all();
    peer::serve(|| {
        let own = |name| kib("/proc/self/smaps_rollup", name);
        let own = own("Private_Clean:")? + own("Private_Dirty:")?;
        Ok(vec![own / 1024.0, page_tables()?])
    })?;
    drop(image);
    Ok(())
}

/// Does something with every file in a directory, and in those in it; gives the sum of what came of it.
fn each_file(
    dir: &Path,
    visit: &dyn Fn(&Path) -> Result<usize, BenchError>,
) -> Result<usize, BenchError> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).map_err(BenchError::file("list", dir))? {
        let path = entry.map_err(BenchError::file("list", dir))?.path();
        sum += if path.is_dir() {
            each_file(&path, visit)?
        } else {
            visit(&path)?
        };
    }
    Ok(sum)
}

/// MiB of a store's files that are in the page cache.
fn resident(store: &Path) -> Result<f64, BenchError> {
    let bytes = each_file(store, &|path| {
        let file = fs::File::open(path).map_err(BenchError::file("open", path))?;
        let len = file.metadata().map_err(BenchError::file("look at", path))?;
        match usize::try_from(len.len()) {
            Ok(len) if len > 0 => Plain::private(&file, len)?.resident(),
            _ => Ok(0),
        }
    })?;
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// Takes a file out of the page cache.
fn forget(path: &Path) -> Result<usize, BenchError> {
    let file = fs::File::open(path).map_err(BenchError::file("open", path))?;
    file.sync_all().map_err(BenchError::file("sync", path))?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(BenchError::kernel("fadvise"))?;
    Ok(0)
}
