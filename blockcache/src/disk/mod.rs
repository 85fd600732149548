//! The seam between segvm and files: what is asked of a file system, as one trait.
//!
//! Three implementations obey one conformance suite (`conformance.rs`): [`RealDisk`], [`MemDisk`], and
//! [`CrashDisk`], which keeps a live image (what the process sees) beside a durable one (what a power cut leaves),
//! tears writes, reorders what was not synced, and can fail any operation. The rooms above never open a file
//! themselves.
//!
//! Paths are absolute or relative to the process; a store passes its own paths down.

use std::{fmt, io, path::Path, sync::Arc};

use segvm_os::Mappable;

#[cfg(test)]
mod conformance;
mod crash;
mod lock;
mod locks;
mod mem;
mod real;

pub use crash::CrashDisk;
pub use mem::MemDisk;
pub use real::RealDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing, mode 0600.
    CreateNew,
    /// A file that is made where it is missing, for reading and writing, mode 0600.
    Create,
}

/// What a write does with the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PageCache {
    /// Goes past it (`O_DIRECT`) where offset, length and address are aligned to 4 KiB and the file system can: the
    /// memory is the program's.
    #[default]
    Bypass,
    /// Stays in it for those who read soon, as long as that is not slower than the disk; and the disk begins to write at
    /// once, so that a sync finds little to do.
    Keep,
}

/// Who holds a lock that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// The process; the caller's own where another part of it holds the lock.
    pub pid: u32,
}

/// The answer to a try for a lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is held until the value is dropped or this process dies; a forked child does not hold it.
    Held(Box<dyn Lock>),
    /// Somebody else holds it.
    Refused(LockHolder),
}

/// A lock that is held; dropping it releases it (in the process that took it; in a forked child it does nothing).
pub trait Lock: fmt::Debug + Send + Sync {}

/// What segvm asks of a file system.
///
/// - **Errors**: every `io::Error` is the kernel's, errno kept; callers add the path and the remedy.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file; see [`Open`].
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a directory and those above it, mode 0700; one that exists is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: after creating, renaming or removing a file in it.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The file names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Gives a file a new name, replacing what had it, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Tells whether a file or directory is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Tries at once for the lock that the file at `path` stands for, making the file where it is missing.
    ///
    /// The real one is `fcntl(F_SETLK)`: it dies with its process, and a forked child does not inherit it.
    /// A second try in one process is refused like any other.
    fn try_lock(&self, path: &Path) -> io::Result<LockAttempt>;

    /// The same for a share of the lock: any number may have one at a time, in this process and in others, while nobody
    /// has the lock itself. On a file system that cannot be written to, a share of a lock whose file is there.
    fn try_share(&self, path: &Path) -> io::Result<LockAttempt>;

    /// Tells who holds the lock that the file at `path` stands for, or a share of it, this process included; `None` where nobody does,
    /// or there is no such file. By the time it is told it may be otherwise.
    fn locked_by(&self, path: &Path) -> io::Result<Option<LockHolder>>;
}

/// An open file. All offsets and lengths are in bytes.
pub trait DiskFile: Mappable + Send + Sync {
    /// The file's length.
    fn len(&self) -> io::Result<u64>;

    /// Tells whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Writes all of `bytes` at `offset`, growing the file where needed. A short write is retried, then an error.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Says what later writes do with the page cache; answers whether they go past it.
    fn page_cache(&self, how: PageCache) -> bool;

    /// Reads as `read_at`, past the page cache where offset, length and address are aligned to 4 KiB and the file
    /// system can: to see what the disk has, and to leave the cache to those who need it.
    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }

    /// Sets disk space aside for the range without changing the file's length. Best effort where unsupported.
    ///
    /// - **Errors**: `StorageFull` where there is no room.
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts or extends the file. Never called on a pack that may be mapped.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes every earlier write of this file durable: data, and the length (`fdatasync`).
    fn sync(&self) -> io::Result<()>;

    /// This file as something to map.
    fn as_mappable(&self) -> &dyn Mappable;
}
