//! What a thread that writes all the time feels of the checkpoints.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::NO_SESSION;
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Sample, Side, alternate},
    memory::{PAGE, Plain, View},
    rng::Rng,
    stat::Samples,
};

/// Stores between two sleeps: the threads leave the cores to whoever takes the checkpoints.
const BURST: usize = 26;

/// The p99.9 and the worst of a thread's stores to random pages.
pub(super) fn stores(ctx: &Ctx) -> Result<Measured, BenchError> {
    let control = Plain::filled(ctx.mib(1024), 10)?;
    let other = Side::run(|| {
        let beside = || thread::sleep(Duration::from_secs(2));
        let [latencies] = during([control.view()], beside);
        Ok(summary(latencies))
    });
    Ok(alternate(5, Side::missing(NO_SESSION), other))
}

/// The latency of every store, in microseconds, of a thread on each memory while `work` runs here.
fn during<const N: usize>(memories: [View<'_>; N], work: impl FnOnce()) -> [Vec<f64>; N] {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let threads = memories.map(|view| scope.spawn(move || time_stores(view, stop)));
        work();
        stop.store(true, Relaxed);
        threads.map(|thread| thread.join().unwrap_or_default())
    })
}

fn time_stores(view: View<'_>, stop: &AtomicBool) -> Vec<f64> {
    let mut rng = Rng::new(11);
    let mut latencies = Vec::with_capacity(1 << 20);
    while !stop.load(Relaxed) {
        for _ in 0..BURST {
            let word = view.word(rng.below(view.pages()) * PAGE);
            let begun = Instant::now();
            word.store(rng.next(), Relaxed);
            latencies.push(crate::measure::us(begun.elapsed()));
        }
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
