//! The writer's lease of an image in a directory home: appends records, one at a time, each durable before the next.

use std::{
    io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Lock, Open},
};

use super::{
    frame::{self, Frame, MARK_MAX},
    log::{Backwards, LogFile, STEP, Tail},
};
use crate::{
    commit::Commit,
    home::{Lease, Log, PublishError, Record},
    name::ImageName,
};

/// The exclusive right to append to an image's log, as long as it lives.
#[derive(Debug)]
pub struct WriterLease {
    disk: Arc<dyn Disk>,
    place: Place,
    /// `None` until the first publish of a new image makes it.
    log: Option<LogFile>,
    tail: Tail,
    health: Health,
    /// The process that took the lease: a forked child may not publish.
    pid: u32,
    /// Held for its drop alone.
    _lock: Box<dyn Lock>,
}

/// Where an image's log is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) image: ImageName,
    pub(super) path: PathBuf,
    /// The directories that name the image's directory, innermost first.
    pub(super) above: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Somebody else wrote the head, and perhaps failed to sync it: what is read may be in memory alone.
    HeadUnproven,
    /// The head was synced by this lease, or there is none.
    Sound,
    /// A sync failed: what is read says nothing about what is on disk.
    Poisoned,
}

impl WriterLease {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        place: Place,
        found: Option<(LogFile, Tail)>,
        lock: Box<dyn Lock>,
    ) -> Self {
        let (log, tail) = found.unzip();
        Self {
            disk,
            place,
            log,
            tail: tail.unwrap_or_default(),
            health: Health::HeadUnproven,
            pid: process::id(),
            _lock: lock,
        }
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &ImageName {
        &self.place.image
    }

    /// The newest record.
    #[must_use]
    pub fn head(&self) -> Option<&Record> {
        self.tail.head.as_ref().map(|frame| &frame.record)
    }

    /// All records, newest first.
    #[must_use]
    pub fn log(&self) -> Log {
        match &self.log {
            Some(log) => Box::new(Backwards::from(log.clone(), self.tail.head.clone())),
            None => Box::new(std::iter::empty()),
        }
    }

    /// Adds a commit as the newest, with what the store says beside it (at most [`MARK_MAX`] bytes).
    ///
    /// - **Cost**: one write of the record and one `fdatasync`; the first of an image also makes and syncs its directories.
    /// - **Durable**: on `Ok`, yes. On `Err` the newest is the one before; after a power cut it may be this one, whole.
    /// - **Blocks**: on the disk.
    /// - **Errors**: after [`PublishError::Write`] the lease goes on; after [`PublishError::Sync`] it publishes no more.
    /// - **Source**: docs/format.md 7.6.
    pub fn publish(&mut self, commit: &Commit, mark: &[u8]) -> Result<CommitId, PublishError> {
        let image = || self.place.image.clone();
        if process::id() != self.pid {
            let pid = self.pid;
            return Err(PublishError::Forked {
                image: image(),
                pid,
            });
        }
        if self.health == Health::Poisoned {
            return Err(PublishError::Poisoned { image: image() });
        }
        if mark.len() > MARK_MAX {
            return Err(PublishError::Mark {
                image: image(),
                got: mark.len(),
                max: MARK_MAX,
            });
        }
        let bytes = commit.encode().map_err(|source| PublishError::Invalid {
            image: image(),
            source,
        })?;
        let (seq, previous) = match &self.tail.head {
            Some(head) => (head.record.seq + 1, head.len),
            None => (0, 0),
        };
        let offset = self.tail.end();
        let frame = frame::encode(seq, offset, previous, mark, &bytes);
        let record = Record {
            seq,
            commit_id: CommitId::of(&bytes),
            commit: commit.clone(),
            mark: mark.to_vec(),
        };
        let commit_id = record.commit_id;

        // The store has synced what the commit names before it calls this. Then:
        // 1. The file, its name and the names of its directories are durable (a new image only).
        let log = self.log_file()?;
        // 2. Rubble of an earlier append is gone, and there is room ahead, all zeros.
        self.make_room(&log, offset, frame.len())?;
        // 3. A head that another process left is written again as it is: if its sync failed there, the kernel takes
        //    the pages for clean, and only a new write brings them to the disk.
        self.prove_head(&log)?;
        // 4. The record.
        if let Err(source) = log.file.write_at(offset, &frame) {
            self.retract(&log, offset, frame.len());
            return Err(self.write_failed(offset, frame.len(), source));
        }
        // 5. One sync for all of it.
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
            record,
        });
        self.health = Health::Sound;
        Ok(commit_id)
    }

    fn log_file(&mut self) -> Result<LogFile, PublishError> {
        if let Some(log) = &self.log {
            if self.tail.head.is_none() {
                // Made once, perhaps by a process that died before its name was durable.
                self.sync_names()?;
            }
            return Ok(log.clone());
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
        let own = self.place.path.parent();
        let own = own
            .into_iter()
            .chain(self.place.above.iter().map(PathBuf::as_path));
        for dir in own {
            if let Err(source) = self.disk.sync_dir(dir) {
                return Err(self.sync_failed(dir, source));
            }
        }
        // The root's own name, and its parents' where they are new too: up to the first that is not ours to sync. What
        // cannot be opened or is read-only was there before, and some file systems refuse to sync a directory.
        let root = self.place.above.last();
        for dir in root.iter().flat_map(|root| root.ancestors().skip(1)) {
            match self
                .disk
                .sync_dir(dir)
                .map_err(|source| (source.kind(), source))
            {
                Ok(()) => {}
                Err((
                    io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported,
                    _,
                )) => break,
                Err((_, source)) => return Err(self.sync_failed(dir, source)),
            }
        }
        Ok(())
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
            self.write_zeros(log, from, end.next_multiple_of(STEP as u64))?;
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

    fn prove_head(&self, log: &LogFile) -> Result<(), PublishError> {
        let (Health::HeadUnproven, Some(head)) = (self.health, &self.tail.head) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(head.len).unwrap_or_default()];
        let again = log.file.read_at(head.offset, &mut bytes);
        match again.and_then(|()| log.file.write_at(head.offset, &bytes)) {
            Ok(()) => Ok(()),
            Err(source) => Err(self.write_failed(head.offset, bytes.len(), source)),
        }
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

impl Lease for WriterLease {
    fn image(&self) -> &ImageName {
        self.image()
    }

    fn head(&self) -> Option<&Record> {
        self.head()
    }

    fn publish(&mut self, commit: &Commit, mark: &[u8]) -> Result<CommitId, PublishError> {
        self.publish(commit, mark)
    }
}
