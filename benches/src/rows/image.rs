//! Processes that hold an image: a segment has one address for ever, so each life of it is a process.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use segvm::Rounds;

use super::{
    footprint, number, path,
    pause::{INTERVAL, keep_writing},
    wrong,
};
use crate::{
    error::BenchError,
    measure::{Sample, ms, us},
    memory::{PAGE, Plain, View},
    ours::Image,
    peer,
    rng::Rng,
};

/// Makes an image of so many bytes, then suspends it when asked: answers with milliseconds.
pub(super) const MAKE: &str = "image-make";
/// Opens an image when asked and reads one word: answers with microseconds.
pub(super) const FIRST_BYTE: &str = "image-first-byte";
/// Opens an image when asked and reads everything: answers with milliseconds, and the process's maps.
pub(super) const READ_ALL: &str = "image-read-all";
/// Checkpoints when asked: arguments are store, bytes, [`Life`], and what is written. Answers with the pause in
/// microseconds and milliseconds until durable; suspends in the end.
pub(super) const CHECKPOINT: &str = "image-checkpoint";
/// Opens an image, reads everything, and answers with MiB beyond the segment's.
pub(super) const FOOTPRINT: &str = "image-footprint";

/// Runs checkpoints by the thousand, answers with the bytes written for each byte of dirty blocks, and suspends.
pub(super) const CHURN: &str = "image-churn";

/// The arguments of most peers: the store and the segment's length.
pub(super) fn arguments(store: &Path, bytes: usize) -> Vec<String> {
    vec![store.display().to_string(), bytes.to_string()]
}

/// Makes an image with the given content-to-be and suspends it; gives milliseconds.
pub(super) fn make(store: &Path, bytes: usize) -> Result<f64, BenchError> {
    let answer = peer::once(MAKE, &arguments(store, bytes))?;
    Ok(answer.first().copied().unwrap_or(f64::NAN))
}

/// Removes a store.
pub(super) fn remove(store: &Path) -> Result<(), BenchError> {
    fs::remove_dir_all(store).map_err(BenchError::file("remove", store))
}

fn opened(name: &str, arguments: &[String]) -> Result<(PathBuf, usize), BenchError> {
    Ok((path(name, arguments)?, number(name, arguments, 1)?))
}

pub(super) fn serve_make(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(MAKE, arguments)?;
    let image = Image::open(&store, bytes)?;
    image.change(|view| view.fill(20))?;
    let mut image = Some(image);
    peer::serve(|| match image.take() {
        Some(image) => {
            Plain::touch_free(bytes + bytes / 8)?;
            Ok(vec![ms(image.suspend()?)])
        }
        None => Err(wrong(MAKE, arguments)),
    })
}

pub(super) fn serve_first_byte(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(FIRST_BYTE, arguments)?;
    let mut image = None;
    peer::serve(|| {
        let begun = Instant::now();
        let opened = Image::open(&store, bytes)?;
        std::hint::black_box(opened.view().word(0).load(Relaxed));
        let took = us(begun.elapsed());
        // Closing is not part of it.
        image = Some(opened);
        Ok(vec![took])
    })?;
    drop(image);
    Ok(())
}

pub(super) fn serve_read_all(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(READ_ALL, arguments)?;
    let mut image = None;
    peer::serve(|| {
        let begun = Instant::now();
        let opened = Image::open(&store, bytes)?;
        let _ = opened.view().read_all();
        let took = ms(begun.elapsed());
        image = Some(opened);
        Ok(vec![took, maps()?])
    })?;
    drop(image);
    Ok(())
}

pub(super) fn serve_footprint(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(FOOTPRINT, arguments)?;
    let image = Image::open(&store, bytes)?;
    let _ = image.view().read_all();
    peer::serve(|| Ok(vec![footprint::beyond(bytes)?]))?;
    drop(image);
    Ok(())
}

/// What a checkpointing process does before its first checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Fills the segment and checkpoints it: all of it is armed.
    Warm,
    /// Resumes and reads everything.
    Resumed,
}

/// What a checkpointing process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Nothing.
    Nothing,
    /// 1 % of the pages before each checkpoint; rounds are off.
    Residue,
    /// The same, rounds as they come.
    Percent,
    /// From a thread that never stops.
    Writer,
}

