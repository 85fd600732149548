//! The seam between a session and whoever owns its image: read, acquire, publish.
//!
//! [`DirHome`](crate::DirHome) is the one built in. A session talks to these traits only, so that a server can take
//! its place.

use std::{fmt, io, path::PathBuf};

use segvm_blockcache::CommitId;

use crate::{
    commit::{Commit, InvalidCommit},
    dir::{LeaseFileError, LogError},
    lease::{Checkout, Token},
    name::{ImageName, Ref},
    time::Timestamp,
};

/// A commit as its home keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 0 for an image's first record, and one more for each that follows.
    pub seq: u64,
    /// The commit's name.
    pub commit_id: CommitId,
    /// The commit.
    pub commit: Commit,
    /// What the store said beside it: up to where its packs are durable. The home does not read it.
    pub mark: Vec<u8>,
    /// The highest token that was granted when it was made; [`Token::NONE`] in records from before there were any.
    pub token: Token,
}

/// An image as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageState {
    /// The newest record; `None` where the first was never completed.
    pub head: Option<Record>,
}

/// Who holds an image for writing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The machine's name.
    pub host: String,
    /// The program's name.
    pub program: String,
    /// Since when.
    pub since: Timestamp,
}

/// The records of an image, newest first. An error ends it.
pub type Log = Box<dyn Iterator<Item = Result<Record, LogError>> + Send>;

/// Who owns images.
pub trait Home: fmt::Debug + Send + Sync {
    /// The names of all images, sorted.
    fn images(&self) -> Result<Vec<ImageName>, HomeError>;

    /// Reads the newest record of an image; `None` where there is no such image. Takes no lease.
    fn image(&self, name: &ImageName) -> Result<Option<ImageState>, HomeError>;

    /// Reads all records of an image, newest first; none where there is no such image.
    fn log(&self, name: &ImageName) -> Result<Log, HomeError>;

    /// Tells who has an image for writing; `None` where nobody does.
    fn holder(&self, name: &ImageName) -> Result<Option<Holder>, HomeError>;

    /// Takes the lease of an image, which need not exist yet. Never waits for its holder.
    ///
    /// - **Errors**: [`AcquireError::Held`] says who has it.
    fn acquire(&self, name: &ImageName, holder: Holder) -> Result<Box<dyn Lease>, AcquireError>;

    /// Takes the lease of an image whoever has it: the holder's next commit is refused as
    /// [`Orphaned`](PublishError::Orphaned), for good.
    ///
    /// - **Durable**: on `Ok`, yes.
    fn steal(&self, name: &ImageName, holder: Holder) -> Result<Box<dyn Lease>, AcquireError>;

    /// Adds a commit as the newest without a lease: for a reader, or a session whose lease is over. `checkout` is what
    /// the session can show, and `mark` has to carry the marks of the head that still count.
    ///
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`PublishError::Held`] while a lease is outstanding; [`PublishError::Moved`] or
    ///   [`PublishError::Orphaned`] if there was another commit since the checkout.
    fn commit(
        &self,
        name: &ImageName,
        checkout: Checkout,
        commit: &Commit,
        mark: &[u8],
    ) -> Result<CommitId, PublishError>;

    /// Finds the commit that `at` means; `now` is what an age counts from.
    ///
    /// - **Cost**: reads the log from its end until the commit is found; a prefix reads all of it, as a second
    ///   commit may begin likewise.
    /// - **Errors**: [`ResolveError`] names image and reference.
    fn resolve(&self, name: &ImageName, at: &Ref, now: Timestamp) -> Result<Record, ResolveError> {
        let mut log = self.log(name)?;
        let found = match at {
            Ref::Back(n) => nth(&mut log, *n)?,
            Ref::Prefix(prefix) => by_prefix(log, name, prefix)?,
            Ref::At(time) => find(log, |record| record.commit.time <= *time)?,
            Ref::Ago(age) => {
                let time = now.before(*age);
                find(log, |record| record.commit.time <= time)?
            }
            // No home keeps tags yet.
            Ref::Tag(_) => None,
        };
        found.ok_or_else(|| ResolveError::NotFound {
            image: name.clone(),
            at: at.clone(),
        })
    }
}

/// The exclusive right to add commits to an image; dropping it gives it back.
pub trait Lease: fmt::Debug + Send {
    /// The image.
    fn image(&self) -> &ImageName;

    /// The newest record.
    fn head(&self) -> Option<&Record>;

    /// The lease's fencing token.
    fn token(&self) -> Token;

    /// Adds a commit as the newest, unless the lease was stolen.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the newest is the one before; after a power cut it may be this one, whole.
    /// - **Blocks**: on the disk.
    fn publish(&mut self, commit: &Commit, mark: &[u8]) -> Result<CommitId, PublishError>;
}

fn nth(log: &mut Log, n: u64) -> Result<Option<Record>, LogError> {
    for _ in 0..n {
        if log.next().transpose()?.is_none() {
            return Ok(None);
        }
    }
    log.next().transpose()
}

