//! A disk that forgets, tears and fails: for showing that what was promised survives.
//!
//! ```text
//!   write_at, rename, ...  ->  live image      what the process sees
//!                                 |  sync, sync_dir
//!                                 v
//!                              durable image   what a power cut leaves, with any part of what is between
//! ```
//!
//! After a [`crash`](CrashDisk::crash) everything that was synced is there. Of the rest, each sector of 512 bytes of
//! each write, each change of a file's length and each change of a name is there or not, by the dice: so writes
//! are torn and reordered, and a name may be missing whose file was synced. Faults are said beforehand:
//! [`fail_operation`](CrashDisk::fail_operation), [`power_off_at`](CrashDisk::power_off_at),
//! [`fill_after`](CrashDisk::fill_after), [`fail_reads`](CrashDisk::fail_reads). One seed gives one outcome.

mod dice;
mod file;
mod inode;
mod names;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::io::Errno;

use self::{
    dice::Dice,
    file::CrashFile,
    inode::Inode,
    names::{Ino, Names, Step, Tree},
};
use super::{
    Disk, DiskFile, Lock, LockAttempt, LockHolder, Open,
    locks::{Locks, Share},
};

/// A disk in memory whose content after a crash is one of those that the kernel allows. Clones share it.
#[derive(Clone)]
pub struct CrashDisk {
    /// A leaf in the order of locks.
    state: Arc<Mutex<State>>,
}

struct State {
    names: Names,
    /// By number; a file without a name stays, as its descriptors may.
    inodes: Vec<Inode>,
    locks: Locks,
    dice: Dice,
    /// How many operations that change the disk were begun.
    operations: u64,
    faults: Faults,
}

#[derive(Default)]
struct Faults {
    power_off_at: Option<u64>,
    /// Operation and errno.
    fail: Vec<(u64, Errno)>,
    /// How many more bytes can be written before the disk is full.
    room: Option<usize>,
    reads: Vec<(Ino, Range<u64>)>,
}

/// What becomes of an operation.
enum Verdict {
    Works,
    /// It fails and has no effect, or (a write, a sync) a part of it.
    Fails(Errno),
    /// The power goes off while it runs: it may reach the disk, and nobody is told.
    Cut,
}

/// What an operation answers when there is no power: the process should be dead.
const NO_POWER: Errno = Errno::NODEV;

impl CrashDisk {
    /// An empty disk; `seed` decides every outcome.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(Names::default(), Vec::new(), seed)
    }

    fn with(names: Names, inodes: Vec<Inode>, seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                names,
                inodes,
                locks: Locks::default(),
                dice: Dice::new(seed),
                operations: 0,
                faults: Faults::default(),
            })),
        }
    }

    /// Cuts the power: a new disk with one of the contents that may be left, no locks and no faults.
    ///
    /// This disk stays as it is, and may be asked again for another outcome.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state.lock();
        let State {
            names,
            inodes,
            dice,
            ..
        } = &mut *state;
        let luck = dice.luck();
        let tree = names.after_crash(dice, luck);
        let inodes = inodes
            .iter()
            .map(|inode| {
                let luck = dice.luck();
                Inode::from(inode.after_crash(dice, luck))
            })
            .collect();
        let seed = dice.next();
        Self::with(Names::settled(tree), inodes, seed)
    }

    /// How many operations that change the disk were begun: creating, making directories, renaming, removing,
    /// writing, cutting, preallocating, syncing, taking a lock.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// How many values refer to this disk: clones, open files and locks that are held.
    #[must_use]
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.state)
    }

    /// Cuts the power in the middle of operation `at`, counted from 0 at the disk's beginning: it and all later
    /// operations, reads included, answer `ENODEV`.
    pub fn power_off_at(&self, at: u64) {
        self.state.lock().faults.power_off_at = Some(at);
    }

    /// Makes operation `at` fail with `errno`. A write has then written some of its bytes; a sync has lost, for good,
    /// some of what was not synced before, although the process goes on seeing it.
    ///
    /// - **Panics**: if `errno` is not an error number (the test's constant).
    pub fn fail_operation(&self, at: u64, errno: i32) {
        assert!((1..4096).contains(&errno), "{errno} is no error number");
        let errno = Errno::from_raw_os_error(errno);
        self.state.lock().faults.fail.push((at, errno));
    }

    /// Leaves room for `bytes` more: the write that goes beyond writes what fits and fails with `ENOSPC`, as a
    /// preallocation beyond does. `None`: there is room again.
    pub fn fill_after(&self, bytes: Option<usize>) {
        self.state.lock().faults.room = bytes;
    }

    /// Makes reads that touch `range` of the file at `path` fail with `EIO`, now and later.
    ///
    /// - **Errors**: `NotFound` where there is no such file.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state.lock();
        let ino = state.file(path)?;
        state.faults.reads.push((ino, range));
        Ok(())
    }

    /// Damages a range of the file at `path`: every bit in it is flipped.
    ///
    /// - **Errors**: `NotFound` where there is no such file.
    pub fn flip(&self, path: &Path, range: Range<usize>) -> io::Result<()> {
        let mut state = self.state.lock();
        let ino = state.file(path)?;
        state.inode(ino)?.flip(range);
        Ok(())
    }
}

