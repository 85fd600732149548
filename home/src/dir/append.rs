//! Adds records to an image's log, one at a time, each durable before the next. Who may is decided before.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Open},
};

use super::{
    frame::{self, Frame, MARK_MAX, Parts},
    log::{Backwards, FIRST, LogFile, STEP, Tail},
    names, remove,
};
use crate::{
    commit::Commit,
    error::PublishError,
    home::{Log, Record},
    lease::Token,
    name::ImageName,
};

/// Where an image's log is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) image: ImageName,
    /// The image's directory.
    pub(super) dir: PathBuf,
    pub(super) path: PathBuf,
    /// The directories that name the image's directory, innermost first.
    pub(super) above: [PathBuf; 2],
}

/// The end of a log that nobody else adds to meanwhile.
#[derive(Debug)]
pub(super) struct Appender {
    disk: Arc<dyn Disk>,
    place: Place,
    /// `None` until the first record of a new image makes it.
    log: Option<LogFile>,
    tail: Tail,
    health: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Somebody else wrote the head, and perhaps failed to sync it: what is read may be in memory alone.
    HeadUnproven,
    /// The head was synced here, or there is none.
    Sound,
    /// A sync failed: what is read says nothing about what is on disk.
    Poisoned,
}

/// A commit that can be written.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) commit_id: CommitId,
    commit: &'a Commit,
    bytes: Vec<u8>,
    mark: &'a [u8],
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        image: &ImageName,
        commit: &'a Commit,
        mark: &'a [u8],
    ) -> Result<Self, PublishError> {
        if mark.len() > MARK_MAX {
            return Err(PublishError::Mark {
                image: image.clone(),
                got: mark.len(),
                max: MARK_MAX,
            });
        }
        let bytes = commit.encode().map_err(|source| PublishError::Invalid {
            image: image.clone(),
            source,
        })?;
        Ok(Self {
            commit_id: CommitId::of(&bytes),
            commit,
            bytes,
            mark,
        })
    }

    /// Tells whether `record` says all that this would.
    pub(super) fn is(&self, record: Option<&Record>) -> bool {
        record.is_some_and(|record| record.commit_id == self.commit_id && record.mark == self.mark)
    }
}

/// How long a log is made whose records end at `end`. One of a few records is short, because images are many; a
/// long one rarely has to grow.
fn with_room_ahead(end: u64) -> u64 {
    if end <= STEP as u64 {
        end.next_power_of_two().max(FIRST as u64)
    } else {
        end.next_multiple_of(STEP as u64)
    }
}

