//! An image of a directory home while the turn is held: its log's end, its newest grant, and who is alive.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Lock, LockAttempt, Open},
};

use super::{
    append::Place,
    grant::{LeaseFile, LeaseFileError, LeaseRecord},
    log::{LogError, LogFile, Tail},
    turn::{NoTurn, Turn},
};
use crate::{
    error::{AcquireError, HomeError, PublishError},
    home::Holder,
    lease::{CommitRefusal, Grant, State, Token},
    name::ImageName,
    time::Timestamp,
};

/// Everything about an image that only who has the turn may rely on.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) place: Place,
    pub(super) file: LeaseFile,
    pub(super) log: Option<LogFile>,
    pub(super) tail: Tail,
    granted: Option<LeaseRecord>,
    _turn: Turn,
}

/// The writer's lock.
#[derive(Debug)]
pub(super) enum WriterLock {
    /// Nobody had it: it is ours now.
    Ours(Box<dyn Lock>),
    /// This process has it; 0 where it cannot be seen from here.
    Theirs(u32),
}

/// Why one cannot get inside.
#[derive(Debug)]
pub(super) enum EnterError {
    Turn(NoTurn),
    Io(PathBuf, io::Error),
    File(LeaseFileError),
    Log(LogError),
}

impl Inside {
    /// Waits for the turn at an image, which need not exist yet.
    pub(super) fn enter(
        disk: &dyn Disk,
        place: Place,
        patience: Duration,
    ) -> Result<Self, EnterError> {
        if let Err(source) = disk.create_dir_all(&place.dir) {
            return Err(EnterError::Io(place.dir, source));
        }
        let turn = Turn::take(disk, &place.dir, patience)?;
        let file = LeaseFile::open(disk, &place.dir)?;
        let granted = file.read()?;
        let log = match LogFile::find(disk, &place.path, Open::Write) {
            Ok(log) => log,
            Err(source) => return Err(EnterError::Io(place.path, source)),
        };
        let tail = log.as_ref().map(LogFile::tail).transpose()?;
        Ok(Self {
            place,
            file,
            log,
            tail: tail.unwrap_or_default(),
            granted,
            _turn: turn,
        })
    }

    /// Tries for the lock that the holder of the newest grant has as long as it lives.
    pub(super) fn try_lock(&self, disk: &dyn Disk) -> Result<WriterLock, EnterError> {
        self.try_lock_of(disk, self.lock())
    }

    /// Which lock that is.
    pub(super) fn lock(&self) -> u64 {
        self.granted.as_ref().map_or(0, |record| record.lock)
    }

    pub(super) fn lock_path(&self, number: u64) -> PathBuf {
        lock_path(&self.place.dir, number)
    }

    pub(super) fn try_lock_of(&self, disk: &dyn Disk, lock: u64) -> Result<WriterLock, EnterError> {
        let path = self.lock_path(lock);
        match disk.try_lock(&path) {
            Ok(LockAttempt::Held(lock)) => Ok(WriterLock::Ours(lock)),
            Ok(LockAttempt::Refused(by)) => Ok(WriterLock::Theirs(by.pid)),
            Err(source) => Err(EnterError::Io(path, source)),
        }
    }

    /// Who holds another of the image's locks than number `own`: those who were stolen from and live. Deletes the locks of
    /// those who do not.
    pub(super) fn others(&self, disk: &dyn Disk, own: u64) -> Result<Vec<u32>, EnterError> {
        let dir = &self.place.dir;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EnterError::Io(path, source)
        };
        let mut alive = Vec::new();
        for name in disk.list(dir).map_err(failed(dir))? {
            let Some(number) = lock_number(&name).filter(|number| *number != own) else {
                continue;
            };
            let path = self.lock_path(number);
            match disk.locked_by(&path).map_err(failed(&path))? {
                Some(holder) => alive.push(holder.pid),
                None if number == 0 => {}
                None => {
                    // A file that stays behind is empty, and is looked at again.
                    let _stays = disk.remove(&path);
                }
            }
        }
        Ok(alive)
    }

    /// What the rules start from, where `holder` is alive: the process that has the lock.
    pub(super) fn held_by(&self, holder: u32) -> State {
        let (head, fenced) = (self.head(), self.fenced());
        let token = self.granted.as_ref().map(|record| record.grant.token);
        let grant = Grant {
            token: token.unwrap_or(self.last()),
            holder: self.holder(holder),
        };
        State::held(head, grant, fenced)
    }

    /// Who process `pid` is, that has the lock.
    pub(super) fn holder(&self, pid: u32) -> Holder {
        let known = self.granted.as_ref().map(|record| record.grant.clone());
        holder(known, pid)
    }

    /// What the rules start from, where nobody has the lock.
    pub(super) fn free(&self) -> State {
        let (head, fenced) = (self.head(), self.fenced());
        match &self.granted {
            // The log knows of a later one: the file's last writes were lost with the power.
            Some(record) if record.grant.token >= self.last() => {
                State::over(head, record.grant.clone(), fenced)
            }
            _ => State::recovered(head, self.last(), fenced),
        }
    }

    fn head(&self) -> Option<CommitId> {
        let head = self.tail.head.as_ref();
        head.map(|head| head.record.commit_id)
    }

    /// The highest token that may have been granted: as the file says, or the newest record.
    fn last(&self) -> Token {
        let file = self.granted.as_ref().map(|record| record.grant.token);
        let log = self.tail.head.as_ref().map(|head| head.record.token);
        file.max(log).unwrap_or_default()
    }

    fn fenced(&self) -> Token {
        let file = self.granted.as_ref().map(|record| record.fenced);
        file.unwrap_or_default()
    }
}

