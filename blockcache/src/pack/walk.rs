//! From header to header: what a pack holds, read without its blocks.

use std::io;

use segvm_os::Mappable;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{Batch, ENTRY, Entry, FIRST_BATCH, Flaw, PAGE, check_pack_header};
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
/// - **Cost**: two reads for each batch, a header and a directory. No block is read.
pub(crate) fn walk(file: &dyn Mappable, pack: PackId, end: u64) -> Result<Walked, WalkError> {
    let mut page = [0; PAGE];
    read(file, 0, &mut page)?;
    check_pack_header(&page, pack).map_err(at(0))?;

    let mut walked = Walked {
        entries: Vec::new(),
        batches: 0,
    };
    let mut offset = FIRST_BATCH;
    while offset < end {
        read(file, offset, &mut page)?;
        let batch = Batch::decode(&page, pack, walked.batches, offset).map_err(at(offset))?;
        if batch.end() > end {
            return Err(at(offset)(
                "a batch is longer than what is known to be durable",
            ));
        }
        read_directory(file, &batch, &mut walked.entries)?;
        walked.batches += 1;
        offset = batch.end();
    }
    if offset > end {
        return Err(at(end)("no batch ends where the durable part does"));
    }
    Ok(walked)
}

/// Appends the entries of a batch's directory, checked. The batch ends before the file does.
pub(crate) fn read_directory(
    file: &dyn Mappable,
    batch: &Batch,
    entries: &mut Vec<Entry>,
) -> Result<(), WalkError> {
    let from = batch.directory();
    let damaged = at(from);
    // Bounded: the batch ends before what the caller knows to be durable. Read to where they stay.
    let (before, count) = (
        entries.len(),
        usize::try_from(batch.entries).unwrap_or(usize::MAX),
    );
    entries
        .try_reserve(count)
        .map_err(|_alloc| damaged("a directory does not fit into memory"))?;
    entries.resize(before + count, Entry::new_zeroed());
    let entries = entries.split_at_mut(before).1;
    read(file, from, entries.as_mut_bytes())?;

    if crc32c::crc32c(entries.as_bytes()) != batch.directory_crc {
        return Err(damaged("the checksum of a directory does not match"));
    }
    for (entry, place) in entries.iter().zip((from..).step_by(ENTRY)) {
        batch.check(entry).map_err(at(place))?;
    }
    Ok(())
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
