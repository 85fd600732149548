//! The bytes of a pack: pages, batch headers, directory entries. docs/format.md has the offsets.
//!
//! A page that stands alone (pack header, seal, batch header) has all it says in its first 512 bytes, which end in
//! their CRC-32C: disks write a sector whole or not at all, so that such a page is never half there. The rest, and
//! whatever is not defined, is zero. What is read from disk goes through a `decode` here before anybody uses it.

mod entry;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

pub(crate) use entry::{ENTRY, Entry, Kind};

use crate::{id::PackId, unit::BlockSize};

/// The unit of everything in a pack that is not a node: 4,096 bytes, whatever the machine's page size.
pub(crate) const PAGE: usize = 4096;
/// [`PAGE`] as a file offset.
pub(crate) const PAGE_LEN: u64 = PAGE as u64;
/// Where the seal page lies: behind the pack header, at a fixed place that no block can imitate.
pub(crate) const SEAL_AT: u64 = PAGE_LEN;
/// Where the first batch begins.
pub(crate) const FIRST_BATCH: u64 = 2 * PAGE_LEN;
/// Blocks are aligned to their size, at most to this: the largest page any machine maps with.
pub(crate) const MAX_BLOCK_ALIGN: u64 = 64 << 10;
/// No node is longer; a decoder refuses before it allocates.
pub(crate) const MAX_NODE: u32 = 1 << 20;
/// The version this code writes, and the only one it reads.
pub(crate) const VERSION: u32 = 1;
/// No pack is longer: offsets stay far from overflow.
pub(crate) const MAX_PACK: u64 = 1 << 48;

const PACK_MAGIC: [u8; 8] = *b"segvmpak";
const SEAL_MAGIC: [u8; 8] = *b"segvmsea";
const BATCH_MAGIC: [u8; 8] = *b"segvmbat";
const SECTOR: usize = 512;
const CRC_AT: usize = SECTOR - 4;

/// One page as bytes.
pub(crate) type Page = [u8; PAGE];

/// What is wrong with bytes of a pack, in words that complete "this pack is damaged: ...".
pub(crate) type Flaw = &'static str;

/// Rounds up to a multiple of `align`, a power of two.
pub(crate) const fn align_up(n: u64, align: u64) -> u64 {
    (n + (align - 1)) & !(align - 1)
}

/// Where blocks of this size may begin.
pub(crate) fn block_align(size: BlockSize) -> u64 {
    (size.bytes() as u64).min(MAX_BLOCK_ALIGN)
}

/// A length in memory as a length on disk.
pub(crate) const fn len64(len: usize) -> u64 {
    len as u64
}

/// Memory for bytes to be read; `None` where there is not enough of it.
pub(crate) fn zeroed(len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    bytes.resize(len, 0);
    Some(bytes)
}

fn page_of(fields: &[u8]) -> Page {
    let mut page = [0; PAGE];
    if let Some(start) = page.get_mut(..fields.len()) {
        start.copy_from_slice(fields);
    }
    let crc = crc32c::crc32c(page.split_at(CRC_AT).0);
    if let Some(place) = page.get_mut(CRC_AT..SECTOR) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    page
}

/// The fields of a page whose checksum holds and whose rest is zero.
fn fields_of<T: FromBytes + KnownLayout + Immutable + Unaligned>(page: &Page) -> Result<&T, Flaw> {
    let (sector, empty) = page.split_at(SECTOR);
    let (body, crc) = sector.split_at(CRC_AT);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err("a page's checksum does not match");
    }
    let (fields, rest) = T::ref_from_prefix(body).map_err(|_too_short| "a page is too short")?;
    if rest.iter().chain(empty).any(|&byte| byte != 0) {
        return Err("a page has bytes that this version does not know");
    }
    Ok(fields)
}

/// The first bytes of each page.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
struct Preamble {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    pack: U64,
}

impl Preamble {
    fn new(magic: [u8; 8], pack: PackId) -> Self {
        Self {
            magic,
            version: VERSION.into(),
            flags: 0.into(),
            pack: pack.0.into(),
        }
    }

    fn check(&self, magic: [u8; 8], pack: PackId) -> Result<(), Flaw> {
        if self.magic != magic {
            return Err("a page is not what its place asks for");
        }
        if self.version.get() != VERSION || self.flags.get() != 0 {
            return Err("a page is of a version or has flags that this program does not know");
        }
        if self.pack.get() != pack.0 {
            return Err("a page belongs to another pack");
        }
        Ok(())
    }
}

/// Encodes the page at the beginning of a pack.
pub(crate) fn pack_header(pack: PackId) -> Page {
    page_of(Preamble::new(PACK_MAGIC, pack).as_bytes())
}

/// Checks the page at the beginning of a pack.
pub(crate) fn check_pack_header(page: &Page, pack: PackId) -> Result<(), Flaw> {
    fields_of::<Preamble>(page)?.check(PACK_MAGIC, pack)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SealFields {
    preamble: Preamble,
    batches_end: U64,
    batches: U64,
    index: U64,
    entries: U64,
    file_len: U64,
    fanout_crc: U32,
}

/// What the seal page says: the pack is complete, and where its index lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) pack: PackId,
    /// The byte after the last batch; a multiple of [`PAGE`].
    pub(crate) batches_end: u64,
    pub(crate) batches: u64,
    /// Entries of the index, which begins at `batches_end`; at most `u32::MAX`.
    pub(crate) entries: u64,
    /// CRC-32C of the index's fan-out table.
    pub(crate) fanout_crc: u32,
}

