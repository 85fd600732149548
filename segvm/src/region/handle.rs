//! What the application holds of a region, and the guards it is reached through.

use std::{fmt, sync::Arc};

use segvm_home::RangeKind;
use segvm_os::{PageRange, Query};

use super::{
    Attribute, RegionError,
    refill::{Unfilled, fill},
    table::{Entry, MOST},
    turns::{NoTurn, Turn},
};
use crate::{
    dirty::pages_in,
    gate::{Kind, Pass},
    segment::state::Shared,
    session::core::Core,
};

/// A range of a raw segment that is not simply kept.
///
/// A cheap handle. Its bytes are reached through [`read`](Self::read) and [`write`](Self::write), whose guards
/// [`discard`](Self::discard), suspend and restore wait for; a checkpoint does not: nothing here is saved.
#[derive(Clone)]
pub struct Region {
    core: Arc<Core>,
    shared: Arc<Shared>,
    range: PageRange,
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("segment", &self.shared.name)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Region {
    /// Finds the region, or makes it of new memory.
    pub(crate) fn open(
        core: &Arc<Core>,
        shared: &Arc<Shared>,
        offset: usize,
        len: usize,
        attribute: Attribute,
    ) -> Result<Self, RegionError> {
        let block = shared.block_size.bytes();
        let end = offset.checked_add(len);
        let whole = offset.is_multiple_of(block) && len.is_multiple_of(block) && len > 0;
        let Some(end) = end.filter(|_| whole) else {
            return Err(RegionError::Unaligned {
                segment: shared.name.clone(),
                offset,
                len,
                block,
            });
        };
        if end > shared.reservation.len() {
            return Err(RegionError::Reservation {
                segment: shared.name.clone(),
                end,
                reserved: shared.reservation.len(),
            });
        }
        let region = Self {
            core: Arc::clone(core),
            shared: Arc::clone(shared),
            range: shared.part(offset, len),
        };
        if let Some(unfilled) = region.made(offset, attribute)? {
            fill(core, unfilled)?;
        }
        Ok(region)
    }

    /// Makes the region where it is not there; answers it, held alone, where it is to be filled.
    fn made(&self, offset: usize, attribute: Attribute) -> Result<Option<Unfilled>, RegionError> {
        let gate = &self.core.gate;
        // A restore replaces the table, and a checkpoint takes its instant, before or after all of this.
        let _pass = gate.enter(Kind::Write, gate.label(&self.shared.name))?;
        let in_use = |has| RegionError::InUse {
            segment: self.shared.name.clone(),
            offset,
            len: self.range.len(),
            used: self.shared.len(),
            has,
        };
        if self.shared.regions.find(self.range).is_none() {
            let entry = Arc::new(Entry::new(self.range, attribute.into()));
            if self.shared.regions.all().len() >= MOST {
                return Err(RegionError::TooMany {
                    segment: self.shared.name.clone(),
                    most: MOST,
                });
            }
            // Taken before anybody can know of it.
            let unfilled = (!entry.is_filled())
                .then(|| Unfilled::of(&self.shared, &entry))
                .flatten();
            if self.shared.grow_apart(&entry)? {
                return Ok(unfilled);
            }
        }
        // It was there, or another thread made it a moment ago.
        let entry = self.shared.regions.find(self.range);
        let entry = entry.ok_or_else(|| in_use(None))?;
        if entry.kind != attribute.into() {
            return Err(in_use(Some(entry.kind)));
        }
        if entry.is_filled() {
            return Ok(None);
        }
        // A callback failed earlier, or runs on another thread.
        Unfilled::of(&self.shared, &entry)
            .map(Some)
            .ok_or_else(|| self.unfilled())
    }

    fn offset(&self) -> usize {
        self.range.start() - self.shared.base()
    }

    fn unfilled(&self) -> RegionError {
        RegionError::Unfilled {
            segment: self.shared.name.clone(),
            offset: self.offset(),
        }
    }

    /// How long it is. Units: bytes, a multiple of the segment's block size.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, never 0")]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    fn enter(&self, turn: Turn) -> Result<Inside<'_>, RegionError> {
        let gate = &self.core.gate;
        // A read pass for both: what takes the memory away waits for it, what captures it does not.
        let pass = gate.enter(Kind::Read, gate.label(&self.shared.name))?;
        let (segment, offset) = (&self.shared.name, self.offset());
        let entry = self.shared.regions.find(self.range);
        let entry = entry.ok_or_else(|| RegionError::Gone {
            segment: segment.clone(),
            offset,
        })?;
        entry
            .turns
            .enter(turn, self.core.gate_timeout)
            .map_err(|no| match no {
                NoTurn::Here => RegionError::HeldHere {
                    segment: segment.clone(),
                    offset,
                },
                NoTurn::Elsewhere(waited) => RegionError::TimedOut {
                    segment: segment.clone(),
                    offset,
                    waited,
                },
            })?;
        Ok(Inside {
            region: self,
            entry,
            turn: Some(turn),
            _pass: pass,
        })
    }

