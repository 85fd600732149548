//! The file system of this machine.
//!
//! Everything segvm reads from or writes to disk passes through this file, and nothing else opens one.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    fs::{FallocateFlags, FileType, OFlags, SeekFrom},
    io::Errno,
};
use segvm_os::Mappable;

use super::{Disk, DiskFile, LockAttempt, LockHolder, Open, PageCache, lock, locks::Share};

/// Direct writes are aligned to this in offset, length and address: enough for every device with sectors of 512 or
/// 4,096 bytes.
const DIRECT_ALIGN: usize = 4096;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        // std sets O_CLOEXEC and retries EINTR.
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::CreateNew => options.write(true).create_new(true),
            Open::Create => options.write(true).create(true),
        };
        let file = options.open(path)?;
        // By hand: std asks for all that is known of the file, which takes twice as long, and images are many.
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_dir() {
            return Err(Errno::ISDIR.into());
        }
        Ok(Arc::new(RealFile {
            path: path.to_owned(),
            file,
            direct: OnceLock::new(),
            direct_reads: OnceLock::new(),
            direct_refused: AtomicBool::new(false),
            keep: AtomicBool::new(false),
            kept: (AtomicU64::new(0), AtomicU64::new(0)),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // fsync, not fdatasync: POSIX promises names for the former only.
        directory(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry?.file_name().into_string().map_err(not_utf8);
        fs::read_dir(path)?.map(name).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn try_lock(&self, path: &Path) -> io::Result<LockAttempt> {
        lock::try_lock(path, Share::Alone)
    }

    fn try_share(&self, path: &Path) -> io::Result<LockAttempt> {
        lock::try_lock(path, Share::Shared)
    }

    fn locked_by(&self, path: &Path) -> io::Result<Option<LockHolder>> {
        lock::locked_by(path)
    }
}

fn directory(path: &Path) -> io::Result<File> {
    // The parent of a relative path of one part is the empty path.
    let here = path.as_os_str().is_empty();
    let path = if here { Path::new(".") } else { path };
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(path)
}

fn not_utf8(name: OsString) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the file name {name:?} is not UTF-8"),
    )
}

/// An open file of this machine.
struct RealFile {
    /// Where it was opened: to open it once more, and to say which one it is.
    path: PathBuf,
    /// The ordinary descriptor: every read, and whatever cannot be written past the page cache.
    file: File,
    /// A second descriptor of the same file with `O_DIRECT`: filled by the first `PageCache::Bypass`, `None` where the
    /// file system has no such thing.
    direct: OnceLock<Option<File>>,
    /// The same for reading, filled by the first `read_direct`.
    direct_reads: OnceLock<Option<File>>,
    /// Set when a well-aligned direct write or read was answered with EINVAL: some file systems accept the flag and refuse
    /// the write. A hint that pairs with nothing: a racing writer learns it once more by itself.
    direct_refused: AtomicBool,
    /// Whether writes are to stay in the page cache. A hint like the one before.
    keep: AtomicBool,
    /// Bytes that were written there, and the nanoseconds that took: only for deciding whether to go on.
    kept: (AtomicU64, AtomicU64),
}

impl RealFile {
    /// The descriptor that `bytes` at `offset` can be written through directly, where there is one.
    fn direct_for(&self, offset: u64, bytes: &[u8]) -> Option<&File> {
        let direct = self.direct.get()?.as_ref()?;
        if self.keep.load(Ordering::Relaxed) {
            return None;
        }
        (aligned(offset, bytes) && !self.direct_refused.load(Ordering::Relaxed)).then_some(direct)
    }

    /// Gives up on the page cache where filling it takes longer than disks do: a virtual machine may have to get each page
    /// from its host first (2 us seen), and memory may be short.
    fn judge_keeping(&self, len: u64, took: Duration) {
        const ENOUGH: u64 = 32 << 20;
        const SLOW_NANOS_PER_BYTE: u64 = 1;
        let (bytes, nanos) = &self.kept;
        let bytes = bytes.fetch_add(len, Ordering::Relaxed) + len;
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let nanos = nanos
            .fetch_add(took, Ordering::Relaxed)
            .saturating_add(took);
        if bytes >= ENOUGH && nanos > bytes.saturating_mul(SLOW_NANOS_PER_BYTE) {
            self.page_cache(PageCache::Bypass);
        }
    }

    fn open_direct(&self, options: &mut OpenOptions) -> Option<File> {
        let direct = options
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&self.path)
            .ok()?;
        // The name may have passed to another file meanwhile.
        let (ours, theirs) = (self.file.metadata().ok()?, direct.metadata().ok()?);
        ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())).then_some(direct)
    }
}

impl Mappable for RealFile {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        // Nothing here uses the place that this moves.
        Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let begun = Instant::now();
        let (first, len) = (offset, bytes.len() as u64);
        let (mut offset, mut rest) = (first, bytes);
        while !rest.is_empty() {
            // Chosen anew for each piece: after a short write the rest may no longer be aligned.
            let direct = self.direct_for(offset, rest);
            let wrote = match direct.unwrap_or(&self.file).write_at(rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => wrote,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if direct.is_some() && is(&error, Errno::INVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    continue;
                }
                Err(error) => return Err(error),
            };
            offset += wrote as u64;
            rest = rest.get(wrote..).unwrap_or_default();
        }
        if self.keep.load(Ordering::Relaxed) {
            // A hint: the sync that follows tells whether the disk wrote.
            let _sync_tells = segvm_os::begin_writeback(self.file.as_fd(), first, len);
            self.judge_keeping(len, begun.elapsed());
        }
        Ok(())
    }

    fn page_cache(&self, how: PageCache) -> bool {
        self.keep.store(how == PageCache::Keep, Ordering::Relaxed);
        let open = || self.open_direct(OpenOptions::new().write(true));
        how == PageCache::Bypass
            && self.direct.get_or_init(open).is_some()
            && !self.direct_refused.load(Ordering::Relaxed)
    }

    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, buf);
        while aligned(offset, rest) && !rest.is_empty() {
            let open = || self.open_direct(OpenOptions::new().read(true));
            let Some(direct) = self.direct_reads.get_or_init(open) else {
                break;
            };
            if self.direct_refused.load(Ordering::Relaxed) {
                break;
            }
            match direct.read_at(rest, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Short at the file's end, or for no reason: what is left may no longer be aligned.
                Ok(read) => {
                    offset += read as u64;
                    rest = rest.split_at_mut(read).1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is(&error, Errno::INVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        self.file.read_exact_at(rest, offset)
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        loop {
            return match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len) {
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                other => Ok(other?),
            };
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn as_mappable(&self) -> &dyn Mappable {
        self
    }
}

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RealFile({})", self.path.display())
    }
}

fn aligned(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(DIRECT_ALIGN as u64)
        && bytes.len().is_multiple_of(DIRECT_ALIGN)
        && bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
