//! From header to header: what a pack holds, read without its blocks.

use std::io;

use segvm_os::Mappable;
use zerocopy::FromBytes;

use super::format::{
    Batch, ENTRY, Entry, FIRST_BATCH, Flaw, PAGE, PAGE_LEN, check_pack_header, zeroed,
};
use crate::id::PackId;

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// The bytes at `offset` are not what they must be.
    Damaged { offset: u64, flaw: Flaw },
    /// The bytes at `offset` could not be read.
    Io { offset: u64, source: io::Error },
}

fn at(offset: u64) -> impl Fn(Flaw) -> WalkError {
    move |flaw| WalkError::Damaged { offset, flaw }
}

/// The entries of a pack's batches, in the order they were put.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) entries: Vec<Entry>,
    pub(crate) batches: u64,
}

/// Reads the headers and directories of the batches before `end`, which must be where a batch ends.
///
/// - **Cost**: one read for each batch: its directory and the header after it. No block is read.
pub(crate) fn walk(file: &dyn Mappable, pack: PackId, end: u64) -> Result<Walked, WalkError> {
    let mut page = [0; PAGE];
    read(file, 0, &mut page)?;
    check_pack_header(&page, pack).map_err(at(0))?;

    let mut walked = Walked {
        entries: Vec::new(),
        batches: 0,
    };
    let mut offset = FIRST_BATCH;
    if offset < end {
        read(file, offset, &mut page)?;
    }
    while offset < end {
        let batch = Batch::decode(&page, pack, walked.batches, offset).map_err(at(offset))?;
        if batch.end() > end {
            return Err(at(offset)(
                "a batch is longer than what is known to be durable",
            ));
        }
        let directory = read_directory(file, &batch, end, &mut page)?;
        walked.entries.extend_from_slice(&directory);
        walked.batches += 1;
        offset = batch.end();
    }
    if offset > end {
        return Err(at(end)("no batch ends where the durable part does"));
    }
    Ok(walked)
}

/// Reads and checks a batch's directory, and into `next` the page after the batch where there is one.
fn read_directory(
    file: &dyn Mappable,
    batch: &Batch,
    end: u64,
    next: &mut [u8; PAGE],
) -> Result<Vec<Entry>, WalkError> {
    let from = batch.directory();
    let damaged = at(from);
    // Bounded: the batch ends before `end`, which the caller knows the file to reach.
    let count = usize::try_from(batch.entries).map_err(|_wide| damaged("too many entries"))?;
    let more = if batch.end() < end { PAGE_LEN } else { 0 };
    let len = usize::try_from(batch.end() - from + more).map_err(|_wide| damaged("too long"))?;
    let mut bytes = zeroed(len).ok_or_else(|| damaged("a directory does not fit into memory"))?;
    read(file, from, &mut bytes)?;

    let (directory, rest) = bytes.split_at(count * ENTRY);
    if crc32c::crc32c(directory) != batch.directory_crc {
        return Err(damaged("the checksum of a directory does not match"));
    }
    let entries = <[Entry]>::ref_from_bytes(directory).map_err(|_cast| damaged("cut short"))?;
    for (entry, place) in entries.iter().zip((from..).step_by(ENTRY)) {
        batch.check(entry).map_err(at(place))?;
    }
    if let Some(page) = rest.last_chunk::<PAGE>()
        && more != 0
    {
        next.copy_from_slice(page);
    }
    Ok(entries.to_vec())
}

fn read(file: &dyn Mappable, offset: u64, bytes: &mut [u8]) -> Result<(), WalkError> {
    file.read_at(offset, bytes)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => WalkError::Damaged {
                offset,
                flaw: "the file ends before its durable part does",
            },
            _ => WalkError::Io { offset, source },
        })
}