    fn enter_filled(&self, turn: Turn) -> Result<Inside<'_>, RegionError> {
        let inside = self.enter(turn)?;
        if inside.entry.is_filled() {
            Ok(inside)
        } else {
            Err(self.unfilled())
        }
    }

    /// Looks at the region, beside other readers.
    ///
    /// - **Blocks**: while somebody writes or discards, up to the gate's time limit.
    /// - **Errors**: [`RegionError::HeldHere`] where this thread writes, [`RegionError::Gone`] after a restore to before it was made.
    pub fn read(&self) -> Result<RegionRead<'_>, RegionError> {
        Ok(RegionRead(self.enter_filled(Turn::Shared)?))
    }

    /// Changes the region, alone.
    ///
    /// - **Blocks**, **Errors**: as [`read`](Self::read); [`RegionError::HeldHere`] also where this thread reads.
    pub fn write(&self) -> Result<RegionWrite<'_>, RegionError> {
        Ok(RegionWrite(self.enter_filled(Turn::Alone)?))
    }

    /// Gives its memory back: it is zero again, or, if it is [`Regenerate`](Attribute::Regenerate), filled again before this returns.
    /// Answers how many bytes were freed.
    ///
    /// - **Blocks**: until no guard is left, up to the gate's time limit.
    /// - **Errors**: [`RegionError::HeldHere`] where this thread holds one.
    pub fn discard(&self) -> Result<u64, RegionError> {
        let inside = self.enter(Turn::Alone)?;
        let kernel = &self.core.world.kernel;
        let mut there = Vec::new();
        // Only to be told: what cannot be counted is freed as well.
        let _uncounted = kernel.scan(self.range, Query::Touched, &mut there);
        let again = inside.entry.kind == RangeKind::Regenerate;
        inside.entry.set_filled(!again);
        // SAFETY: the range is committed anonymous memory of this segment: a region has no blocks, so no file is ever mapped
        // there. Whoever refers to it holds a turn, and this one is alone; the pass keeps the session's memory in place.
        unsafe { kernel.discard(self.range) }?;
        if again {
            fill(&self.core, inside.into_unfilled())?;
        }
        Ok(pages_in(&there) as u64)
    }
}

/// A turn in a region, and the pass that keeps its memory in place.
struct Inside<'r> {
    region: &'r Region,
    entry: Arc<Entry>,
    /// `None` once it is handed on.
    turn: Option<Turn>,
    _pass: Pass<'r>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.entry.turns.leave(turn);
        }
    }
}

impl Inside<'_> {
    /// Hands the turn, which is alone, to whoever fills the region.
    fn into_unfilled(mut self) -> Unfilled {
        self.turn = None;
        Unfilled::taken(&self.region.shared, &self.entry)
    }

    fn range(&self, offset: usize, len: usize) -> usize {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.region.len()),
            "{len} bytes at {offset} do not lie in a region of {} bytes",
            self.region.len()
        );
        self.region.range.start() + offset
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) -> Result<(), RegionError> {
        let at = self.range(offset, into.len());
        let core = &self.region.core;
        let page = core.world.kernel.page_size();
        let Some(pages) = PageRange::covering(page, at, into.len()) else {
            return Ok(());
        };
        let mut bytes = vec![0; pages.len()];
        core.world.kernel.copy_racing(&[pages], &mut bytes)?;
        let from = at - pages.start();
        if let Some(bytes) = bytes.get(from..from + into.len()) {
            into.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// - **Panics**: in a simulation, whose memory is nowhere.
    fn start(&self) -> *mut u8 {
        assert!(
            self.region.core.world.ranges.is_real(),
            "a simulation's memory has no address: copy in and out"
        );
        std::ptr::with_exposed_provenance_mut(self.region.range.start())
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the region is committed memory, initialised by the kernel or by `fill`, as long as the pass lives. Nobody
        // writes to it while a turn is shared or this thread's alone: guards and `discard` take turns, `Segment::write` refuses
        // regions, and so does the contract of `Segment::as_ptr`.
        unsafe { std::slice::from_raw_parts(self.start(), self.region.len()) }
    }
}

/// A look at a region; others may look as well.
#[must_use]
pub struct RegionRead<'r>(Inside<'r>);

/// A region that this thread has alone.
#[must_use]
pub struct RegionWrite<'r>(Inside<'r>);

impl fmt::Debug for RegionRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionRead({:?})", self.0.region)
    }
}

impl fmt::Debug for RegionWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionWrite({:?})", self.0.region)
    }
}

impl RegionRead<'_> {
    /// The bytes, in place.
    ///
    /// - **Panics**: in a simulation: use [`copy_out`](Self::copy_out) there.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Copies bytes out from `offset` on.
    ///
    /// - **Panics**: if they do not lie within the region, as slice indexing does.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) -> Result<(), RegionError> {
        self.0.copy_out(offset, into)
    }
}

impl RegionWrite<'_> {
    /// The bytes, in place.
    ///
    /// - **Panics**: in a simulation: use [`copy_in`](Self::copy_in) there.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.0.start(), self.0.region.len());
        // SAFETY: as for reading, and this turn is alone: no other reference to the bytes is alive.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Copies `bytes` into the region at `offset`.
    ///
    /// - **Panics**: if they do not lie within the region, as slice indexing does.
    pub fn copy_in(&mut self, offset: usize, bytes: &[u8]) -> Result<(), RegionError> {
        let at = self.0.range(offset, bytes.len());
        // SAFETY: within the region, which is committed as long as the pass lives; this turn is alone.
        unsafe { self.0.region.core.world.kernel.fill(at, bytes) }?;
        Ok(())
    }

    /// Copies bytes out from `offset` on.
    ///
    /// - **Panics**: if they do not lie within the region, as slice indexing does.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) -> Result<(), RegionError> {
        self.0.copy_out(offset, into)
    }
}
