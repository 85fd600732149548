//! What a thousand checkpoints leave behind: both sides are segvm's own, a worn image against a fresh one.

use std::path::Path;

use super::image;
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Sample, Side, alternate},
    peer,
};

/// Checkpoints that wear an image.
const CHECKPOINTS: usize = 1000;

/// 1,000 checkpoints of 0.1 % of pages within a hot tenth.
pub(super) fn hot(ctx: &Ctx) -> Result<Measured, BenchError> {
    churn(ctx, 10)
}

/// 1,000 checkpoints of 0.1 % of pages anywhere.
pub(super) fn random(ctx: &Ctx) -> Result<Measured, BenchError> {
    churn(ctx, 1)
}

/// Pages are dirtied in the first 1 / `fraction` of the segment.
fn churn(ctx: &Ctx, fraction: usize) -> Result<Measured, BenchError> {
    let bytes = ctx.mib(1024);
    let (worn, fresh) = (ctx.path("worn"), ctx.path("fresh"));
    let mut arguments = image::arguments(&worn, bytes);
    arguments.extend([ctx.times(CHECKPOINTS).to_string(), fraction.to_string()]);
    let amplification = peer::once(image::CHURN, &arguments)?;
    image::make(&fresh, bytes)?;
    let look = |store: &Path| -> Result<Sample, BenchError> {
        let arguments = image::arguments(store, bytes);
        let first_byte = peer::once(image::FIRST_BYTE, &arguments)?;
        let all = peer::once(image::READ_ALL, &arguments)?;
        let first_byte = first_byte.first().map(|us| us / 1e3);
        Ok(first_byte.into_iter().chain(all).collect())
    };
    let ours = Side::run(|| {
        let mut sample = look(&worn)?;
        sample.extend(&amplification);
        Ok(sample)
    });
    let measured = alternate(ctx.times(9), ours, Side::run(|| look(&fresh)));
    image::remove(&worn)?;
    image::remove(&fresh)?;
    Ok(measured)
}
