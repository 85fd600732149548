//! Why a home could not do what it was asked: one type per operation.

use std::{io, path::PathBuf};

use segvm_blockcache::CommitId;

use crate::{
    commit::InvalidCommit,
    dir::{LeaseFileError, LogError, TagFileError},
    name::{ImageName, Ref},
    time::Timestamp,
};

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
    /// The file of a tag.
    #[error(transparent)]
    Tag(#[from] TagFileError),
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
    #[error("image {image} has no commit {at}{}", gone_text(.gone))]
    NotFound {
        /// The image.
        image: ImageName,
        /// What was asked for.
        at: Ref,
        /// The image that its history would go on in, if that is not there any more.
        gone: Option<ImageName>,
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

fn gone_text(gone: &Option<ImageName>) -> String {
    gone.as_ref().map_or_else(String::new, |image| {
        format!(": it was branched off image {image}, which is not there any more")
    })
}

/// Why a tag could not be given or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// There is no such image.
    #[error("there is no image {image}")]
    NoImage {
        /// The image.
        image: ImageName,
    },
    /// There is no such tag.
    #[error("image {image} has no tag {tag}")]
    NotFound {
        /// The image.
        image: ImageName,
        /// The tag.
        tag: ImageName,
    },
    /// Another commit has that name.
    #[error(
        "image {image} has a tag {tag} already, for commit {commit:.12}: remove it first, or choose another name"
    )]
    Exists {
        /// The image.
        image: ImageName,
        /// The tag.
        tag: ImageName,
        /// The commit that has it.
        commit: CommitId,
    },
    /// Nobody could use that name.
    #[error("{tag} cannot be a tag: it would be read as a time or as the beginning of an id")]
    Shadowed {
        /// The name.
        tag: ImageName,
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
    /// The commit was not found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The image could not be read, or the tag not written.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// There is no such image.
    #[error("there is no image {image}")]
    NoImage {
        /// The image.
        image: ImageName,
    },
    /// Somebody has it for writing.
    #[error(
        "image {image} is open for writing by {program}, process {pid} on {host}{}: close it there first", since_text(.since)
    )]
    Held {
        /// The image.
        image: ImageName,
        /// The process that has it; 0 where it cannot be seen from here.
        pid: u32,
        /// Its machine, as far as known.
        host: String,
        /// Its program, as far as known.
        program: String,
        /// Since when, as far as known.
        since: Option<Timestamp>,
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
    /// Its files could not be read or removed.
    #[error(transparent)]
    Home(#[from] HomeError),
}
