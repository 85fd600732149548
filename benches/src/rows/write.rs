//! What tracking costs the program's own stores.

use std::{path::Path, time::Instant};

use segvm::Rounds;

use super::{image, number, path};
use crate::{
    error::BenchError,
    file,
    measure::{Ctx, Measured, Side, alternate, ns_each},
    memory::{PAGE, Plain, View},
    ours::Image,
    peer,
    rng::Rng,
};

/// The peer that resumes, reads everything, and stores to a tenth of the pages: answers with nanoseconds each.
pub(super) const FIRST_TOUCH: &str = "image-first-touch";

/// Stores per sample of the random rows.
const STORES: usize = 4 << 20;

/// An odd number: its multiples visit each of a power of two of pages once, in no order a prefetcher knows.
const STRIDE: usize = 0x9e37_79b1;

/// 8-byte stores to random pages that were all touched before.
pub(super) fn random(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 12)?;
    let mut rng = Rng::new(13);
    let other = Side::run(|| Ok(vec![store_random(memory.view(), &mut rng)]));
    let store = ctx.path("write-random");
    let image = touched_image(ctx, &store)?;
    let mut ours_rng = Rng::new(13);
    let ours = Side::run(|| {
        Ok(vec![
            image.change(|view| store_random(view, &mut ours_rng))?,
        ])
    });
    let measured = alternate(ctx.times(15), ours, other);
    drop(image);
    image::remove(&store)?;
    Ok(measured)
}

/// Whole pages, in order, that were all touched before.
pub(super) fn sequential(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 14)?;
    let other = Side::run(|| Ok(vec![write_pages(memory.view())]));
    let store = ctx.path("write-sequential");
    let image = touched_image(ctx, &store)?;
    let ours = Side::run(|| Ok(vec![image.change(write_pages)?]));
    let measured = alternate(ctx.times(15), ours, other);
    drop(image);
    image::remove(&store)?;
    Ok(measured)
}

/// An image that was checkpointed and then written to in full: nothing is left to be touched in this epoch.
fn touched_image(ctx: &Ctx, store: &Path) -> Result<Image, BenchError> {
    let image = Image::open(store, ctx.mib(1024))?;
    image.change(|view| view.fill(25))?;
    image.checkpoint(Rounds::Auto)?;
    image.change(|view| view.fill(26))?;
    Ok(image)
}

/// A page's first store in an epoch; then the same after a resume, against a bare private mapping.
pub(super) fn first_touch(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 15)?;
    let path = ctx.path("first-touch");
    file::create_warm(&path, ctx.mib(1024), 16)?;
    let other = Side::run(|| {
        let touched = store_once(memory.view());
        let mapped = file::map(&path)?;
        let _ = mapped.view().read_all();
        Ok(vec![touched, store_once(mapped.view())])
    });
    let checkpointed = ctx.path("first-touch-image");
    let image = Image::open(&checkpointed, ctx.mib(1024))?;
    image.change(|view| view.fill(27))?;
    let store = ctx.path("first-touch-resumed");
    image::make(&store, ctx.mib(1024))?;
    let resumed = image::arguments(&store, ctx.mib(1024));
    let ours = Side::run(|| {
        image.checkpoint(Rounds::Auto)?;
        let touched = image.change(store_once)?;
        let after_resume = peer::once(FIRST_TOUCH, &resumed)?;
        Ok(vec![
            touched,
            after_resume.first().copied().unwrap_or(f64::NAN),
        ])
    });
    let measured = alternate(ctx.times(11), ours, other);
    drop(image);
    image::remove(&checkpointed)?;
    image::remove(&store)?;
    std::fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
    Ok(measured)
}

pub(super) fn serve_first_touch(arguments: &[String]) -> Result<(), BenchError> {
    let image = Image::open(
        &path(FIRST_TOUCH, arguments)?,
        number(FIRST_TOUCH, arguments, 1)?,
    )?;
    let _ = image.view().read_all();
    peer::serve(|| Ok(vec![image.change(store_once)?]))?;
    drop(image);
    Ok(())
}

/// Nanoseconds a store, to random pages.
fn store_random(view: View<'_>, rng: &mut Rng) -> f64 {
    let begun = Instant::now();
    view.dirty(rng, STORES);
    ns_each(begun.elapsed(), STORES)
}

/// Nanoseconds a page, all pages in order.
fn write_pages(view: View<'_>) -> f64 {
    let content = [0x5e67_766d; PAGE / 8];
    let begun = Instant::now();
    for page in 0..view.pages() {
        view.write_page(page, &content);
    }
    ns_each(begun.elapsed(), view.pages())
}

/// Nanoseconds a store, one to each of a tenth of the pages, scattered.
fn store_once(view: View<'_>) -> f64 {
    let touched = view.pages() / 10;
    let begun = Instant::now();
    for at in 0..touched {
        let page = at.wrapping_mul(STRIDE) & (view.pages() - 1);
        view.word(page * PAGE)
            .store(at as u64, std::sync::atomic::Ordering::Relaxed);
    }
    ns_each(begun.elapsed(), touched)
}
