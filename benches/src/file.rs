//! How an expert moves memory to a file and back.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, OFlags, fallocate, fdatasync};

use crate::{
    error::BenchError,
    memory::{PAGE, Plain, View},
};

/// The size at which this kind of disk is as fast as it gets.
pub const CHUNK: usize = 1 << 20;

/// Writes memory past the page cache, [`CHUNK`] by chunk, and makes it durable.
///
/// - **Durable**: on `Ok`, the data.
/// - **Errors**: [`BenchError::File`], also where the file system knows no direct I/O.
pub fn write_direct(path: &Path, memory: View<'_>) -> Result<Duration, BenchError> {
    let begun = Instant::now();
    let file = create_direct(path, memory.len())?;
    for offset in (0..memory.len()).step_by(CHUNK) {
        let len = CHUNK.min(memory.len() - offset);
        memory
            .write_to(&file, offset, len, offset as u64)
            .map_err(BenchError::file("write directly to", path))?;
    }
    fdatasync(&file).map_err(BenchError::file("sync", path))?;
    Ok(begun.elapsed())
}

/// Makes a file for direct writes, its space allocated beforehand and its size left to grow.
///
/// - **Errors**: [`BenchError::File`].
pub fn create_direct(path: &Path, len: usize) -> Result<File, BenchError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(path)
        .map_err(BenchError::file("create for direct writes", path))?;
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len as u64)
        .map_err(BenchError::file("allocate", path))?;
    Ok(file)
}

/// Writes memory through the page cache, where it stays, and makes it durable.
///
/// - **Durable**: on `Ok`.
/// - **Errors**: [`BenchError::File`].
pub fn write_buffered(path: &Path, memory: View<'_>) -> Result<Duration, BenchError> {
    let begun = Instant::now();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(BenchError::file("create", path))?;
    for offset in (0..memory.len()).step_by(CHUNK) {
        let len = CHUNK.min(memory.len() - offset);
        memory
            .write_to(&file, offset, len, offset as u64)
            .map_err(BenchError::file("write", path))?;
    }
    file.sync_all().map_err(BenchError::file("sync", path))?;
    Ok(begun.elapsed())
}

/// Makes a file of incompressible bytes that lies in the page cache and on disk.
///
/// - **Errors**: [`BenchError::File`].
pub fn create_warm(path: &Path, len: usize, seed: u64) -> Result<(), BenchError> {
    let chunk = Plain::new(CHUNK, crate::memory::Pages::Default)?;
    let mut file = File::create_new(path).map_err(BenchError::file("create", path))?;
    let mut bytes = vec![0; CHUNK];
    for at in 0..len / CHUNK {
        chunk.view().fill(seed.wrapping_add(at as u64));
        chunk.view().copy_to(&mut bytes);
        file.write_all(&bytes)
            .map_err(BenchError::file("write", path))?;
    }
    file.sync_all().map_err(BenchError::file("sync", path))
}

/// Maps the whole of a file privately.
///
/// - **Errors**: [`BenchError::File`], [`BenchError::Kernel`].
pub fn map(path: &Path) -> Result<Plain, BenchError> {
    let file = File::open(path).map_err(BenchError::file("open", path))?;
    let len = file
        .metadata()
        .map_err(BenchError::file("look at", path))?
        .len();
    let len = usize::try_from(len).unwrap_or(usize::MAX) / PAGE * PAGE;
    Plain::private(&file, len)
}

impl View<'_> {
    /// Writes `len` bytes from `offset` to a place in a file, straight from this memory.
    ///
    /// - **Errors**: the write's own; a short write is continued.
    /// - **Panics**: if the bytes are not inside the memory.
    pub fn write_to(
        self,
        file: &File,
        offset: usize,
        len: usize,
        place: u64,
    ) -> std::io::Result<()> {
        // SAFETY: the rows that write from memory to files do so while no thread writes to it, and the
        // slice does not outlive this call.
        let bytes = unsafe { self.bytes(offset, len) };
        file.write_all_at(bytes, place)
    }

    /// Copies the first bytes out.
    ///
    /// - **Panics**: if there are fewer than that.
    pub fn copy_to(self, out: &mut [u8]) {
        // SAFETY: as in `write_to`.
        let bytes = unsafe { self.bytes(0, out.len()) };
        out.copy_from_slice(bytes);
    }
}
