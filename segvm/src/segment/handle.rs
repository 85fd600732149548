//! What the application holds of a raw segment, and how one is made.

use std::{fmt, sync::Arc};

use segvm_blockcache::BlockSize;
use segvm_os::PageSize;

use super::{Fingerprint, state::Shared};
use crate::{
    gate::{GateError, Kind},
    region::{Attribute, Region, RegionError},
    session::{OpenError, core::Core},
};

/// 64 GiB of addresses cost nothing and leave room to grow.
const RESERVED: usize = 64 << 30;

/// How a segment is made. What is set here is recorded and holds for its life; when it exists already it must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentOptions {
    block_size: Option<BlockSize>,
    base: Option<usize>,
    reserved: Option<usize>,
    fingerprint: Fingerprint,
}

impl SegmentOptions {
    /// The defaults: blocks of 16 KiB (a page where pages are larger), 64 GiB reserved, a base chosen from the names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Blocks of this size, at least a page: larger ones hash no faster, and a small change stores more.
    #[must_use]
    pub fn block_size(mut self, size: BlockSize) -> Self {
        self.block_size = Some(size);
        self
    }

    /// At this address. Units: bytes; a multiple of the page size.
    #[must_use]
    pub fn base(mut self, address: usize) -> Self {
        self.base = Some(address);
        self
    }

    /// So many bytes of address space, which is as far as the segment can ever grow.
    #[must_use]
    pub fn reserve(mut self, bytes: usize) -> Self {
        self.reserved = Some(bytes);
        self
    }

    /// What the program takes the bytes for. Without it nothing is recorded, and nothing compared.
    ///
    /// - **Errors**: asking for a segment that is recorded with another one, or with none, is
    ///   [`OpenError::OtherFingerprint`]. It is recorded when the segment is made and never changes: bytes with a new layout go
    ///   into a new segment.
    #[must_use]
    pub fn fingerprint(mut self, meaning: Fingerprint) -> Self {
        self.fingerprint = meaning;
        self
    }

    pub(crate) fn meaning(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The block size on a machine with such pages.
    ///
    /// - **Errors**: pages are what is tracked and mapped, so a block has at least one.
    pub(crate) fn size(&self, segment: &str, page: PageSize) -> Result<BlockSize, OpenError> {
        let least = BlockSize::from_log2(page.log2()).unwrap_or(BlockSize::MAX);
        let size = self.block_size.unwrap_or_default();
        if size >= least {
            return Ok(size);
        }
        match self.block_size {
            None => Ok(least),
            Some(block_size) => Err(OpenError::BlockBelowPage {
                segment: segment.to_owned(),
                block_size,
                least,
            }),
        }
    }

    pub(crate) fn base_address(&self) -> Option<usize> {
        self.base
    }

    /// How much address space, for blocks of this size.
    pub(crate) fn reserved(&self, size: BlockSize) -> usize {
        let unit = size.bytes();
        self.reserved
            .unwrap_or(RESERVED)
            .max(unit)
            .next_multiple_of(unit)
    }

    /// Checks a segment that exists against what is asked for.
    pub(crate) fn check(&self, image: &str, shared: &Shared) -> Result<(), OpenError> {
        let differs = |has: String, wanted: String| OpenError::OtherSegment {
            image: image.to_owned(),
            segment: shared.name.clone(),
            has,
            wanted,
        };
        if let Some(size) = self.block_size.filter(|&size| size != shared.block_size) {
            return Err(differs(
                format!("{:?}", shared.block_size),
                format!("{size:?}"),
            ));
        }
        if let Some(base) = self.base.filter(|&base| base != shared.base()) {
            return Err(differs(
                format!("base {:#x}", shared.base()),
                format!("base {base:#x}"),
            ));
        }
        if self.fingerprint != Fingerprint::NONE && self.fingerprint != shared.fingerprint {
            return Err(OpenError::OtherFingerprint {
                image: image.to_owned(),
                segment: shared.name.clone(),
                recorded: shared.fingerprint,
                wanted: self.fingerprint,
            });
        }
        Ok(())
    }
}

/// A raw segment of an open session: bytes at one address, for ever.
///
/// The safe methods go through the gate, so that a checkpoint never sees half of a call. Whoever writes through
/// [`as_ptr`](Segment::as_ptr) instead holds a pass of [`Session::enter`](crate::Session::enter) meanwhile.
#[derive(Clone)]
pub struct Segment {
    pub(super) core: Arc<Core>,
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.shared.name)
            .field("range", &self.shared.committed())
            .finish_non_exhaustive()
    }
}

