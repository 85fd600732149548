//! What a thread that writes all the time feels of the checkpoints.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Sample, together, us},
    memory::{PAGE, Plain, View},
    ours::Image,
    rng::Rng,
    stat::{Samples, Statistic},
};
use segvm::Rounds;

use super::image;

/// Stores between two sleeps: the threads leave the cores to whoever takes the checkpoints.
const BURST: usize = 26;

/// Checkpoints in a sample, and the time between them.
const CHECKPOINTS: u32 = 20;
/// See [`CHECKPOINTS`].
const INTERVAL: Duration = Duration::from_millis(50);

/// The p99.9 and the worst of two threads' stores to random pages, at the same time, while this one checkpoints.
///
/// Our thread enters the gate before each burst, as a program does; its first store's latency includes the wait.
pub(super) fn stores(ctx: &Ctx) -> Result<Measured, BenchError> {
    let control = Plain::filled(ctx.mib(1024), 10)?;
    let store = ctx.path("latency");
    let image = Image::open(&store, ctx.mib(1024))?;
    image.change(|view| view.fill(28))?;
    image.checkpoint(Rounds::Auto)?;
    let mut measured = together(3, || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let plain = scope.spawn(|| time_stores(control.view(), &stop, || ()));
            let tracked = scope.spawn(|| time_stores(image.view(), &stop, || image.enter().ok()));
            let pause = checkpoints(&image);
            stop.store(true, Relaxed);
            let mut ours = summary(tracked.join().unwrap_or_default());
            ours.push(us(pause?));
            Ok((ours, summary(plain.join().unwrap_or_default())))
        })
    });
    measured.allowance = measured
        .ours
        .column(2)
        .and_then(|pauses| pauses.of(Statistic::Max));
    drop(image);
    image::remove(&store)?;
    Ok(measured)
}

/// Checkpoints again and again; gives the longest pause.
fn checkpoints(image: &Image) -> Result<Duration, BenchError> {
    let mut longest = Duration::ZERO;
    for _ in 0..CHECKPOINTS {
        thread::sleep(INTERVAL);
        longest = longest.max(image.checkpoint(Rounds::Auto)?.pause);
    }
    Ok(longest)
}

/// The latency of every store, in microseconds, of bursts inside what `enter` gives.
fn time_stores<T>(view: View<'_>, stop: &AtomicBool, enter: impl Fn() -> T) -> Vec<f64> {
    let mut rng = Rng::new(11);
    let mut latencies = Vec::with_capacity(1 << 20);
    while !stop.load(Relaxed) {
        let mut begun = Instant::now();
        let inside = enter();
        for _ in 0..BURST {
            view.word(rng.below(view.pages()) * PAGE)
                .store(rng.next(), Relaxed);
            latencies.push(us(begun.elapsed()));
            begun = Instant::now();
        }
        drop(inside);
        thread::sleep(Duration::from_micros(500));
    }
    latencies
}

fn summary(latencies: Vec<f64>) -> Sample {
    let samples = Samples::new(latencies);
    [0.999, 1.0]
        .map(|q| samples.quantile(q).unwrap_or(f64::NAN))
        .to_vec()
}
