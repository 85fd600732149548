//! The heap's locks: in the process, never in the segment, where a lock would be held for ever after a resume.
//!
//! | lock | what it covers |
//! |---|---|
//! | roots | the directory of roots |
//! | shard i | the lists of shard i; `owner` and `span` of the units that it owns; their free objects |
//! | central | top, bins and the run's part (`kind`, `len`, `prev`, `next`) of every unit; growth |
//!
//! Order: roots, shards by number, central. A shard out of order is only tried for. Nothing is called while one is
//! held but [`Space::grow`](super::Space::grow), which is called under central. `owner` is set by whoever holds the
//! lock of the shard that owns the unit, before and after.

use parking_lot::{Mutex, MutexGuard};

use super::{core::Core, layout};

/// A lock on a pair of cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Apart(Mutex<()>);

pub(super) struct Locks {
    roots: Mutex<()>,
    central: Apart,
    shards: Box<[Apart]>,
}

impl Locks {
    pub(super) fn new(shards: u32) -> Self {
        Self {
            roots: Mutex::default(),
            central: Apart::default(),
            shards: (0..shards).map(|_| Apart::default()).collect(),
        }
    }
}

/// Runs of units, held.
pub(super) struct Central<'a> {
    pub(super) core: &'a Core,
    _held: MutexGuard<'a, ()>,
}

/// One shard, held.
pub(super) struct Shard<'a> {
    pub(super) core: &'a Core,
    pub(super) lists: &'a layout::Shard,
    pub(super) number: u32,
    _held: MutexGuard<'a, ()>,
}

/// The directory of roots, held.
pub(super) struct Roots<'a> {
    pub(super) core: &'a Core,
    _held: MutexGuard<'a, ()>,
}

/// Everything, held: the heap stands still.
pub(super) struct All<'a> {
    pub(super) core: &'a Core,
    _roots: Roots<'a>,
    _shards: Vec<Shard<'a>>,
    _central: Central<'a>,
}

impl Core {
    pub(super) fn roots(&self) -> Roots<'_> {
        Roots {
            core: self,
            _held: self.locks.roots.lock(),
        }
    }

    pub(super) fn central(&self) -> Central<'_> {
        Central {
            core: self,
            _held: self.locks.central.0.lock(),
        }
    }

    /// Locks a shard by its number, below [`Core::shards`].
    #[inline(always)]
    pub(super) fn shard(&self, number: u32) -> Shard<'_> {
        self.held(number, self.shard_lock(number).lock())
    }

    /// As [`Core::shard`], for who holds another one: `None` at once if somebody has it.
    pub(super) fn try_shard(&self, number: u32) -> Option<Shard<'_>> {
        let held = self.shard_lock(number).try_lock()?;
        Some(self.held(number, held))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a number below `shards`, or a panic"
    )]
    #[inline(always)]
    fn shard_lock(&self, number: u32) -> &Mutex<()> {
        &self.locks.shards[number as usize].0
    }

    #[inline(always)]
    fn held<'a>(&'a self, number: u32, held: MutexGuard<'a, ()>) -> Shard<'a> {
        Shard {
            core: self,
            lists: self.shard_lists(number),
            number,
            _held: held,
        }
    }

    /// Locks everything, in order.
    pub(super) fn all(&self) -> All<'_> {
        All {
            core: self,
            _roots: self.roots(),
            _shards: (0..self.shards()).map(|n| self.shard(n)).collect(),
            _central: self.central(),
        }
    }
}
