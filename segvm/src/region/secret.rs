//! Single values in secret memory: places in [`Wipe`](super::Attribute::Wipe) regions of a segment of their own.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc, time::Duration};

use segvm_os::PageRange;

use super::{
    Attribute, Region, RegionError,
    table::Entry,
    turns::{NoTurn, Turn},
};
use crate::{
    gate::Kind,
    persist::Plain,
    segment::state::Shared,
    session::{Error, Session, core::Core},
};

/// The segment that secrets live in.
const SEGMENT: &str = "segvm.secrets";
/// How much is added at a time.
const CHUNK: usize = 64 << 10;
/// Every place begins at a multiple of this: enough for any plain type.
const UNIT: usize = 16;

/// A value in secret memory: on no disk, in no core dump, in no forked child; zeroed when it is dropped.
///
/// It belongs to this process: after a resume there are no secrets. A restore ends those that there are.
///
/// ```no_run
/// # fn main() -> Result<(), segvm::Error> {
/// # let session = segvm::Session::open("vault")?;
/// let key = session.secret(|key: &mut [u8; 32]| key.fill(7))?;    // filled in place: no copy on the stack
/// let first = key.read(|key| key[0])?;
/// # Ok(()) }
/// ```
pub struct Secret<T: Plain> {
    core: Arc<Core>,
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    /// Within the entry's range, of this value alone as long as the entry is the segment's.
    at: usize,
    value: PhantomData<T>,
}

impl<T: Plain> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Which places of the secret regions are free.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Regions that are in use for secrets, each held alone for the session's life: no guard of theirs is ever handed out.
    entries: Vec<Arc<Entry>>,
    /// By address: how many bytes are free there. Merged.
    free: BTreeMap<usize, usize>,
}

impl Slots {
    /// Forgets all where a restore has made the memory anew.
    fn refresh(&mut self, shared: &Shared) {
        let current = |entry: &Arc<Entry>| is_current(shared, entry);
        if !self.entries.iter().all(current) {
            *self = Self::default();
        }
    }

    fn adopt(&mut self, entry: Arc<Entry>) {
        let (at, len) = (entry.range.start(), entry.range.len());
        // Known before its bytes are: two regions that touch are not one.
        self.entries.push(entry);
        self.give(at, len);
    }

    /// Takes the first place that is large enough.
    fn take(&mut self, len: usize) -> Option<(Arc<Entry>, usize)> {
        let (&at, &free) = self.free.iter().find(|(_, free)| **free >= len)?;
        let inside = |entry: &&Arc<Entry>| (entry.range.start()..entry.range.end()).contains(&at);
        let entry = Arc::clone(self.entries.iter().find(inside)?);
        self.free.remove(&at);
        if free > len {
            self.free.insert(at + len, free - len);
        }
        Some((entry, at))
    }

    fn give(&mut self, mut at: usize, mut len: usize) {
        // Never across regions: a place lies in one.
        let edge = |edge: usize| self.entries.iter().any(|entry| entry.range.start() == edge);
        if let Some((&before, &free)) = self.free.range(..at).next_back()
            && before + free == at
            && !edge(at)
        {
            self.free.remove(&before);
            (at, len) = (before, len + free);
        }
        if let Some(&after) = self.free.get(&(at + len))
            && !edge(at + len)
        {
            self.free.remove(&(at + len));
            len += after;
        }
        self.free.insert(at, len);
    }
}

fn is_current(shared: &Shared, entry: &Arc<Entry>) -> bool {
    let now = shared.regions.find(entry.range);
    now.is_some_and(|now| Arc::ptr_eq(&now, entry))
}

const fn room(len: usize) -> usize {
    let least = if len == 0 { 1 } else { len };
    least.next_multiple_of(UNIT)
}

impl Session {
    /// Makes a secret: `fill` is given its place, all zero.
    ///
    /// - **Panics**: in a simulation, whose memory has no address; if `T` is larger than 64 KiB.
    pub fn secret<T: Plain>(&self, fill: impl FnOnce(&mut T)) -> Result<Secret<T>, Error> {
        const {
            assert!(align_of::<T>() <= UNIT, "no plain type is aligned to more");
        }
        assert!(size_of::<T>() <= CHUNK, "a secret is at most {CHUNK} bytes");
        let (core, shared) = self.segment(SEGMENT, 0)?.into_parts();
        assert!(
            core.world.ranges.is_real(),
            "a simulation's memory has no address"
        );
        let (entry, at) = place(&core, &shared, room(size_of::<T>()))?;
        let mut secret = Secret {
            core,
            shared,
            entry,
            at,
            value: PhantomData,
        };
        secret.write(fill)?;
        Ok(secret)
    }
}

