//! What a thousand checkpoints leave behind: both sides are segvm's own, a worn image against a fresh one.

use super::NO_SESSION;
use crate::{
    error::BenchError,
    measure::{Ctx, Measured},
};

/// 1,000 checkpoints of 0.1 % of pages within a hot tenth.
pub(super) fn hot(_ctx: &Ctx) -> Result<Measured, BenchError> {
    Ok(Measured::failed(NO_SESSION.to_owned()))
}

/// 1,000 checkpoints of 0.1 % of pages anywhere.
pub(super) fn random(_ctx: &Ctx) -> Result<Measured, BenchError> {
    Ok(Measured::failed(NO_SESSION.to_owned()))
}