/// The lock with a number: which one the holder of a grant has.
pub(super) fn lock_path(dir: &Path, number: u64) -> PathBuf {
    match number {
        0 => dir.join("lock"),
        n => dir.join(format!("lock-{n}")),
    }
}

/// The number of a lock by its file's name.
fn lock_number(name: &str) -> Option<u64> {
    match name {
        "lock" => Some(0),
        _ => name.strip_prefix("lock-")?.parse().ok(),
    }
}

/// Who process `pid` is, that has the lock. A file that tells of another process was not written by it. A lock of
/// process 0 is held where it cannot be seen, and the file is all there is.
pub(super) fn holder(granted: Option<Grant>, pid: u32) -> Holder {
    let known = granted.map(|grant| grant.holder);
    let known = known.filter(|holder| pid == 0 || holder.pid == pid);
    known.unwrap_or_else(|| Holder {
        pid,
        host: "an unknown host".to_owned(),
        program: "an unknown program".to_owned(),
        since: Timestamp::default(),
    })
}

impl From<NoTurn> for EnterError {
    fn from(error: NoTurn) -> Self {
        Self::Turn(error)
    }
}

impl From<LeaseFileError> for EnterError {
    fn from(error: LeaseFileError) -> Self {
        Self::File(error)
    }
}

impl From<LogError> for EnterError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

pub(super) fn acquire_error(image: &ImageName, error: EnterError) -> AcquireError {
    match error {
        EnterError::Turn(NoTurn::Busy(pid)) => AcquireError::Busy {
            image: image.clone(),
            pid,
        },
        EnterError::Turn(NoTurn::Io(path, source)) | EnterError::Io(path, source) => {
            AcquireError::Io { path, source }
        }
        EnterError::File(error) => error.into(),
        EnterError::Log(error) => error.into(),
    }
}

/// For the operations that change an image beside its line of commits: `busy` says that another process is in the middle
/// of a change.
pub(super) fn change_error<E: From<HomeError>>(
    error: EnterError,
    busy: impl FnOnce(u32) -> E,
) -> E {
    match error {
        EnterError::Turn(NoTurn::Busy(pid)) => busy(pid),
        EnterError::Turn(NoTurn::Io(path, source)) | EnterError::Io(path, source) => {
            HomeError::Io { path, source }.into()
        }
        EnterError::File(error) => HomeError::from(error).into(),
        EnterError::Log(error) => HomeError::from(error).into(),
    }
}

pub(super) fn publish_error(image: &ImageName, error: EnterError) -> PublishError {
    match error {
        EnterError::Turn(NoTurn::Busy(pid)) => PublishError::Busy {
            image: image.clone(),
            pid,
        },
        EnterError::Turn(NoTurn::Io(path, source)) | EnterError::Io(path, source) => {
            PublishError::Io {
                image: image.clone(),
                path,
                source,
            }
        }
        EnterError::File(error) => error.into(),
        EnterError::Log(error) => error.into(),
    }
}

pub(super) fn held(image: &ImageName, grant: Grant) -> AcquireError {
    let holder = grant.holder;
    AcquireError::Held {
        image: image.clone(),
        pid: holder.pid,
        host: holder.host,
        program: holder.program,
        since: known(holder.since),
    }
}

pub(super) fn refused(
    image: &ImageName,
    base: Option<CommitId>,
    refusal: CommitRefusal,
) -> PublishError {
    let image = image.clone();
    match refusal {
        CommitRefusal::Held(Grant { holder, .. }) => PublishError::Held {
            image,
            pid: holder.pid,
            host: holder.host,
            program: holder.program,
            since: known(holder.since),
        },
        CommitRefusal::Orphaned(orphan) => match orphan.newest {
            Some(Grant { token, holder }) if token != orphan.token => PublishError::Orphaned {
                image,
                pid: holder.pid,
                host: holder.host,
                program: holder.program,
                since: known(holder.since),
            },
            _ => PublishError::Moved {
                image,
                base,
                head: orphan.head,
            },
        },
        CommitRefusal::Moved { base, head } => PublishError::Moved { image, base, head },
        // Only a hand-over is refused so, and a directory home has none.
        CommitRefusal::Lapsed { .. } => PublishError::Moved {
            image,
            base,
            head: None,
        },
    }
}

/// Nobody has held an image since 1970: that is a time which is not known.
pub(super) fn known(since: Timestamp) -> Option<Timestamp> {
    (since != Timestamp::default()).then_some(since)
}