impl State {
    /// Counts an operation that changes the disk, and says what becomes of it.
    fn begin(&mut self) -> io::Result<Verdict> {
        self.powered()?;
        let this = self.operations;
        self.operations += 1;
        if self.faults.power_off_at == Some(this) {
            return Ok(Verdict::Cut);
        }
        let fault = self.faults.fail.iter().find(|(at, _)| *at == this);
        Ok(fault.map_or(Verdict::Works, |&(_, errno)| Verdict::Fails(errno)))
    }

    fn powered(&self) -> io::Result<()> {
        match self.faults.power_off_at {
            Some(at) if self.operations > at => Err(NO_POWER.into()),
            _ => Ok(()),
        }
    }

    /// Changes names in one step that happens, or does not, or nobody knows.
    fn rename_step(&mut self, step: Step) -> io::Result<()> {
        match self.begin()? {
            Verdict::Works => {
                self.names.step(step);
                Ok(())
            }
            Verdict::Fails(errno) => Err(errno.into()),
            Verdict::Cut => {
                self.names.step(step);
                Err(NO_POWER.into())
            }
        }
    }

    fn file(&self, path: &Path) -> io::Result<Ino> {
        match self.names.live.files.get(path) {
            Some(ino) => Ok(*ino),
            None if self.names.live.is_dir(path) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn inode(&mut self, ino: Ino) -> io::Result<&mut Inode> {
        Ok(self.inodes.get_mut(ino).ok_or(Errno::STALE)?)
    }

    fn need_dir(&self, path: &Path) -> io::Result<()> {
        if self.names.live.is_dir(path) {
            Ok(())
        } else if self.names.live.files.contains_key(path) {
            Err(Errno::NOTDIR.into())
        } else {
            Err(Errno::NOENT.into())
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<Ino> {
        self.need_dir(path.parent().unwrap_or(path))?;
        let ino = self.inodes.len();
        self.inodes.push(Inode::default());
        self.rename_step(Step::Create(path.to_owned(), ino))?;
        Ok(ino)
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.powered()?;
        let ino = match (how, state.file(path)) {
            (Open::CreateNew, Ok(_)) => return Err(Errno::EXIST.into()),
            (_, Ok(ino)) => ino,
            (Open::CreateNew | Open::Create, Err(error))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                state.create(path)?
            }
            (_, Err(error)) => return Err(error),
        };
        let writable = how != Open::Read;
        Ok(Arc::new(CrashFile::new(self, path, ino, writable)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let missing = |tree: &Tree, dir: &&Path| !tree.is_dir(dir);
        let live = &state.names.live;
        if path.ancestors().any(|dir| live.files.contains_key(dir)) {
            return Err(Errno::NOTDIR.into());
        }
        let dirs = path.ancestors().filter(|dir| missing(live, dir));
        let dirs: Vec<PathBuf> = dirs.map(Path::to_owned).collect();
        for dir in dirs.into_iter().rev() {
            state.rename_step(Step::MakeDir(dir))?;
        }
        state.powered()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.need_dir(path)?;
        match state.begin()? {
            Verdict::Works => {
                state.names.sync(path);
                Ok(())
            }
            Verdict::Fails(errno) => Err(errno.into()),
            Verdict::Cut => Err(NO_POWER.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.powered()?;
        state.need_dir(path)?;
        let Tree { files, dirs } = &state.names.live;
        Ok(files
            .keys()
            .chain(dirs)
            .filter(|name| name.parent() == Some(path))
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let ino = state.file(from)?;
        state.need_dir(to.parent().unwrap_or(to))?;
        if state.names.live.is_dir(to) {
            return Err(Errno::ISDIR.into());
        }
        state.rename_step(Step::Rename(from.to_owned(), to.to_owned(), ino))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.file(path)?;
        state.rename_step(Step::Remove(path.to_owned()))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        state.powered()?;
        Ok(state.names.live.is_dir(path) || state.names.live.files.contains_key(path))
    }

    fn try_lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.lock(path, Share::Alone)
    }

    fn try_share(&self, path: &Path) -> io::Result<LockAttempt> {
        self.lock(path, Share::Shared)
    }

    fn locked_by(&self, path: &Path) -> io::Result<Option<LockHolder>> {
        let state = self.state.lock();
        state.powered()?;
        let locked = state.locks.is_held(path);
        Ok(locked.then(|| LockHolder { pid: process::id() }))
    }
}

impl CrashDisk {
    fn lock(&self, path: &Path, share: Share) -> io::Result<LockAttempt> {
        let mut state = self.state.lock();
        state.powered()?;
        if state.file(path).is_err() {
            state.create(path)?;
        }
        if !state.locks.take(path, share) {
            let pid = process::id();
            return Ok(LockAttempt::Refused(LockHolder { pid }));
        }
        Ok(LockAttempt::Held(Box::new(CrashLock {
            path: path.to_owned(),
            disk: self.clone(),
        })))
    }
}

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("CrashDisk")
            .field("files", &state.names.live.files.keys())
            .field("operations", &state.operations)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct CrashLock {
    path: PathBuf,
    disk: CrashDisk,
}

impl Lock for CrashLock {}

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.give_back(&self.path);
    }
}
