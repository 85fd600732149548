//! The home of one store: a directory with a log of records, a lease and locks for each image.
//!
//! ```text
//!   <root>/images/<name>/log        records, appended; the last whole one is the head
//!   <root>/images/<name>/lease      the newest grant: its token, its lock, and who has it
//!   <root>/images/<name>/lock       empty; locked by the writer, and opened by nothing else
//!   <root>/images/<name>/lock-<n>   the same of a writer that stole the image
//!   <root>/images/<name>/turn       empty; locked for a moment by whoever changes something
//!   <root>/images/<name>/tags/      a file for each tag
//! ```
//!
//! | file | for |
//! |---|---|
//! | `turn` | one change at a time |
//! | `inside` | what is known of an image while the turn is held |
//! | `grant` | the file `lease` |
//! | `claim` | taking the lease, stealing it, committing without it |
//! | `lease` | the writer's hand on an image |
//! | `log`, `frame` | reading records, and their bytes |
//! | `tags`, `remove` | names for commits; removing an image |
//! | `append`, `names` | adding records, and making names durable |
//!
//! The log grows by zeros ahead of the records (to 4 KiB, then doubled, then by 64 KiB), so that an append changes no length and allocates
//! nothing: its `fdatasync` has no journal to commit. (On ext4 without a journal that gains nothing: 0.37 ms for
//! a publish, 0.37 ms for 512 bytes and `fdatasync` in a file that grows. Reading the head takes 9 us,
//! reading 1,500 commits backwards 2.2 ms. Taking the lease takes twice as long as reading the head, of which a fourth is
//! the turn: on a busy machine 110, 50 and 12 us.)

mod append;
mod claim;
mod frame;
mod grant;
mod inside;
mod lease;
mod log;
mod names;
mod remove;
mod tags;
mod turn;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Open},
};

use self::{
    append::Place,
    grant::LeaseFile,
    log::{Backwards, LogFile, Tail},
};
pub use self::{
    frame::{FrameFault, MARK_MAX},
    grant::LeaseFileError,
    lease::WriterLease,
    log::LogError,
    tags::TagFileError,
};
use crate::{
    commit::Commit,
    error::{AcquireError, HomeError, PublishError, RemoveError, TagError},
    home::{Holder, Home, ImageState, Lease, Log, Tag},
    lease::Checkout,
    name::{ImageName, Ref},
    time::Timestamp,
};

/// How long to wait for another process that is in the middle of a change: it takes one sync, or a few.
const PATIENCE: Duration = Duration::from_secs(10);

/// The images of one store on this machine.
#[derive(Clone, Debug)]
pub struct DirHome {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    patience: Duration,
}

impl DirHome {
    /// The home in the store's directory `root`, which need not exist yet: the first lease makes it.
    pub fn open(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self {
            disk,
            root,
            patience: PATIENCE,
        }
    }

    /// Waits so long for another process that is in the middle of a change, instead of ten seconds.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The names of all images, sorted.
    ///
    /// - **Errors**: [`HomeError::Io`]; a directory that is no image's name is passed over.
    pub fn images(&self) -> Result<Vec<ImageName>, HomeError> {
        let mut found = self.names()?;
        let mut failed = None;
        found.retain(|name| {
            let log = self.dir(name).join("log");
            let there = self.disk.exists(&log);
            there.unwrap_or_else(|source| {
                failed.get_or_insert(unreadable(log, source));
                false
            })
        });
        failed.map_or(Ok(found), Err)
    }