impl Segment {
    pub(crate) fn new(core: Arc<Core>, shared: Arc<Shared>) -> Self {
        Self { core, shared }
    }

    pub(crate) fn into_parts(self) -> (Arc<Core>, Arc<Shared>) {
        (self.core, self.shared)
    }

    /// The segment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What the bytes mean, as it was said when the segment was made.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.fingerprint
    }

    /// The size of its blocks.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.shared.block_size
    }

    /// A range that is not simply kept: the one that is there already, or one made of new memory, at or past [`len`](Self::len), to
    /// whose end the segment grows.
    ///
    /// Units: bytes; both multiples of the block size. From then on it is reached through the region alone.
    ///
    /// - **Errors**: [`RegionError::InUse`] where the bytes are something else already; what is saved cannot become a secret.
    pub fn region(
        &self,
        offset: usize,
        len: usize,
        attribute: Attribute,
    ) -> Result<Region, RegionError> {
        Region::open(&self.core, &self.shared, offset, len, attribute)
    }

    /// Bytes in use: a multiple of the block size.
    ///
    /// It only grows, but for [`Session::restore`](crate::Session::restore): then it is what it was at that commit, for all
    /// handles. What lies past it is gone: an access by address faults, and growing again brings zeros.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length in bytes, not a collection"
    )]
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// The address of the first byte: the same in every process, for ever.
    ///
    /// Nobody reads or writes a [`Region`] by address: its guards are references to the bytes, and a discard waits for guards.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.shared.base())
    }

    /// Makes the segment at least `len` bytes long; new bytes are zero.
    ///
    /// - **Blocks**: as a write does, while a checkpoint copies its residue or a restore runs.
    /// - **Errors**: [`OpenError::OtherSegment`] where less is reserved.
    pub fn grow(&self, len: usize) -> Result<(), OpenError> {
        self.core.check_process()?;
        if len <= self.len() {
            return Ok(());
        }
        // A restore maps the range anew and sets the length: growing meanwhile would count fenced pages as in use.
        let gate = &self.core.gate;
        let _pass = gate.enter(Kind::Write, gate.label(&self.shared.name))?;
        if self.shared.grow(len)? {
            return Ok(());
        }
        Err(OpenError::OtherSegment {
            image: self.core.image().to_string(),
            segment: self.shared.name.clone(),
            has: format!("{} bytes reserved", self.shared.reservation.len()),
            wanted: format!("{len} bytes (make it with SegmentOptions::reserve)"),
        })
    }

    /// Copies `bytes` into the segment at `offset`, as one change: a checkpoint holds all of it or nothing.
    ///
    /// - **Panics**: if they do not lie within the segment's length, as slice indexing does; or touch a region.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), GateError> {
        let _pass = self
            .core
            .gate
            .enter(Kind::Write, self.core.gate.label(&self.shared.name))?;
        self.check(offset, bytes.len());
        // The kernel seam, so that a session in a simulation has memory too.
        // SAFETY: the bytes lie in this segment's committed memory, which cannot go away while the pass lives. Another
        // thread's `write` to the same bytes may mix with this one, as with any shared memory; no reference to them exists.
        let filled = unsafe {
            self.core
                .world
                .kernel
                .fill(self.shared.base() + offset, bytes)
        };
        filled.map_err(|_gone| GateError::Closed)
    }

    /// Copies bytes of the segment out from `offset` on.
    ///
    /// - **Panics**: if they do not lie within the segment's length, as slice indexing does; or touch a region.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), GateError> {
        let _pass = self
            .core
            .gate
            .enter(Kind::Read, self.core.gate.label(&self.shared.name))?;
        self.check(offset, into.len());
        let range = self.shared.part(offset, into.len());
        let skip = self.shared.base() + offset - range.start();
        let mut pages = vec![0; range.len()];
        let copied = self.core.world.kernel.copy_racing(&[range], &mut pages);
        copied.map_err(|_gone| GateError::Closed)?;
        if let Some(bytes) = pages.get(skip..skip + into.len()) {
            into.copy_from_slice(bytes);
        }
        Ok(())
    }

    pub(super) fn check(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "{len} bytes at {offset} do not lie in segment `{}` of {} bytes",
            self.shared.name,
            self.len()
        );
        assert!(
            !self.shared.regions.touches(self.shared.part(offset, len)),
            "{len} bytes at {offset} of segment `{}` touch a region: use its guards",
            self.shared.name
        );
    }
}
