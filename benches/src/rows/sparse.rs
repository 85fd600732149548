//! A segment that is mostly holes: both sides are segvm's own, 1 GiB scattered in 1 TiB against 1 GiB in one.

use std::{path::Path, sync::atomic::Ordering::Relaxed, time::Instant};

use segvm::Rounds;

use super::{footprint, image, number, path};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Sample, Side, alternate, us},
    memory::{PAGE, View},
    ours::Image,
    peer,
    rng::Rng,
};

/// The peer that lives once with a segment of so many bytes, of which so many runs have content. Asked, it
/// resumes, dirties 1 % of the content's pages and checkpoints: answers with the pause in microseconds, the
/// resume in microseconds, and MiB of page tables; then it suspends.
pub(super) const LIFE: &str = "image-sparse";

/// One run.
const RUN: usize = 1 << 20;

/// 1,024 runs of 1 MiB at random places.
pub(super) fn runs(ctx: &Ctx) -> Result<Measured, BenchError> {
    let content = ctx.mib(1024);
    let (sparse, dense) = (ctx.path("sparse"), ctx.path("dense"));
    let live = |store: &Path, bytes: usize| -> Result<Sample, BenchError> {
        let mut arguments = image::arguments(store, bytes);
        arguments.push((content / RUN).to_string());
        peer::once(LIFE, &arguments)
    };
    // The first life of each makes its image and is the one that does not count.
    let ours = Side::run(|| live(&sparse, content << 10));
    let other = Side::run(|| live(&dense, content));
    let measured = alternate(ctx.times(9), ours, other);
    image::remove(&sparse)?;
    image::remove(&dense)?;
    Ok(measured)
}

pub(super) fn serve_life(arguments: &[String]) -> Result<(), BenchError> {
    let (store, bytes) = (path(LIFE, arguments)?, number(LIFE, arguments, 1)?);
    let runs = number(LIFE, arguments, 2)?;
    let places = places(bytes, runs);
    let fresh = !store.exists();
    let mut image = None;
    peer::serve(|| {
        let begun = Instant::now();
        let open = Image::open(&store, bytes)?;
        let first = places.first().copied().unwrap_or_default();
        std::hint::black_box(open.view().word(first).load(Relaxed));
        let resumed = us(begun.elapsed());
        let mut rng = Rng::new(29);
        if fresh {
            open.change(|view| fill(view, &places, &mut rng))?;
            open.checkpoint(Rounds::Auto)?;
        }
        open.change(|view| {
            for _ in 0..runs * RUN / PAGE / 100 {
                let run = places.get(rng.below(runs)).copied().unwrap_or_default();
                view.word(run + rng.below(RUN / PAGE) * PAGE)
                    .store(rng.next(), Relaxed);
            }
        })?;
        let saved = open.checkpoint(Rounds::Auto)?;
        let tables = footprint::page_tables()?;
        image = Some(open);
        Ok(vec![us(saved.pause), resumed, tables])
    })?;
    if let Some(image) = image {
        image.suspend()?;
    }
    Ok(())
}

/// Where the runs begin: distinct, the same in every process.
fn places(bytes: usize, runs: usize) -> Vec<usize> {
    let mut rng = Rng::new(30);
    let mut taken = std::collections::BTreeSet::new();
    if runs * RUN == bytes {
        return (0..runs).map(|run| run * RUN).collect();
    }
    while taken.len() < runs {
        taken.insert(rng.below(bytes / RUN) * RUN);
    }
    taken.into_iter().collect()
}

fn fill(view: View<'_>, places: &[usize], rng: &mut Rng) {
    let mut content = [0; PAGE / 8];
    for run in places {
        for page in 0..RUN / PAGE {
            rng.fill(&mut content);
            view.write_page(run / PAGE + page, &content);
        }
    }
}
