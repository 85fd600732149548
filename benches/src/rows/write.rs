//! What tracking costs the program's own stores.

use std::time::Instant;

use super::NO_SESSION;
use crate::{
    error::BenchError,
    file,
    measure::{Ctx, Measured, Side, alternate, ns_each},
    memory::{PAGE, Plain, View},
    rng::Rng,
};

/// Stores per sample of the random rows.
const STORES: usize = 4 << 20;

/// An odd number: its multiples visit each of a power of two of pages once, in no order a prefetcher knows.
const STRIDE: usize = 0x9e37_79b1;

/// 8-byte stores to random pages that were all touched before.
pub(super) fn random(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 12)?;
    let mut rng = Rng::new(13);
    let other = Side::run(|| Ok(vec![store_random(memory.view(), &mut rng)]));
    Ok(alternate(ctx.times(15), Side::missing(NO_SESSION), other))
}

/// Whole pages, in order, that were all touched before.
pub(super) fn sequential(ctx: &Ctx) -> Result<Measured, BenchError> {
    let memory = Plain::filled(ctx.mib(1024), 14)?;
    let other = Side::run(|| Ok(vec![write_pages(memory.view())]));
    Ok(alternate(ctx.times(15), Side::missing(NO_SESSION), other))
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
    let measured = alternate(ctx.times(11), Side::missing(NO_SESSION), other);
    std::fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
    Ok(measured)
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
