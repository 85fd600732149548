//! What it saves not to save a cache: a quarter of the memory is a cache in a `Drop` region, and fills again on demand.
//!
//! `cargo run --release -p caches [MiB]` (1024 unless told otherwise; it takes that much memory, and that much disk twice).

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use segvm::{Attribute, Error, Region, Saved, Segment, Session, SessionOptions};

const MIB: usize = 1 << 20;
/// One entry of the cache, and what it is made from three of.
const ENTRY: usize = 4096;

fn main() -> Result<(), Error> {
    let mib = env::args().nth(1).and_then(|arg| arg.parse().ok());
    let whole = mib.unwrap_or(1024).max(4) * MIB / (4 * ENTRY) * (4 * ENTRY);
    let place = env::temp_dir().join(format!("segvm-caches-{}", std::process::id()));
    let result = compare(&place, whole);
    fs::remove_dir_all(&place)?;
    result
}

fn compare(place: &Path, whole: usize) -> Result<(), Error> {
    let (all, all_took) = suspend_all(place.join("all"), whole)?;
    let (kept, kept_took, dropped) = suspend_with_cache(&place.join("kept"), whole)?;
    let ratio = kept.bytes_written as f64 / all.bytes_written as f64;
    println!(
        "everything saved:  {:>13} bytes, suspended in {all_took:?}",
        all.bytes_written
    );
    println!(
        "without the cache: {:>13} bytes, suspended in {kept_took:?}",
        kept.bytes_written
    );
    println!("ratio:             {ratio:.3}; the flush hook let go of {dropped} bytes");

    let session = open(&place.join("kept"))?;
    let (state, cache) = (session.segment("state", 0)?, cache_of(&session, whole)?);
    let mut made = 0;
    let begun = Instant::now();
    let entries = cache.len() / ENTRY;
    for look_up in 0..2 * entries {
        made += u64::from(look_up_in(&cache, &state, look_up % entries)?);
    }
    println!(
        "resumed:           {} look-ups made {made} entries again, on demand, in {:?}",
        2 * entries,
        begun.elapsed()
    );
    Ok(())
}

fn open(store: &Path) -> Result<Session, Error> {
    Ok(SessionOptions::new().store(store).open("caches")?)
}

/// Bytes that no two blocks have in common.
fn fill(state: &Segment, len: usize) -> Result<(), Error> {
    let mut x = 88_172_645_463_325_252_u64;
    let mut piece = vec![0; MIB];
    for at in (0..len).step_by(MIB) {
        for word in piece.chunks_exact_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes());
        }
        let part = piece.get(..MIB.min(len - at)).unwrap_or_default();
        state.write(at, part).map_err(segvm::OpenError::from)?;
    }
    Ok(())
}

fn suspend_all(store: PathBuf, whole: usize) -> Result<(Saved, Duration), Error> {
    let session = open(&store)?;
    let state = session.segment("state", whole)?;
    fill(&state, whole)?;
    let begun = Instant::now();
    let saved = session.suspend()?;
    let took = begun.elapsed();
    fs::remove_dir_all(store)?;
    Ok((saved, took))
}

fn cache_of(session: &Session, whole: usize) -> Result<Region, Error> {
    session.region("cache", whole / 4, Attribute::Drop)
}

fn suspend_with_cache(store: &Path, whole: usize) -> Result<(Saved, Duration, u64), Error> {
    let session = open(store)?;
    let state = session.segment("state", whole / 4 * 3)?;
    let cache = cache_of(&session, whole)?;
    fill(&state, whole / 4 * 3)?;
    for entry in 0..cache.len() / ENTRY {
        look_up_in(&cache, &state, entry)?;
    }
    session.on_flush("cache", move |flush| {
        flush.dropped(cache.discard()?);
        Ok::<_, Error>(())
    });
    let begun = Instant::now();
    let saved = session.suspend()?;
    let took = begun.elapsed();
    let dropped = saved.flushed.iter().map(|hook| hook.dropped).sum();
    Ok((saved, took, dropped))
}

/// Looks an entry up, and makes it where it is not there: zeros mean that it is not. Answers whether it had to be made.
fn look_up_in(cache: &Region, state: &Segment, entry: usize) -> Result<bool, Error> {
    let place = entry * ENTRY..(entry + 1) * ENTRY;
    let is_there = |bytes: &[u8]| bytes.first().is_some_and(|&byte| byte != 0);
    if is_there(cache.read()?.bytes().get(place.clone()).unwrap_or_default()) {
        return Ok(false);
    }
    let mut from = vec![0; 3 * ENTRY];
    state
        .read(entry * 3 * ENTRY, &mut from)
        .map_err(segvm::OpenError::from)?;
    let mut guard = cache.write()?;
    let into = guard.bytes_mut().get_mut(place).unwrap_or_default();
    for (byte, three) in into.iter_mut().zip(from.chunks_exact(3)) {
        *byte = three
            .iter()
            .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
            | 1;
    }
    Ok(true)
}
