//! How long the program stands still, against `fork()`, which is what others do.
//!
//! The fork happens in a process of its own that has as much memory as the segment, all of it anonymous and
//! resident: a fork's price is the page tables of everything the process has, and this process has more.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{
    image::{self, Life, Writes},
    number,
};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, us},
    memory::{Plain, View},
    peer::{self, Peer},
    rng::Rng,
};

/// The peer that dirties pages and forks: its arguments are bytes, and pages that a thread keeps dirtying
/// in each [`INTERVAL`] (0: no thread, 1 % are dirtied before each fork). Answers with microseconds.
pub(super) const FORK: &str = "fork";

/// From one checkpoint (or fork) to the next, where a writer never stops.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// Pages that such a writer dirties in an [`INTERVAL`], as the row says.
const WRITER_PAGES: usize = 2600;

/// Checkpoints from one resume to the next where a row asks for a session that has just resumed: the first ones,
/// which find most of the memory cold, are then one in ten of all.
const LIFE: usize = 10;

/// Checkpoints of one store: nothing is collected while a session lives, and each of a writer's takes 250 MB of disk.
const STORE: usize = 40;

/// Checkpoints a row takes.
const CHECKPOINTS: usize = 200;

pub(super) fn residue_warm(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_fork(ctx, Life::Warm, Writes::Residue)
}

pub(super) fn residue_cold(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_fork(ctx, Life::Resumed, Writes::Residue)
}

pub(super) fn writer_warm(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_fork(ctx, Life::Warm, Writes::Writer)
}

pub(super) fn writer_cold(ctx: &Ctx) -> Result<Measured, BenchError> {
    against_fork(ctx, Life::Resumed, Writes::Writer)
}

fn against_fork(ctx: &Ctx, life: Life, writes: Writes) -> Result<Measured, BenchError> {
    let bytes = ctx.mib(1024);
    let store = ctx.path("pause");
    let mut checkpointer = None;
    let mut taken = 0;
    let ours = Side::run(|| {
        if taken % STORE == 0 {
            drop(checkpointer.take());
            if taken > 0 {
                image::remove(&store)?;
            }
            if life == Life::Resumed {
                image::make(&store, bytes)?;
            }
        }
        if life == Life::Resumed && taken % LIFE == 0 {
            // The one before suspends first.
            drop(checkpointer.take());
        }
        taken += 1;
        let running = match checkpointer.take() {
            Some(running) => running,
            None => image::checkpointer(&store, bytes, life, writes)?,
        };
        checkpointer.insert(running).ask()
    });
    let writer = if writes == Writes::Writer {
        WRITER_PAGES
    } else {
        0
    };
    let mut forker = Peer::start(FORK, &[bytes.to_string(), writer.to_string()])?;
    let other = Side::run(move || forker.ask());
    let measured = alternate(ctx.times(CHECKPOINTS), ours, other);
    drop(checkpointer);
    image::remove(&store)?;
    Ok(measured)
}

pub(super) fn serve_fork(arguments: &[String]) -> Result<(), BenchError> {
    let bytes = number(FORK, arguments, 0)?;
    let writer = number(FORK, arguments, 1)?;
    let memory = Plain::filled(bytes, 5)?;
    let view = memory.view();
    if writer == 0 {
        let mut rng = Rng::new(6);
        return peer::serve(|| {
            view.dirty(&mut rng, view.pages() / 100);
            Ok(vec![us(fork()?)])
        });
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_writing(view, &stop, || ()));
        let served = peer::serve(|| {
            thread::sleep(INTERVAL);
            Ok(vec![us(fork()?)])
        });
        stop.store(true, Relaxed);
        served
    })
}

/// Dirties [`WRITER_PAGES`] random pages an [`INTERVAL`], evenly, until told to stop; `enter` gives what it holds
/// while it writes.
pub(super) fn keep_writing<T>(view: View<'_>, stop: &AtomicBool, enter: impl Fn() -> T) {
    let tick = Duration::from_millis(1);
    let mut rng = Rng::new(7);
    let begun = Instant::now();
    let mut written = 0;
    while !stop.load(Relaxed) {
        // By the clock, not by the tick: a late wake-up is made good, so that the rate holds.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a page count of a run of minutes"
        )]
        let due =
            (begun.elapsed().as_secs_f64() / INTERVAL.as_secs_f64() * WRITER_PAGES as f64) as usize;
        let inside = enter();
        view.dirty(&mut rng, due.saturating_sub(written));
        drop(inside);
        written = written.max(due);
        thread::sleep(tick);
    }
}

/// The parent's time in `fork()`, with a child that ends at once and is waited for.
fn fork() -> Result<Duration, BenchError> {
    let begun = Instant::now();
    // SAFETY: the child calls nothing but `_exit`, which is safe after a fork with threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    let took = begun.elapsed();
    let last = std::io::Error::last_os_error;
    if child < 0 {
        return Err(BenchError::kernel("fork")(last()));
    }
    // SAFETY: waits for our own child; no status is asked for.
    let waited = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    if waited == child {
        Ok(took)
    } else {
        Err(BenchError::kernel("waitpid")(last()))
    }
}
