//! The heap's memory as typed places. The only file here that makes references from addresses.

use std::{mem, ptr::NonNull};

use super::{
    HeapError,
    layout::{Header, MAGIC, Span, TABLE, UNIT, Unit, VERSION, overhead_units},
    space::Space,
};

/// A heap's state in its segment, exclusively: there is one per heap, behind its lock.
///
/// Invariant, from `create` or `validate` on: header and unit table lie within the space's length, and so does every
/// unit before `header.top`.
pub(super) struct Core {
    space: Box<dyn Space>,
    /// What the space answers, kept because every step asks: base and reservation never change, the length never shrinks.
    base: NonNull<u8>,
    reserved: usize,
    len: usize,
}

impl Core {
    pub(super) fn create(space: Box<dyn Space>, seed: u64) -> Result<Self, HeapError> {
        let mut core = Self::over(space);
        let (base, reserved) = (core.base_address(), core.reserved());
        let units = reserved / UNIT;
        let fits = base.is_multiple_of(UNIT) && reserved.is_multiple_of(UNIT);
        let (true, Ok(_)) = (fits, u32::try_from(units)) else {
            return Err(HeapError::Unsuitable { base, reserved });
        };
        let first = overhead_units(reserved);
        if first >= units {
            return Err(core.out_of_memory(first * UNIT));
        }
        core.grow_to(first)?;
        let first = index(first);
        let header = core.header();
        header.version = VERSION;
        header.base = word(base);
        header.reserved = word(reserved);
        header.seed = seed;
        header.first_unit = first;
        header.top = first;
        // Last: a heap whose making was interrupted is none.
        header.magic = MAGIC;
        Ok(core)
    }

    fn over(space: Box<dyn Space>) -> Self {
        Self {
            base: space.base(),
            reserved: space.reserved(),
            len: space.len(),
            space,
        }
    }

    pub(super) fn open(space: Box<dyn Space>) -> Result<Self, HeapError> {
        let mut core = Self::over(space);
        core.validate()?;
        Ok(core)
    }

    pub(super) fn validate(&mut self) -> Result<(), HeapError> {
        self.len = self.space.len();
        let (base, reserved, len) = (self.base_address(), self.reserved(), self.len);
        let truncated = |used| HeapError::Truncated { base, used, len };
        if len < TABLE {
            return Err(truncated(word(TABLE)));
        }
        let header = self.header();
        if header.magic != MAGIC {
            let found = header.magic;
            return Err(HeapError::NotAHeap { base, found });
        }
        if header.version != VERSION {
            return Err(HeapError::Version {
                base,
                found: header.version,
                wanted: VERSION,
            });
        }
        if header.base != word(base) || header.reserved != word(reserved) {
            return Err(HeapError::Moved {
                base,
                reserved,
                made: header.base,
                made_reserved: header.reserved,
            });
        }
        let used = u64::from(header.top) * word(UNIT);
        if used > word(len) || header.first_unit > header.top {
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

    #[cold]
    pub(super) fn out_of_memory(&mut self, wanted: usize) -> HeapError {
        let reserved = self.reserved();
        let used = if self.len < TABLE {
            0
        } else {
            self.header().top as usize * UNIT
        };
        HeapError::OutOfMemory {
            wanted,
            used,
            reserved,
        }
    }

    /// Makes the units before `units` usable.
    pub(super) fn grow_to(&mut self, units: usize) -> Result<(), HeapError> {
        let (len, reserved) = (self.len, self.reserved());
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
        self.len = to;
        Ok(())
    }

    pub(super) fn header(&mut self) -> &mut Header {
        // SAFETY: `base` is aligned to a unit and at least a page is usable (checked before the first call); any bytes are
        // a valid Header; `self` is borrowed for as long as the reference lives and is the only way to this memory.
        unsafe { self.base().cast::<Header>().as_mut() }
    }

    pub(super) fn unit(&mut self, at: u32) -> &mut Unit {
        let offset = TABLE + at as usize * mem::size_of::<Unit>();
        assert!(
            at as usize * UNIT < self.reserved(),
            "unit {at} is outside the heap"
        );
        // SAFETY: the table lies before `first_unit`, hence within the usable length (the invariant), and has an entry for
        // each unit of the reservation.
        let place = unsafe { self.base().byte_add(offset) };
        // SAFETY: aligned to 16 (base, TABLE and the size are), any bytes are a valid Unit, and `self` is borrowed.
        unsafe { place.cast::<Unit>().as_mut() }
    }

    /// The state of the span in unit `at`.
    pub(super) fn span(&mut self, at: u32) -> &mut Span {
        &mut self.unit(at).span
    }

    pub(super) fn address_of(&self, unit: u32) -> NonNull<u8> {
        let offset = unit as usize * UNIT;
        assert!(offset < self.len, "unit {unit} is outside the heap");
        // SAFETY: within the usable length, as just checked.
        unsafe { self.base().byte_add(offset) }
    }

    /// The unit that `place` lies in.
    pub(super) fn unit_of(&self, place: NonNull<u8>) -> u32 {
        let offset = place.addr().get().wrapping_sub(self.base_address());
        assert!(offset < self.len, "{place:?} is not in this heap");
        index(offset / UNIT)
    }

    /// The place with this address.
    pub(super) fn place(&self, address: u64) -> NonNull<u8> {
        let offset = usize_of(address).wrapping_sub(self.base_address());
        assert!(offset < self.len, "{address:#x} is not in this heap");
        // SAFETY: within the usable length, as just checked.
        unsafe { self.base().byte_add(offset) }
    }

    /// The two words of a free object: the next one's address and the mark.
    pub(super) fn free_object(&mut self, object: NonNull<u8>) -> &mut [u64; 2] {
        // SAFETY: the callers pass objects of spans: at least 16 bytes, aligned to 16, within a usable unit; a free one
        // belongs to the allocator, and `self` is borrowed.
        unsafe { object.cast::<[u64; 2]>().as_mut() }
    }
}

/// An index into units: [`Core::create`] has checked that they all fit.
pub(super) fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a reservation has fewer than 2^32 units")
}

pub(super) const fn word(n: usize) -> u64 {
    n as u64
}

/// Addresses in an image have 64 bits.
pub(super) fn usize_of(n: u64) -> usize {
    usize::try_from(n).expect("segvm runs where addresses have 64 bits")
}

pub(super) fn address(place: NonNull<u8>) -> u64 {
    word(place.addr().get())
}
