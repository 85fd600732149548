//! The heap's memory as typed places. The only file here that makes references from addresses.

use std::{
    mem,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{
    HeapError, HeapOptions,
    layout::{
        GRAIN, Header, MAGIC, MAX_SHARDS, SHARD_TABLE, Shard, UNIT, Unit, VERSION, ZERO_ON_FREE,
        overhead_units, unit_table,
    },
    locks::Locks,
    space::Space,
};

/// A heap's state in its segment, and the locks that say who may change which part of it (see `locks`).
///
/// Invariant, from `create` or `open` on: header, shards and unit table lie within the space's length, and so does
/// every unit before `header.top`.
pub(super) struct Core {
    space: Box<dyn Space>,
    /// What the space answers, kept because every step asks: base and reservation never change, the length never shrinks.
    base: NonNull<u8>,
    reserved: usize,
    /// Set under the central lock. Relaxed: whoever knows an address in new memory learnt it from who made it usable.
    len: AtomicUsize,
    /// A power of two.
    shards: u32,
    unit_table: usize,
    /// Whether what is freed is zeroed. As in the header, where it never changes.
    pub(super) zero_on_free: bool,
    pub(super) locks: Locks,
}

// SAFETY: `base` is the address of memory that `space` owns, and that is Send and Sync. What lies there is reached as
// atomics, or, in free objects and the directory of roots, under the lock that it belongs to.
unsafe impl Send for Core {}
// SAFETY: as for Send.
unsafe impl Sync for Core {}

impl Core {
    /// Makes an empty heap with `shards` shards: a power of two, at most [`MAX_SHARDS`].
    pub(super) fn create(
        space: Box<dyn Space>,
        seed: u64,
        shards: u32,
        options: HeapOptions,
    ) -> Result<Self, HeapError> {
        let mut core = Self::over(space, shards);
        core.zero_on_free = options.zero_on_free;
        let (base, reserved) = (core.base_address(), core.reserved());
        let units = reserved / UNIT;
        let fits = base.is_multiple_of(UNIT) && reserved.is_multiple_of(UNIT);
        let (true, Ok(_)) = (fits, u32::try_from(units)) else {
            return Err(HeapError::Unsuitable { base, reserved });
        };
        let first = overhead_units(reserved, shards);
        if first >= units {
            return Err(core.out_of_memory(first * UNIT));
        }
        core.grow_to(first)?;
        let first = index(first);
        let header = core.header();
        header.version.set(VERSION);
        header.shards.set(shards);
        header.base.set(word(base));
        header.reserved.set(word(reserved));
        header.seed.set(seed);
        header.first_unit.set(first);
        header.top.set(first);
        header.flags.set(core.flags());
        // Last: a heap whose making was interrupted is none.
        header.magic.set(MAGIC);
        Ok(core)
    }

    fn over(space: Box<dyn Space>, shards: u32) -> Self {
        Self {
            base: space.base(),
            reserved: space.reserved(),
            len: AtomicUsize::new(space.len()),
            space,
            shards,
            unit_table: unit_table(shards),
            zero_on_free: false,
            locks: Locks::new(shards),
        }
    }

    fn flags(&self) -> u64 {
        if self.zero_on_free { ZERO_ON_FREE } else { 0 }
    }

    pub(super) fn open(space: Box<dyn Space>) -> Result<Self, HeapError> {
        // How many shards there are is in the header, and whether there is one is for `validate` to say.
        let mut core = Self::over(space, 1);
        if core.len() >= UNIT {
            let shards = core.header().shards.get();
            if shards.is_power_of_two() && shards <= MAX_SHARDS {
                core.shards = shards;
                core.unit_table = unit_table(shards);
                core.locks = Locks::new(shards);
            }
            core.zero_on_free = core.header().flags.get() == ZERO_ON_FREE;
        }
        core.validate()?;
        Ok(core)
    }

    /// Looks at the header. The caller makes sure that nobody uses the heap meanwhile.
    pub(super) fn validate(&self) -> Result<(), HeapError> {
        let len = self.space.len();
        self.len.store(len, Relaxed);
        let (base, reserved) = (self.base_address(), self.reserved());
        let truncated = |used| HeapError::Truncated { base, used, len };
        if len < UNIT {
            return Err(truncated(word(UNIT)));
        }
        let header = self.header();
        let magic = header.magic.get();
        if magic != MAGIC {
            let found = magic.to_le_bytes();
            return Err(HeapError::NotAHeap { base, found });
        }
        if header.version.get() != VERSION {
            return Err(HeapError::Version {
                base,
                found: header.version.get(),
                wanted: VERSION,
            });
        }
        if header.shards.get() != self.shards {
            return Err(HeapError::Shards {
                base,
                found: header.shards.get(),
            });
        }
        if header.flags.get() != self.flags() {
            return Err(HeapError::Flags {
                base,
                found: header.flags.get(),
                wanted: self.flags(),
            });
        }
        if header.base.get() != word(base) || header.reserved.get() != word(reserved) {
            return Err(HeapError::Moved {
                base,
                reserved,
                made: header.base.get(),
                made_reserved: header.reserved.get(),
            });
        }
        let (first, top) = (header.first_unit.get(), header.top.get());
        let used = u64::from(top) * word(UNIT);
        let tables = overhead_units(reserved, self.shards);
        if used > word(len) || first > top || first as usize != tables {
            return Err(truncated(used));
        }
        Ok(())
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn base_address(&self) -> usize {
        self.base.as_ptr().expose_provenance()
    }

    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    #[inline]
    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    #[inline]
    fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    #[cold]
    pub(super) fn out_of_memory(&self, wanted: usize) -> HeapError {
        let used = if self.len() < UNIT {
            0
        } else {
            self.header().top.get() as usize * UNIT
        };
        HeapError::OutOfMemory {
            wanted,
            used,
            reserved: self.reserved,
        }
    }

    /// Makes the units before `units` usable. The caller has the central lock, or nobody else knows the heap yet.
    pub(super) fn grow_to(&self, units: usize) -> Result<(), HeapError> {
        let (len, reserved) = (self.len(), self.reserved);
        let needed = units.saturating_mul(UNIT);
        if needed <= len {
            return Ok(());
        }
        if needed > reserved {
            return Err(self.out_of_memory(needed - len));
        }
        // An eighth more than was there: mapping is a system call, zeros that nobody touches are free.
        let to = needed
            .max(len + len / 8)
            .next_multiple_of(UNIT)
            .min(reserved);
        self.space
            .grow(to)
            .map_err(|source| HeapError::Grow { to, source })?;
        self.len.store(to, Relaxed);
        Ok(())
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: `base` is aligned to a unit, and a unit is usable (checked before the first call); any bytes are a
        // valid Header, all of it atomics; nothing else is ever made of these bytes.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    #[inline]
    pub(super) fn shard_lists(&self, number: u32) -> &Shard {
        assert!(number < self.shards, "shard {number} of {}", self.shards);
        let offset = SHARD_TABLE + number as usize * mem::size_of::<Shard>();
        // SAFETY: below the unit table, which lies within the usable length (the invariant).
        let place = unsafe { self.base.byte_add(offset) };
        // SAFETY: a multiple of 256 from a base that is aligned to a unit; any bytes are a valid Shard, all of it atomics.
        unsafe { place.cast::<Shard>().as_ref() }
    }

    #[inline]
    pub(super) fn unit(&self, at: u32) -> &Unit {
        assert!(
            at as usize * UNIT < self.reserved,
            "unit {at} is outside the heap"
        );
        let offset = self.unit_table + at as usize * mem::size_of::<Unit>();
        // SAFETY: the table lies before `first_unit`, hence within the usable length (the invariant), and has an entry for
        // each unit of the reservation.
        let place = unsafe { self.base.byte_add(offset) };
        // SAFETY: aligned to 64 (base, table and the size are); any bytes are a valid Unit, all of it atomics.
        unsafe { place.cast::<Unit>().as_ref() }
    }

    #[inline]
    pub(super) fn address_of(&self, unit: u32) -> NonNull<u8> {
        self.at(unit as usize * UNIT)
    }

    /// The unit that `place` lies in.
    #[inline]
    pub(super) fn unit_of(&self, place: NonNull<u8>) -> u32 {
        let offset = place.addr().get().wrapping_sub(self.base.addr().get());
        assert!(offset < self.len(), "{place:?} is not in this heap");
        index(offset / UNIT)
    }

    /// The place with this address, of something aligned as blocks are; the next 16 bytes are usable too.
    #[inline]
    pub(super) fn place(&self, address: u64) -> NonNull<u8> {
        let offset = usize_of(address).wrapping_sub(self.base.addr().get());
        assert!(
            offset.is_multiple_of(GRAIN),
            "{address:#x} is no block's address"
        );
        self.at(offset)
    }

    #[inline]
    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset < self.len(),
            "offset {offset:#x} is outside the heap"
        );
        // SAFETY: within the usable length, as just checked.
        unsafe { self.base.byte_add(offset) }
    }
}

/// An index into units: [`Core::create`] has checked that they all fit.
#[inline]
pub(super) fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a reservation has fewer than 2^32 units")
}

pub(super) const fn word(n: usize) -> u64 {
    n as u64
}

/// Addresses in an image have 64 bits.
#[inline]
pub(super) fn usize_of(n: u64) -> usize {
    usize::try_from(n).expect("segvm runs where addresses have 64 bits")
}

#[inline]
pub(super) fn address(place: NonNull<u8>) -> u64 {
    word(place.addr().get())
}