impl Appender {
    pub(super) fn new(disk: Arc<dyn Disk>, place: Place, log: Option<LogFile>, tail: Tail) -> Self {
        Self {
            disk,
            place,
            log,
            tail,
            health: Health::HeadUnproven,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn head(&self) -> Option<&Record> {
        self.tail.head.as_ref().map(|frame| &frame.record)
    }

    pub(super) fn log(&self) -> Log {
        match &self.log {
            Some(log) => Box::new(Backwards::from(log.clone(), self.tail.head.clone())),
            None => Box::new(std::iter::empty()),
        }
    }

    pub(super) fn check_sound(&self) -> Result<(), PublishError> {
        match self.health {
            Health::Poisoned => Err(PublishError::Poisoned {
                image: self.place.image.clone(),
            }),
            Health::HeadUnproven | Health::Sound => Ok(()),
        }
    }

    /// Adds a record as the newest.
    ///
    /// - **Durable**: on `Ok`, yes.
    /// - **Source**: docs/format.md 7.6.
    pub(super) fn append(
        &mut self,
        prepared: &Prepared<'_>,
        token: Token,
    ) -> Result<CommitId, PublishError> {
        self.check_sound()?;
        let (seq, previous) = match &self.tail.head {
            Some(head) => (head.record.seq + 1, head.len),
            None => (0, 0),
        };
        let offset = self.tail.end();
        let frame = frame::encode(Parts {
            seq,
            offset,
            previous,
            mark: prepared.mark,
            commit: &prepared.bytes,
            token,
        });

        // The store has synced what the commit names before it calls this, and the turn is ours. Then:
        // 1. The file, its name and the names of its directories are durable (a new image only).
        let log = self.log_file()?;
        // 2. Rubble of an earlier append is gone, and there is room ahead, all zeros.
        self.make_room(&log, offset, frame.len())?;
        // 3. The head before it is durable, where another process left it.
        self.prove_head(&log)?;
        // 4. The record.
        if let Err(source) = log.file.write_at(offset, &frame) {
            self.retract(&log, offset, frame.len());
            return Err(self.write_failed(offset, frame.len(), source));
        }
        // 5. One sync for it and the room ahead.
        if let Err(source) = log.file.sync() {
            self.health = Health::Poisoned;
            self.retract(&log, offset, frame.len());
            return Err(self.sync_failed(&log.path, source));
        }
        // 6. Only now is it the head.
        self.tail.head = Some(Frame {
            offset,
            len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            previous,
            record: Record {
                seq,
                commit_id: prepared.commit_id,
                commit: prepared.commit.clone(),
                mark: prepared.mark.to_vec(),
                token,
            },
        });
        self.health = Health::Sound;
        Ok(prepared.commit_id)
    }

    fn log_file(&mut self) -> Result<LogFile, PublishError> {
        if let Some(log) = &self.log {
            if self.tail.head.is_none() {
                // Made once, perhaps by a process that died before its name was durable.
                self.sync_names()?;
            }
            return Ok(log.clone());
        }
        // An image of this name may have been removed before, and not have been cleared away when the power went.
        if let Err((path, source)) = remove::clear(&*self.disk, &self.place.dir) {
            let image = self.place.image.clone();
            return Err(PublishError::Io {
                image,
                path,
                source,
            });
        }
        let path = self.place.path.clone();
        let file = match self.disk.open(&path, Open::Create) {
            Ok(file) => file,
            Err(source) => return Err(self.write_failed(0, 0, source)),
        };
        let log = LogFile { path, file };
        self.sync_names()?;
        self.log = Some(log.clone());
        Ok(log)
    }

    fn sync_names(&self) -> Result<(), PublishError> {
        match names::sync(&*self.disk, &self.place) {
            Ok(()) => Ok(()),
            Err((path, source)) => Err(self.sync_failed(&path, source)),
        }
    }

    /// Fills with zeros what is set aside: from the head's end over all rubble, and a step ahead where the file ends too
    /// early for `len` bytes.
    fn make_room(&mut self, log: &LogFile, offset: u64, len: usize) -> Result<(), PublishError> {
        let file_len = match log.file.len() {
            Ok(file_len) => file_len,
            Err(source) => return Err(self.write_failed(offset, len, source)),
        };
        if self.tail.rubble_end > offset {
            self.write_zeros(log, offset, self.tail.rubble_end)?;
            self.tail.rubble_end = offset;
        }
        let end = offset + len as u64;
        if file_len < end {
            let from = file_len.max(offset);
            self.write_zeros(log, from, with_room_ahead(end))?;
        }
        Ok(())
    }

    fn write_zeros(&self, log: &LogFile, from: u64, to: u64) -> Result<(), PublishError> {
        let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        match log.file.write_at(from, &vec![0; len]) {
            Ok(()) => Ok(()),
            Err(source) => Err(self.write_failed(from, len, source)),
        }
    }

    /// Whether the head is known to be durable.
    pub(super) fn is_proven(&self) -> bool {
        self.health == Health::Sound || self.tail.head.is_none()
    }

    /// Makes the head durable that another process left: it may have died before its sync, or have been told that it failed.
    ///
    /// - **Cost**: nothing, if it was done before or the head is one's own.
    pub(super) fn prove(&mut self) -> Result<(), PublishError> {
        match self.log.clone() {
            Some(log) => self.prove_head(&log),
            None => Ok(()),
        }
    }

    /// Written again as it is: if its sync failed there, the kernel takes the pages for clean, and only a new write brings
    /// them to the disk. And synced before the next record is written: a power cut may bring that one to the disk without this one.
    fn prove_head(&mut self, log: &LogFile) -> Result<(), PublishError> {
        self.check_sound()?;
        let (Health::HeadUnproven, Some(head)) = (self.health, &self.tail.head) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(head.len).unwrap_or_default()];
        let again = log.file.read_at(head.offset, &mut bytes);
        if let Err(source) = again.and_then(|()| log.file.write_at(head.offset, &bytes)) {
            return Err(self.write_failed(head.offset, bytes.len(), source));
        }
        if let Err(source) = log.file.sync() {
            self.health = Health::Poisoned;
            return Err(self.sync_failed(&log.path, source));
        }
        self.health = Health::Sound;
        Ok(())
    }

    /// Takes back a record that was not published, so that readers do not meet it. Best effort: where it fails, the
    /// record may be whole, and the next one to take the lease finds it as the head.
    fn retract(&mut self, log: &LogFile, offset: u64, len: usize) {
        let end = offset + len as u64;
        self.tail.rubble_end = self.tail.rubble_end.max(end);
        drop(self.write_zeros(log, offset, end));
    }

    fn write_failed(&self, offset: u64, bytes: usize, source: io::Error) -> PublishError {
        PublishError::Write {
            image: self.place.image.clone(),
            path: self.place.path.clone(),
            offset,
            bytes,
            source,
        }
    }

    fn sync_failed(&self, path: &Path, source: io::Error) -> PublishError {
        PublishError::Sync {
            image: self.place.image.clone(),
            path: path.to_owned(),
            source,
        }
    }
}
