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

use parking_lot::{RwLock, RwLockWriteGuard};
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Flock, FlockType},
};

use super::{Lock, LockAttempt, LockHolder, locks::Share};

/// Device and inode: what a file is, whatever its name.
type FileKey = (u64, u64);

/// The locks of this process, and of the process that it was forked from (told apart by pid).
///
/// A leaf in the order of locks. Held across `open` and `fcntl`, which do not wait for the lock: shared by those who only
/// look, and by one alone who takes a lock or gives it back.
static HELD: RwLock<Option<HashMap<FileKey, Held>>> = RwLock::new(None);

struct Held {
    pid: u32,
    /// How many in this process have a share of it; none where one holds it alone.
    shares: Option<usize>,
    /// All descriptors of the file in this process: closed with the lock, never before.
    files: Vec<File>,
}

/// How long to wait for another thread of this process that is trying for a lock: it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a lock that was refused and then turned out to be free is tried again.
const TRIES: usize = 64;

pub(super) fn try_lock(path: &Path, share: Share) -> io::Result<LockAttempt> {
    let pid = process::id();
    let mut guard = registry()?;
    let held = ours_alone(&mut guard, pid);
    match path.metadata() {
        Ok(found) => {
            let key = (found.dev(), found.ino());
            if let Some(lock) = held.get_mut(&key) {
                return Ok(again(lock, key, share));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = open(path, share)?;
    let opened = file.metadata()?;
    let key = (opened.dev(), opened.ino());
    if let Some(lock) = held.get_mut(&key) {
        // The name passed to a file that we hold, between the two looks: to close this descriptor would drop the lock.
        lock.files.push(file);
        return Ok(again(lock, key, share));
    }
    if let Some(holder) = refused(&file, share)? {
        return Ok(LockAttempt::Refused(holder));
    }
    let lock = Held {
        pid,
        shares: match share {
            Share::Alone => None,
            Share::Shared => Some(1),
        },
        files: vec![file],
    };
    held.insert(key, lock);
    Ok(LockAttempt::Held(Box::new(FileLock { key, pid })))
}

/// Tells who holds the lock, without ever holding it.
pub(super) fn locked_by(path: &Path) -> io::Result<Option<LockHolder>> {
    let pid = process::id();
    // Both guards are kept to the end: a lock that another thread takes meanwhile would go when the descriptor is closed.
    let guard = HELD.try_read_for(PATIENCE);
    let guard = guard.ok_or(io::ErrorKind::WouldBlock)?;
    let mut all = guard.iter().flat_map(HashMap::values);
    if !all.any(|lock| lock.pid == pid) {
        // Whoever looks at many images often holds none: then there is no lock that this descriptor could drop.
        return match File::open(path) {
            Ok(file) => holder(&file, FlockType::WriteLock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
    }
    drop(guard);
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
    holder(&file, FlockType::WriteLock)
}

/// The registry, or an error if it cannot be had. Bounded: in a child forked while another thread was in here, nobody
/// would ever leave.
fn registry() -> io::Result<RwLockWriteGuard<'static, Option<HashMap<FileKey, Held>>>> {
    let guard = HELD.try_write_for(PATIENCE);
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

/// Another try for what this process holds: only a share of what is shared is granted.
fn again(lock: &mut Held, key: FileKey, share: Share) -> LockAttempt {
    let pid = lock.pid;
    match (&mut lock.shares, share) {
        (Some(shares), Share::Shared) => {
            *shares += 1;
            LockAttempt::Held(Box::new(FileLock { key, pid }))
        }
        _ => LockAttempt::Refused(LockHolder { pid }),
    }
}

fn open(path: &Path, share: Share) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    match opened {
        // A share needs no writing.
        Err(error) if share == Share::Shared && is_read_only(&error) => File::open(path),
        other => other,
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

/// Tries for the lock: `None` when it is ours now, else who has it.
fn refused(file: &File, share: Share) -> io::Result<Option<LockHolder>> {
    let (operation, kind) = match share {
        Share::Alone => (
            FlockOperation::NonBlockingLockExclusive,
            FlockType::WriteLock,
        ),
        Share::Shared => (FlockOperation::NonBlockingLockShared, FlockType::ReadLock),
    };
    for _ in 0..TRIES {
        match rustix::fs::fcntl_lock(file, operation) {
            Ok(()) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(holder) = holder(file, kind)? {
            return Ok(Some(holder));
        }
        // Released between the two calls: try again.
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Which other process has what keeps a lock of this kind out.
fn holder(file: &File, kind: FlockType) -> io::Result<Option<LockHolder>> {
    let lock = rustix::process::fcntl_getlk(file, &Flock::from(kind))?;
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
        let mut guard = HELD.write();
        let Some(held) = guard.as_mut() else { return };
        match held.get_mut(&self.key).map(|lock| &mut lock.shares) {
            Some(Some(shares)) if *shares > 1 => *shares -= 1,
            // Closing the descriptors releases the lock.
            _ => drop(held.remove(&self.key)),
        }
    }
}