impl Seal {
    /// Where the index's entries begin.
    pub(crate) const fn entries_at(&self) -> u64 {
        self.batches_end + len64(FANOUT_LEN)
    }

    /// The length of the sealed file.
    pub(crate) const fn file_len(&self) -> u64 {
        align_up(self.entries_at() + self.entries * len64(ENTRY), PAGE_LEN)
    }

    pub(crate) fn encode(&self) -> Page {
        page_of(
            SealFields {
                preamble: Preamble::new(SEAL_MAGIC, self.pack),
                batches_end: self.batches_end.into(),
                batches: self.batches.into(),
                index: self.batches_end.into(),
                entries: self.entries.into(),
                file_len: self.file_len().into(),
                fanout_crc: self.fanout_crc.into(),
            }
            .as_bytes(),
        )
    }

    /// `Ok(None)` for a page of zeros: not sealed.
    pub(crate) fn decode(page: &Page, pack: PackId) -> Result<Option<Self>, Flaw> {
        if page.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let fields: &SealFields = fields_of(page)?;
        fields.preamble.check(SEAL_MAGIC, pack)?;
        let seal = Self {
            pack,
            batches_end: fields.batches_end.get(),
            batches: fields.batches.get(),
            entries: fields.entries.get(),
            fanout_crc: fields.fanout_crc.get(),
        };
        let plausible = seal.batches_end >= FIRST_BATCH
            && seal.batches_end <= MAX_PACK
            && seal.batches_end.is_multiple_of(PAGE_LEN)
            && seal.batches <= seal.batches_end / PAGE_LEN
            && seal.entries <= u64::from(u32::MAX);
        if !plausible
            || fields.index.get() != seal.batches_end
            || fields.file_len.get() != seal.file_len()
        {
            return Err("the seal's lengths contradict each other");
        }
        Ok(Some(seal))
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BatchFields {
    preamble: Preamble,
    sequence: U64,
    offset: U64,
    len: U64,
    nodes: U64,
    nodes_len: U64,
    directory: U64,
    entries: U64,
    directory_crc: U32,
}

/// What a batch header says. All offsets count from the beginning of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) pack: PackId,
    /// 0 for a pack's first batch, then one more each.
    pub(crate) sequence: u64,
    /// Where this header lies; a multiple of [`PAGE`].
    pub(crate) offset: u64,
    /// Where the nodes begin, and the blocks have ended; a multiple of [`PAGE`].
    pub(crate) nodes: u64,
    pub(crate) nodes_len: u64,
    pub(crate) entries: u64,
    pub(crate) directory_crc: u32,
}

impl Batch {
    /// Where the directory begins: behind the nodes, at a multiple of 16.
    pub(crate) const fn directory(&self) -> u64 {
        align_up(self.nodes + self.nodes_len, 16)
    }

    /// The byte after the batch, where the next one begins.
    pub(crate) const fn end(&self) -> u64 {
        align_up(self.directory() + self.entries * len64(ENTRY), PAGE_LEN)
    }

    pub(crate) fn encode(&self) -> Page {
        page_of(
            BatchFields {
                preamble: Preamble::new(BATCH_MAGIC, self.pack),
                sequence: self.sequence.into(),
                offset: self.offset.into(),
                len: (self.end() - self.offset).into(),
                nodes: self.nodes.into(),
                nodes_len: self.nodes_len.into(),
                directory: self.directory().into(),
                entries: self.entries.into(),
                directory_crc: self.directory_crc.into(),
            }
            .as_bytes(),
        )
    }

    /// Checks the page that a walk expects to be batch number `sequence`, at `offset`.
    pub(crate) fn decode(
        page: &Page,
        pack: PackId,
        sequence: u64,
        offset: u64,
    ) -> Result<Self, Flaw> {
        let fields: &BatchFields = fields_of(page)?;
        fields.preamble.check(BATCH_MAGIC, pack)?;
        if fields.sequence.get() != sequence || fields.offset.get() != offset {
            return Err("a batch header belongs to another place");
        }
        let batch = Self {
            pack,
            sequence,
            offset,
            nodes: fields.nodes.get(),
            nodes_len: fields.nodes_len.get(),
            entries: fields.entries.get(),
            directory_crc: fields.directory_crc.get(),
        };
        let plausible = batch.nodes >= offset + PAGE_LEN
            && batch.nodes <= MAX_PACK
            && batch.nodes.is_multiple_of(PAGE_LEN)
            && batch.nodes_len <= MAX_PACK
            && batch.entries <= u64::from(u32::MAX);
        if !plausible
            || fields.directory.get() != batch.directory()
            || fields.len.get() != batch.end() - offset
        {
            return Err("a batch header's lengths contradict each other");
        }
        Ok(batch)
    }

    /// Checks an entry of this batch's directory.
    pub(crate) fn check(&self, entry: &Entry) -> Result<(), Flaw> {
        let (from, to) = match entry.check()? {
            Kind::Block => (self.offset + PAGE_LEN, self.nodes),
            Kind::Node => (self.nodes, self.nodes + self.nodes_len),
        };
        if entry.offset() < from || entry.end() > to {
            return Err("an entry points outside its batch");
        }
        Ok(())
    }
}

/// One of the 256 lines of an index's fan-out table.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Bucket {
    /// How many entries have a first byte up to this bucket's.
    pub(crate) end: U32,
    /// CRC-32C of the bucket's entries.
    pub(crate) crc: U32,
}

/// The length of the fan-out table on disk.
pub(crate) const FANOUT_LEN: usize = 256 * size_of::<Bucket>();

#[cfg(test)]
mod tests;