    /// The names of all images, sorted, and of what may be none: an image that is just being made or removed. For those who
    /// look at each by [`image`](Self::image) anyway, which tells.
    ///
    /// - **Errors**: [`HomeError::Io`]; a directory that is no image's name is passed over.
    pub fn names(&self) -> Result<Vec<ImageName>, HomeError> {
        let images = self.images_dir();
        match self.disk.list(&images) {
            Ok(names) => {
                let names = names.iter().filter_map(|name| name.parse().ok());
                let mut names: Vec<ImageName> = names.collect();
                names.sort_unstable();
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(unreadable(images, source)),
        }
    }

    /// Reads the newest record of an image; `None` where there is no such image. Takes no lease.
    ///
    /// - **Cost**: five system calls where an image has few commits; twice the zeros set aside (at most 64 KiB) and the record
    ///   are read at most, whatever the number of records.
    pub fn image(&self, name: &ImageName) -> Result<Option<ImageState>, HomeError> {
        let tail = self.tail(name)?;
        Ok(tail.map(|(_, tail)| ImageState {
            head: tail.head.map(|frame| frame.record),
        }))
    }

    /// Reads all records of an image, newest first.
    pub fn log(&self, name: &ImageName) -> Result<Log, HomeError> {
        Ok(match self.tail(name)? {
            Some((log, tail)) => Box::new(Backwards::from(log, tail.head)),
            None => Box::new(std::iter::empty()),
        })
    }

    /// Who has an image for writing; `None` where nobody does. By the time it is told it may be otherwise.
    ///
    /// - **Errors**: [`HomeError::LeaseFile`], [`HomeError::Io`].
    pub fn holder(&self, name: &ImageName) -> Result<Option<Holder>, HomeError> {
        let dir = self.dir(name);
        let file = LeaseFile::find(&*self.disk, &dir)?;
        let granted = file.as_ref().map(LeaseFile::read_numbers).transpose()?;
        let number = granted.flatten().map_or(0, |record| record.lock);
        let lock = inside::lock_path(&dir, number);
        match self.disk.locked_by(&lock) {
            Ok(None) => Ok(None),
            Ok(Some(by)) => {
                // Who that is, only where somebody is: most images are nobody's.
                let granted = file.map(|file| file.read()).transpose()?.flatten();
                let grant = granted.map(|record| record.grant);
                Ok(Some(inside::holder(grant, by.pid)))
            }
            Err(source) => Err(unreadable(lock, source)),
        }
    }

    fn place(&self, name: &ImageName) -> Place {
        let dir = self.dir(name);
        Place {
            image: name.clone(),
            path: dir.join("log"),
            dir,
            above: [self.images_dir(), self.root.clone()],
        }
    }

    fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    fn dir(&self, name: &ImageName) -> PathBuf {
        self.images_dir().join(name.as_str())
    }

    fn tail(&self, name: &ImageName) -> Result<Option<(LogFile, Tail)>, HomeError> {
        let path = self.dir(name).join("log");
        let log = LogFile::find(&*self.disk, &path, Open::Read);
        match log.map_err(|source| unreadable(path, source))? {
            Some(log) => {
                let tail = log.tail()?;
                Ok(Some((log, tail)))
            }
            None => Ok(None),
        }
    }
}

impl Home for DirHome {
    fn settle(&self) -> Result<(), HomeError> {
        self.settle_removals()
    }

    fn images(&self) -> Result<Vec<ImageName>, HomeError> {
        self.images()
    }

    fn image(&self, name: &ImageName) -> Result<Option<ImageState>, HomeError> {
        self.image(name)
    }

    fn log(&self, name: &ImageName) -> Result<Log, HomeError> {
        self.log(name)
    }

    fn holder(&self, name: &ImageName) -> Result<Option<Holder>, HomeError> {
        self.holder(name)
    }

    fn acquire(&self, name: &ImageName, holder: Holder) -> Result<Box<dyn Lease>, AcquireError> {
        Ok(Box::new(self.acquire(name, holder)?))
    }

    fn steal(&self, name: &ImageName, holder: Holder) -> Result<Box<dyn Lease>, AcquireError> {
        Ok(Box::new(self.steal(name, holder)?))
    }

    fn commit(
        &self,
        name: &ImageName,
        checkout: Checkout,
        commit: &Commit,
        mark: &[u8],
    ) -> Result<CommitId, PublishError> {
        self.commit(name, checkout, commit, mark)
    }

    fn tags(&self, image: &ImageName) -> Result<Vec<Tag>, HomeError> {
        self.tags(image)
    }

    fn tagged(&self, image: &ImageName, tag: &ImageName) -> Result<Option<Tag>, HomeError> {
        self.tagged(image, tag)
    }

    fn tag(
        &self,
        image: &ImageName,
        tag: &ImageName,
        at: &Ref,
        now: Timestamp,
    ) -> Result<Tag, TagError> {
        self.tag(image, tag, at, now)
    }

    fn untag(&self, image: &ImageName, tag: &ImageName) -> Result<(), TagError> {
        self.untag(image, tag)
    }

    fn remove(&self, image: &ImageName, holder: &Holder) -> Result<(), RemoveError> {
        self.remove(image, holder)
    }
}

fn unreadable(path: PathBuf, source: io::Error) -> HomeError {
    HomeError::Io { path, source }
}

/// Decodes arbitrary bytes as a frame that lies where it says, as a lease and as a tag: see [`crate::decode_any`].
pub(crate) fn decode_any(bytes: &[u8]) {
    let place = bytes.get(32..).and_then(|bytes| bytes.first_chunk());
    let offset = place.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    drop(frame::decode(bytes, offset));
    drop(grant::decode(bytes));
    if let Ok(name) = "tag".parse() {
        drop(tags::decode(bytes, &name));
    }
}