/// Starts a process that checkpoints when asked.
pub(super) fn checkpointer(
    store: &Path,
    bytes: usize,
    life: Life,
    writes: Writes,
) -> Result<peer::Peer, BenchError> {
    let mut arguments = arguments(store, bytes);
    arguments.extend([format!("{life:?}"), format!("{writes:?}")]);
    peer::Peer::start(CHECKPOINT, &arguments)
}

pub(super) fn serve_checkpoint(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(CHECKPOINT, arguments)?;
    let word = |at: usize| arguments.get(at).map_or("", String::as_str);
    let image = Image::open(&store, bytes)?;
    match word(2) {
        "Warm" => {
            image.change(|view| view.fill(21))?;
            image.checkpoint(Rounds::Auto)?;
        }
        "Resumed" => {
            let _ = image.view().read_all();
        }
        _ => return Err(wrong(CHECKPOINT, arguments)),
    }
    let mut rng = Rng::new(u64::from(std::process::id()));
    let percent = |view: View<'_>, rng: &mut Rng| view.dirty(rng, view.pages() / 100);
    match word(3) {
        "Nothing" => peer::serve(|| checkpoint(&image, Rounds::Auto))?,
        "Residue" => peer::serve(|| {
            image.change(|view| percent(view, &mut rng))?;
            let sample = checkpoint(&image, Rounds::Off);
            settle()?;
            sample
        })?,
        "Percent" => peer::serve(|| {
            image.change(|view| percent(view, &mut rng))?;
            let sample = checkpoint(&image, Rounds::Auto);
            settle()?;
            sample
        })?,
        "Writer" => {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| keep_writing(image.view(), &stop, || image.enter().ok()));
                let served = peer::serve(|| {
                    thread::sleep(INTERVAL);
                    checkpoint(&image, Rounds::Auto)
                });
                stop.store(true, Relaxed);
                served
            })?;
        }
        _ => return Err(wrong(CHECKPOINT, arguments)),
    }
    image.suspend()?;
    Ok(())
}

fn checkpoint(image: &Image, rounds: Rounds) -> Result<Sample, BenchError> {
    let begun = Instant::now();
    let saved = image.checkpoint(rounds)?;
    Ok(vec![us(saved.pause), ms(begun.elapsed())])
}

pub(super) fn serve_churn(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = opened(CHURN, arguments)?;
    let (times, fraction) = (number(CHURN, arguments, 2)?, number(CHURN, arguments, 3)?);
    let mut image = Some(Image::open(&store, bytes)?);
    peer::serve(|| {
        let image = image.take().ok_or_else(|| wrong(CHURN, arguments))?;
        image.change(|view| view.fill(22))?;
        image.checkpoint(Rounds::Auto)?;
        let mut rng = Rng::new(23);
        let mut dirty = 0;
        let before = written()?;
        for _ in 0..times {
            image.change(|view| {
                let pages = view.pages();
                for _ in 0..pages / 1000 {
                    let page = rng.below(pages / fraction);
                    view.word(page * PAGE).store(rng.next(), Relaxed);
                }
            })?;
            let saved = image.checkpoint(Rounds::Auto)?;
            dirty += saved.blocks_dirty * BLOCK;
        }
        image.suspend()?;
        Ok(vec![(written()? - before) as f64 / dirty as f64])
    })
}

/// A segment's default block size.
const BLOCK: u64 = 16 << 10;

/// Waits until the session's thread has written fragmented windows again: beside the other side's turn it would slow that, too.
fn settle() -> Result<(), BenchError> {
    let mut before = u64::MAX;
    loop {
        let now = written()?;
        if now == before {
            return Ok(());
        }
        before = now;
        thread::sleep(Duration::from_millis(30));
    }
}

/// Bytes this process has had written to disks, whatever for.
fn written() -> Result<u64, BenchError> {
    const PATH: &str = "/proc/self/io";
    let text = fs::read_to_string(PATH).map_err(BenchError::file("read", PATH))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
}

/// How many maps this process has.
fn maps() -> Result<f64, BenchError> {
    let path = "/proc/self/maps";
    let text = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
    Ok(text.lines().count() as f64)
}
