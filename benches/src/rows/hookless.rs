//! What hooks cost those who have none.

use std::time::Instant;

use segvm::{Rounds, SessionOptions};

use super::{image, number, path, wrong};
use crate::{
    error::BenchError,
    measure::{Ctx, Measured, Side, alternate, ns_each},
    ours::Image,
    peer::{self, Peer},
};

/// Checkpoints by the hundred when asked: arguments are store, bytes, and how many hooks of each kind. Answers with
/// nanoseconds each.
pub(super) const CHECKPOINTS: &str = "image-hooks";

/// So many checkpoints a sample.
const TIMES: usize = 500;

/// A checkpoint of a session without hooks, against one with a flush hook and a resume hook that do nothing. There is nothing to
/// save, and next to nothing to look at: the rest of a checkpoint would drown what is asked for.
pub(super) fn checkpoint(ctx: &Ctx) -> Result<Measured, BenchError> {
    let start = |name: &str, hooks: usize| {
        let mut arguments = image::arguments(&ctx.path(name), 1 << 20);
        arguments.push(hooks.to_string());
        Peer::start(CHECKPOINTS, &arguments)
    };
    let (mut without, mut with) = (start("hooks-0", 0)?, start("hooks-1", 1)?);
    let measured = alternate(
        ctx.times(101),
        Side::run(|| without.ask()),
        Side::run(|| with.ask()),
    );
    drop((without, with));
    image::remove(&ctx.path("hooks-0"))?;
    image::remove(&ctx.path("hooks-1"))?;
    Ok(measured)
}

pub(super) fn serve_checkpoints(arguments: &[String]) -> Result<(), BenchError> {
    let store = path(CHECKPOINTS, arguments)?;
    let bytes = number(CHECKPOINTS, arguments, 1)?;
    let mut options = SessionOptions::new();
    for hook in 0..number(CHECKPOINTS, arguments, 2)? {
        let name = hook.to_string();
        options = options.on_flush(&name, |_| ()).on_resume(&name, |_| ());
    }
    let image = Image::open_with(options, &store, bytes)?;
    image.change(|view| view.fill(24))?;
    image.checkpoint(Rounds::Auto)?;
    peer::serve(|| {
        let begun = Instant::now();
        for _ in 0..TIMES {
            if image.checkpoint(Rounds::Auto)?.changed {
                return Err(wrong(CHECKPOINTS, arguments));
            }
        }
        Ok(vec![ns_each(begun.elapsed(), TIMES)])
    })?;
    drop(image);
    Ok(())
}
