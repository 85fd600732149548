use std::fmt;

/// The bytes of a segment, wherever they are.
pub trait SegmentBytes {
    /// Why they could not be read.
    type Error;

    /// Fills `out` with the bytes from `offset` on; it asks for none behind the segment's end.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error>;
}

/// A segment that is looked at.
#[derive(Debug)]
pub struct Segment<B> {
    /// Its bytes.
    pub bytes: B,
    /// The address of its first byte, which everything in it refers to.
    pub base: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// Bytes that make no sense where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    /// Where, in bytes from the beginning of the segment.
    pub offset: u64,
    /// What is wrong with them.
    pub what: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {:#x}: {}", self.offset, self.what)
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError<E> {
    /// The bytes are not to be had.
    #[error(transparent)]
    Read(E),
    /// They make no sense.
    #[error("{0}")]
    Flaw(Flaw),
    /// The heap has a format of another version.
    #[error("the heap has format {found}; this program reads format {wanted}")]
    Version {
        /// The version found.
        found: u32,
        /// The version of this library.
        wanted: u32,
    },
}

impl<B: SegmentBytes> Segment<B> {
    /// The offset of what lies at an address, if all `len` bytes of it are in the segment.
    pub(super) fn offset(&self, address: u64, len: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        let end = offset.checked_add(len)?;
        (end <= self.len).then_some(offset)
    }

    /// Reads bytes that are within the segment.
    pub(super) fn array<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], B::Error> {
        let mut out = [0; N];
        self.bytes.read(offset, &mut out)?;
        Ok(out)
    }

    pub(super) fn long(&mut self, offset: u64) -> Result<u64, B::Error> {
        Ok(u64::from_le_bytes(self.array(offset)?))
    }
}
