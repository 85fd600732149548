//! Sealing: index and seal page, after which a pack never changes again.

use super::{
    buffer::{BUFFER, Buffer},
    format::{Entry, SEAL_AT, Seal, len64},
    index,
    io::Failure,
};
use crate::{disk::DiskFile, id::PackId};

/// Completes a pack whose batches are durable up to `batches_end`.
///
/// 1. The index is written behind the batches, over whatever an unfinished batch left there.
/// 2. The file is cut behind the index: this releases preallocated space. Nobody maps a pack that is not sealed.
/// 3. The seal page is written.
/// 4. One sync.
///
/// A power cut before the sync returned can leave a seal whose index is torn or cut short: then it is made again in
/// memory from the directories, which were durable before. The sync is what allows *other* images to share this
/// pack's blocks: they have no mark that would seal it again.
pub(crate) fn seal(
    file: &dyn DiskFile,
    pack: PackId,
    batches_end: u64,
    batches: u64,
    entries: &[Entry],
) -> Result<Seal, Failure> {
    let built = index::build(entries);
    let seal = Seal {
        pack,
        batches_end,
        batches,
        entries: built.entries,
        fanout_crc: built.fanout_crc,
    };

    // A short index does not pay for a long buffer.
    let mut buffer = Buffer::new(built.bytes.len().min(BUFFER));
    let mut at = batches_end;
    for piece in built.bytes.chunks(BUFFER) {
        buffer.reset(at);
        buffer.push(piece);
        write(file, &buffer)?;
        at = buffer.end();
    }
    file.set_len(seal.file_len())
        .map_err(|source| Failure::new("cut", seal.file_len(), 0, &source))?;
    buffer.reset(SEAL_AT);
    buffer.push(&seal.encode());
    write(file, &buffer)?;
    file.sync()
        .map_err(|source| Failure::new("sync", seal.file_len(), 0, &source))?;
    Ok(seal)
}

fn write(file: &dyn DiskFile, buffer: &Buffer) -> Result<(), Failure> {
    let bytes = buffer.filled();
    file.write_at(buffer.offset(), bytes)
        .map_err(|source| Failure::new("write", buffer.offset(), len64(bytes.len()), &source))
}
