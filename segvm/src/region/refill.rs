//! Filling regions that the program makes again.

use std::{fmt, sync::Arc, time::Duration};

use segvm_home::RangeKind;

use super::{RegionError, table::Entry, turns::Turn};
use crate::{
    gate::Kind,
    hooks,
    segment::state::Shared,
    session::{Session, core::Core},
};

/// How much a callback is asked for at a time, at most: enough for speed, and little beside what it fills.
const PIECE: usize = 1 << 20;

/// What a callback is told: which bytes its buffer stands for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refill<'s> {
    /// The session, whose roots and saved segments are there already.
    pub session: &'s Session,
    /// Where the region begins in its segment. Units: bytes.
    pub region: usize,
    /// Where the buffer begins in the region. Units: bytes. Buffers come in order and leave nothing out.
    pub offset: usize,
}

/// A region that has to be filled, and that nobody else can enter until this is dropped.
pub(crate) struct Unfilled {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl fmt::Debug for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unfilled({})", self.entry.range)
    }
}

impl Unfilled {
    /// Takes it, if nobody has it.
    pub(super) fn of(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Option<Self> {
        let taken = entry.turns.enter(Turn::Alone, Duration::ZERO);
        taken.ok().map(|()| Self::taken(shared, entry))
    }

    /// By whoever has the turn alone.
    pub(super) fn taken(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Self {
        Self {
            shared: Arc::clone(shared),
            entry: Arc::clone(entry),
        }
    }
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        self.entry.turns.leave(Turn::Alone);
    }
}

/// The regions of a segment just shown that have to be filled. Nobody knows of them yet.
pub(crate) fn unfilled(shared: &Arc<Shared>) -> Vec<Unfilled> {
    let entries = shared.regions.all();
    let to_fill = entries
        .iter()
        .filter(|entry| entry.kind == RangeKind::Regenerate && !entry.is_filled());
    to_fill
        .filter_map(|entry| Unfilled::of(shared, entry))
        .collect()
}

/// Fills them, in order.
pub(crate) fn fill_all(core: &Arc<Core>, regions: Vec<Unfilled>) -> Result<(), RegionError> {
    regions
        .into_iter()
        .try_for_each(|region| fill(core, region))
}

/// Has the application's callback fill a region, a piece at a time.
///
/// - **Errors**: the region then stays shut, and asking for it again tries again.
pub(super) fn fill(core: &Arc<Core>, region: Unfilled) -> Result<(), RegionError> {
    let Unfilled { shared, entry } = &region;
    let callback = core.hooks.regenerator(&shared.name);
    let callback = callback.ok_or_else(|| RegionError::NoCallback {
        segment: shared.name.clone(),
    })?;
    let _pass = core.gate.enter(Kind::Read, core.gate.label(&shared.name))?;
    let session = Session::visiting(core);
    hooks::regenerate(core, &callback, |run| {
        let mut buffer = vec![0; PIECE.min(entry.range.len())];
        for piece in entry.range.windows(PIECE) {
            let refill = Refill {
                session: &session,
                region: entry.range.start() - shared.base(),
                offset: piece.start() - entry.range.start(),
            };
            let bytes = buffer.get_mut(..piece.len()).unwrap_or_default();
            bytes.fill(0);
            run(&refill, bytes)?;
            // SAFETY: a piece of a region, which is committed as long as the pass lives, and whose turn this thread has alone.
            unsafe { core.world.kernel.fill(piece.start(), bytes) }?;
        }
        Ok(())
    })?;
    entry.set_filled(true);
    Ok(())
}
