//! `fcntl(F_SETLK)` as a lock that dies with its process and that a forked child does not inherit.
//!
//! These locks belong to the process, not to the descriptor. Hence two traps, both handled here:
//!
//! - closing **any** descriptor of the file drops the lock, so nothing else may open a lock file, and a second try
//!   in this process must be refused before it opens (and then closes) it;
//! - `fcntl` grants a second try of the same process, so what this process holds is kept in a registry.
//!
//! Rejected: `flock` and open-file-description locks, which a forked child keeps after its parent was killed.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    process,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Flock, FlockType},
};

use super::{Lock, LockAttempt, LockHolder};

/// Device and inode: what a file is, whatever its name.
type FileKey = (u64, u64);

/// The locks of this process, and of the process that it was forked from (told apart by pid).
///
/// A leaf in the order of locks. Held across `open` and `fcntl`, which do not wait for the lock.
static HELD: Mutex<Option<HashMap<FileKey, Held>>> = Mutex::new(None);

struct Held {
    pid: u32,
    /// All descriptors of the file in this process: closed with the lock, never before.
    files: Vec<File>,
}

/// How long to wait for another thread of this process that is trying for a lock: it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a lock that was refused and then turned out to be free is tried again.
const TRIES: usize = 64;

pub(super) fn try_lock(path: &Path) -> io::Result<LockAttempt> {
    let pid = process::id();
    let mut guard = registry()?;
    let held = ours_alone(&mut guard, pid);
    let ours = || LockAttempt::Refused(LockHolder { pid });
    match path.metadata() {
        Ok(found) if held.contains_key(&(found.dev(), found.ino())) => return Ok(ours()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let opened = file.metadata()?;
    let key = (opened.dev(), opened.ino());
    if let Some(lock) = held.get_mut(&key) {
        // The name passed to a file that we hold, between the two looks: to close this descriptor would drop the lock.
        lock.files.push(file);
        return Ok(ours());
    }
    if let Some(holder) = refused(&file)? {
        return Ok(LockAttempt::Refused(holder));
    }
    let files = vec![file];
    held.insert(key, Held { pid, files });
    Ok(LockAttempt::Held(Box::new(FileLock { key, pid })))
}

/// Tells who holds the lock, without ever holding it.
pub(super) fn locked_by(path: &Path) -> io::Result<Option<LockHolder>> {
    let pid = process::id();
    // Kept to the end: a lock that another thread takes meanwhile would go when the descriptor below is closed.
    let mut guard = registry()?;
    let held = ours_alone(&mut guard, pid);
    let file = match path.metadata() {
        Ok(found) if held.contains_key(&(found.dev(), found.ino())) => {
            return Ok(Some(LockHolder { pid }));
        }
        Ok(_) => OpenOptions::new().read(true).open(path),
        Err(error) => Err(error),
    };
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let opened = file.metadata()?;
    if let Some(lock) = held.get_mut(&(opened.dev(), opened.ino())) {
        // As in `try_lock`.
        lock.files.push(file);
        return Ok(Some(LockHolder { pid }));
    }
    holder(&file)
}

/// The registry, or an error if it cannot be had. Bounded: in a child forked while another thread was in here, nobody
/// would ever leave.
fn registry() -> io::Result<MutexGuard<'static, Option<HashMap<FileKey, Held>>>> {
    let guard = HELD.try_lock_for(PATIENCE);
    Ok(guard.ok_or(io::ErrorKind::WouldBlock)?)
}

/// What this process holds. What a parent held before the fork is not ours: closing these here drops no lock but our
/// own, of which there are none.
fn ours_alone(
    registry: &mut Option<HashMap<FileKey, Held>>,
    pid: u32,
) -> &mut HashMap<FileKey, Held> {
    let held = registry.get_or_insert_with(HashMap::new);
    held.retain(|_, lock| lock.pid == pid);
    held
}

/// Tries for the lock: `None` when it is ours now, else who has it.
fn refused(file: &File) -> io::Result<Option<LockHolder>> {
    for _ in 0..TRIES {
        match rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(holder) = holder(file)? {
            return Ok(Some(holder));
        }
        // Released between the two calls: try again.
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Which other process has the lock.
fn holder(file: &File) -> io::Result<Option<LockHolder>> {
    let lock = rustix::process::fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    // 0: a process in another pid namespace, or on another machine that shares the file system.
    Ok(lock.map(|lock| LockHolder {
        pid: lock.pid.map_or(0, |pid| pid.as_raw_pid().unsigned_abs()),
    }))
}

#[derive(Debug)]
struct FileLock {
    key: FileKey,
    /// The process that took it.
    pid: u32,
}

impl Lock for FileLock {}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A forked child holds nothing, and may not even wait for the registry: a thread that the fork did not copy
        // may have been inside it.
        if process::id() != self.pid {
            return;
        }
        // Closing the descriptors releases the lock.
        if let Some(held) = HELD.lock().as_mut() {
            held.remove(&self.key);
        }
    }
}
