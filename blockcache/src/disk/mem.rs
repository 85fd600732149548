//! Files in memory: for tests, and for sessions that shall leave nothing behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::io::Errno;
use segvm_os::Mappable;

use super::{
    Disk, DiskFile, Lock, LockAttempt, LockHolder, Open, PageCache,
    locks::{Locks, Share},
};

/// A file system in memory; clones share it. What is written is "durable" at once: see
/// [`CrashDisk`](super::CrashDisk) for one that forgets.
#[derive(Clone, Default)]
pub struct MemDisk {
    /// A leaf in the order of locks, as each file's content is.
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<Content>>,
    dirs: BTreeSet<PathBuf>,
    locks: Locks,
}

#[derive(Default)]
struct Content(Mutex<Vec<u8>>);

impl MemDisk {
    /// An empty file system: `/` and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Names {
    fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.dirs.contains(path)
    }

    fn need_dir(&self, path: &Path) -> io::Result<()> {
        match (self.is_dir(path), self.files.contains_key(path)) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::NOTDIR.into()),
            (false, false) => Err(Errno::NOENT.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Content>> {
        match self.files.get(path) {
            Some(content) => Ok(Arc::clone(content)),
            None if self.is_dir(path) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<Arc<Content>> {
        self.need_dir(path.parent().unwrap_or(path))?;
        let content = Arc::<Content>::default();
        self.files.insert(path.to_owned(), Arc::clone(&content));
        Ok(content)
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.names.lock();
        let content = match (how, names.file(path)) {
            (Open::CreateNew, Ok(_)) => return Err(Errno::EXIST.into()),
            (_, Ok(content)) => content,
            (Open::CreateNew | Open::Create, Err(error))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                names.create(path)?
            }
            (_, Err(error)) => return Err(error),
        };
        Ok(Arc::new(MemFile {
            path: path.to_owned(),
            content,
            writable: how != Open::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        for dir in path.ancestors() {
            if names.files.contains_key(dir) {
                return Err(Errno::NOTDIR.into());
            }
        }
        names.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.names.lock().need_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = self.names.lock();
        names.need_dir(path)?;
        let inside = names.files.keys().chain(&names.dirs);
        Ok(inside
            .filter(|name| name.parent() == Some(path))
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let content = names.file(from)?;
        names.need_dir(to.parent().unwrap_or(to))?;
        if names.is_dir(to) {
            return Err(Errno::ISDIR.into());
        }
        names.files.remove(from);
        names.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        names.file(path)?;
        names.files.remove(path);
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let names = self.names.lock();
        Ok(names.is_dir(path) || names.files.contains_key(path))
    }

    fn try_lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.lock(path, Share::Alone)
    }

    fn try_share(&self, path: &Path) -> io::Result<LockAttempt> {
        self.lock(path, Share::Shared)
    }

    fn locked_by(&self, path: &Path) -> io::Result<Option<LockHolder>> {
        let locked = self.names.lock().locks.is_held(path);
        Ok(locked.then(|| LockHolder { pid: process::id() }))
    }
}

impl MemDisk {
    fn lock(&self, path: &Path, share: Share) -> io::Result<LockAttempt> {
        let mut names = self.names.lock();
        if names.file(path).is_err() {
            names.create(path)?;
        }
        if !names.locks.take(path, share) {
            let pid = process::id();
            return Ok(LockAttempt::Refused(LockHolder { pid }));
        }
        Ok(LockAttempt::Held(Box::new(MemLock {
            path: path.to_owned(),
            disk: self.clone(),
        })))
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.names.lock().files.keys())
            .finish()
    }
}

struct MemLock {
    path: PathBuf,
    disk: MemDisk,
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.names.lock().locks.give_back(&self.path);
    }
}

impl fmt::Debug for MemLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemLock({})", self.path.display())
    }
}

struct MemFile {
    path: PathBuf,
    content: Arc<Content>,
    writable: bool,
}

impl MemFile {
    fn change(&self) -> io::Result<parking_lot::MutexGuard<'_, Vec<u8>>> {
        if self.writable {
            Ok(self.content.0.lock())
        } else {
            Err(Errno::BADF.into())
        }
    }
}

impl Mappable for MemFile {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_from(&self.content.0.lock(), offset, buf)
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.0.lock().len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_to(&mut *self.change()?, offset, bytes)
    }

    fn page_cache(&self, _how: PageCache) -> bool {
        false
    }

    fn preallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.change().map(drop)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_huge| Errno::FBIG)?;
        self.change()?.resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn as_mappable(&self) -> &dyn Mappable {
        self
    }
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemFile({})", self.path.display())
    }
}

/// What `pread` of a whole buffer does, on bytes in memory.
pub(super) fn read_from(bytes: &[u8], offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let found = usize::try_from(offset)
        .ok()
        .and_then(|at| bytes.get(at..)?.get(..buf.len()))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    buf.copy_from_slice(found);
    Ok(())
}

/// What `pwrite` does, on bytes in memory: a gap is filled with zeros.
pub(super) fn write_to(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let at = usize::try_from(offset).map_err(|_huge| Errno::FBIG)?;
    let end = at.checked_add(bytes.len()).ok_or(Errno::FBIG)?;
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
    Ok(())
}