/// Finds a free place, in a new region where there is none.
fn place(
    core: &Arc<Core>,
    shared: &Arc<Shared>,
    len: usize,
) -> Result<(Arc<Entry>, usize), RegionError> {
    // Before the lock: whoever waits at the gate with a pass is let in, so nobody waits for this lock for long.
    let _pass = core.gate.enter(Kind::Read, core.gate.label(&shared.name))?;
    let mut slots = core.secrets.lock();
    slots.refresh(shared);
    if let Some(place) = slots.take(len) {
        return Ok(place);
    }
    // Those of an earlier life, which are zero now, come before a new one.
    let known = shared.regions.all();
    let spare = known.iter().find(|entry| {
        let ours = slots.entries.iter().any(|own| Arc::ptr_eq(own, entry));
        !ours && entry.kind == Attribute::Wipe.into() && entry.range.len() >= len
    });
    let range = match spare {
        Some(entry) => entry.range,
        None => {
            let chunk = CHUNK.next_multiple_of(shared.block_size.bytes());
            let offset = shared.len();
            Region::open(core, shared, offset, chunk, Attribute::Wipe)?;
            shared.part(offset, chunk)
        }
    };
    let entry = hold(shared, range)?;
    slots.adopt(entry);
    slots.take(len).ok_or_else(|| RegionError::Gone {
        segment: shared.name.clone(),
        offset: range.start() - shared.base(),
    })
}

/// Takes a region for the session's life.
fn hold(shared: &Shared, range: PageRange) -> Result<Arc<Entry>, RegionError> {
    let (segment, offset) = (shared.name.clone(), range.start() - shared.base());
    let Some(entry) = shared.regions.find(range) else {
        return Err(RegionError::Gone { segment, offset });
    };
    match entry.turns.enter(Turn::Alone, Duration::ZERO) {
        Ok(()) => Ok(entry),
        Err(NoTurn::Here) => Err(RegionError::HeldHere { segment, offset }),
        Err(NoTurn::Elsewhere(waited)) => Err(RegionError::TimedOut {
            segment,
            offset,
            waited,
        }),
    }
}

impl<T: Plain> Secret<T> {
    /// Looks at the value.
    ///
    /// - **Errors**: [`RegionError::Gone`] after a restore; [`RegionError::Gate`] once the session has ended.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R, RegionError> {
        let _pass = self.enter()?;
        let place = std::ptr::with_exposed_provenance::<T>(self.at);
        // SAFETY: the place is committed, aligned and as large as a `T`, of which its bytes are one: zeros, or what `write` left.
        // It is this value's alone, which is borrowed; the pass keeps the memory in place, and it is not made anew meanwhile.
        Ok(look(unsafe { &*place }))
    }

    /// Changes the value.
    ///
    /// - **Errors**: as [`read`](Self::read).
    pub fn write<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> Result<R, RegionError> {
        let _pass = self.enter()?;
        let place = std::ptr::with_exposed_provenance_mut::<T>(self.at);
        // SAFETY: as in `read`; the value is borrowed exclusively.
        Ok(change(unsafe { &mut *place }))
    }

    fn enter(&self) -> Result<crate::gate::Pass<'_>, RegionError> {
        let gate = &self.core.gate;
        let pass = gate.enter(Kind::Read, gate.label(&self.shared.name))?;
        if is_current(&self.shared, &self.entry) {
            return Ok(pass);
        }
        Err(RegionError::Gone {
            segment: self.shared.name.clone(),
            offset: self.at - self.shared.base(),
        })
    }
}

impl<T: Plain> Drop for Secret<T> {
    fn drop(&mut self) {
        // After a restore, or the session's end, the memory is gone already.
        let Ok(_pass) = self.enter() else { return };
        let len = room(size_of::<T>());
        let mut slots = self.core.secrets.lock();
        // SAFETY: the place is committed as long as the pass lives, and this value's alone.
        let zeroed = unsafe { self.core.world.kernel.fill(self.at, &vec![0; len]) };
        if zeroed.is_ok()
            && slots
                .entries
                .iter()
                .any(|own| Arc::ptr_eq(own, &self.entry))
        {
            slots.give(self.at, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use segvm_home::RangeKind;
    use segvm_os::PageSize;

    use super::*;

    fn entry(start: usize) -> Arc<Entry> {
        let range = PageRange::new(PageSize::MIN, start, 8192).unwrap();
        Arc::new(Entry::new(range, RangeKind::Wipe))
    }

    #[test]
    fn places_never_overlap_and_are_whole_again_when_all_are_given_back() {
        let mut slots = Slots::default();
        slots.adopt(entry(8192));
        slots.adopt(entry(16384));
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut x = 7_usize;
        for step in 0..4000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = room((x >> 33) % 700);
            if step % 3 < 2
                && let Some((entry, at)) = slots.take(len)
            {
                assert!(at >= entry.range.start() && at + len <= entry.range.end());
                let clear =
                    |&(other, long): &(usize, usize)| at + len <= other || other + long <= at;
                assert!(at % UNIT == 0 && taken.iter().all(clear));
                taken.push((at, len));
            } else if !taken.is_empty() {
                let (at, len) = taken.swap_remove((x >> 33) % taken.len());
                slots.give(at, len);
            }
        }
        for (at, len) in taken {
            slots.give(at, len);
        }
        assert_eq!(
            slots.free.into_iter().collect::<Vec<_>>(),
            [(8192, 8192), (16384, 8192)]
        );
    }
}