fn find(log: Log, wanted: impl Fn(&Record) -> bool) -> Result<Option<Record>, LogError> {
    for record in log {
        let record = record?;
        if wanted(&record) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn by_prefix(log: Log, image: &ImageName, prefix: &str) -> Result<Option<Record>, ResolveError> {
    let mut found: Option<Record> = None;
    for record in log {
        let record = record?;
        if !record.commit_id.to_string().starts_with(prefix) {
            continue;
        }
        match &found {
            Some(first) if first.commit_id != record.commit_id => {
                return Err(ResolveError::Ambiguous {
                    image: image.clone(),
                    prefix: prefix.to_owned(),
                    commits: [first.commit_id, record.commit_id],
                });
            }
            Some(_) => {}
            None => found = Some(record),
        }
    }
    Ok(found)
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The file system said no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file of the image's lease.
    #[error(transparent)]
    LeaseFile(#[from] LeaseFileError),
    /// The image's log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a lease could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// Somebody else has it.
    #[error(
        "image {image} is open for writing by {program}, process {pid} on {host}{}", since_text(.since)
    )]
    Held {
        /// The image.
        image: ImageName,
        /// The process that holds it; 0 where it cannot be seen from here (another container or machine).
        pid: u32,
        /// Its machine, as far as known.
        host: String,
        /// Its program, as far as known.
        program: String,
        /// Since when, as far as known.
        since: Option<Timestamp>,
    },
    /// The file system said no.
    #[error("cannot take the lease of an image at {}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process is in the middle of a change, and has been for too long to wait for it.
    #[error(
        "image {image}: process {pid} is in the middle of a change to it: if it is stopped, let it go on or kill it"
    )]
    Busy {
        /// The image.
        image: ImageName,
        /// The process; 0 where it cannot be seen from here.
        pid: u32,
    },
    /// The file of the image's lease.
    #[error(transparent)]
    LeaseFile(#[from] LeaseFileError),
    /// The image's log.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn since_text(since: &Option<Timestamp>) -> String {
    since.map_or_else(String::new, |since| format!(", since {since}"))
}

fn commit_text(commit: &Option<CommitId>) -> String {
    commit.map_or_else(|| "none".to_owned(), |commit| format!("{commit:.12}"))
}

/// Why a commit was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The commit breaks a rule of the format.
    #[error("image {image}: the commit cannot be encoded: {source}")]
    Invalid {
        /// The image.
        image: ImageName,
        /// Which rule.
        source: InvalidCommit,
    },
    /// The store's mark is too long: a fault of the store.
    #[error("image {image}: a mark of {got} bytes is more than {max}")]
    Mark {
        /// The image.
        image: ImageName,
        /// Its length.
        got: usize,
        /// The longest there may be.
        max: usize,
    },
    /// The disk is full, or cannot be written. The previous commit stays the newest; try again when it can.
    #[error("image {image}: cannot write {bytes} bytes at offset {offset} of {}: {source}", path.display())]
    Write {
        /// The image.
        image: ImageName,
        /// The log.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        bytes: usize,
        /// What the file system said.
        source: io::Error,
    },
    /// A sync failed. What it should have made durable may be lost although it can still be read: this lease
    /// publishes nothing more.
    #[error("image {image}: cannot make {} durable: {source}; close the session and open it again", path.display())]
    Sync {
        /// The image.
        image: ImageName,
        /// The log or a directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// An earlier sync of this lease failed.
    #[error(
        "image {image}: an earlier sync of its log failed; close the session and open it again"
    )]
    Poisoned {
        /// The image.
        image: ImageName,
    },
    /// The file system said no before anything was written.
    #[error("image {image}: cannot use {}: {source}", path.display())]
    Io {
        /// The image.
        image: ImageName,
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The lease was stolen, or is over and the image went on without it.
    #[error(
        "image {image} was taken over by {program}, process {pid} on {host}{}: branch to keep what changed since",
        since_text(.since)
    )]
    Orphaned {
        /// The image.
        image: ImageName,
        /// The process that took the lease.
        pid: u32,
        /// Its machine, as far as known.
        host: String,
        /// Its program, as far as known.
        program: String,
        /// Since when, as far as known.
        since: Option<Timestamp>,
    },
    /// Somebody else has the lease.
    #[error(
        "image {image} is open for writing by {program}, process {pid} on {host}{}: commit when it is closed, or branch",
        since_text(.since)
    )]
    Held {
        /// The image.
        image: ImageName,
        /// The process that has it.
        pid: u32,
        /// Its machine, as far as known.
        host: String,
        /// Its program, as far as known.
        program: String,
        /// Since when, as far as known.
        since: Option<Timestamp>,
    },
    /// There were commits since the checkout.
    #[error(
        "image {image}: its newest commit is {}, this continues {}: branch to keep what changed since",
        commit_text(.head), commit_text(.base)
    )]
    Moved {
        /// The image.
        image: ImageName,
        /// The commit that was checked out.
        base: Option<CommitId>,
        /// The newest.
        head: Option<CommitId>,
    },
    /// Another process is in the middle of a change, and has been for too long to wait for it.
    #[error(
        "image {image}: process {pid} is in the middle of a change to it: if it is stopped, let it go on or kill it"
    )]
    Busy {
        /// The image.
        image: ImageName,
        /// The process; 0 where it cannot be seen from here.
        pid: u32,
    },
    /// The file of the image's lease.
    #[error(transparent)]
    LeaseFile(#[from] LeaseFileError),
    /// The image's log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// This process was forked from the one that took the lease.
    #[error(
        "image {image}: its lease belongs to process {pid}, not to this one, which was forked from it"
    )]
    Forked {
        /// The image.
        image: ImageName,
        /// The process that holds it.
        pid: u32,
    },
}

/// Why a reference leads to no commit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such commit.
    #[error("image {image} has no commit {at}")]
    NotFound {
        /// The image.
        image: ImageName,
        /// What was asked for.
        at: Ref,
    },
    /// More than one commit begins so.
    #[error("image {image}: {prefix} is the beginning of {:.16} and {:.16}: give more digits", commits[0], commits[1])]
    Ambiguous {
        /// The image.
        image: ImageName,
        /// What was asked for.
        prefix: String,
        /// Two that begin so.
        commits: [CommitId; 2],
    },
    /// The image could not be read.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<LogError> for ResolveError {
    fn from(error: LogError) -> Self {
        Self::Home(error.into())
    }
}
