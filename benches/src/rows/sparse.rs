//! A segment that is mostly holes: both sides are segvm's own, 1 GiB scattered in 1 TiB against 1 GiB in one.

use super::NO_SESSION;
use crate::{
    error::BenchError,
    measure::{Ctx, Measured},
};

/// 1,024 runs of 1 MiB at random places.
pub(super) fn runs(_ctx: &Ctx) -> Result<Measured, BenchError> {
    Ok(Measured::failed(NO_SESSION.to_owned()))
}
