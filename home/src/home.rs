//! The seam between a session and whoever owns its image: read, acquire, publish.
//!
//! [`DirHome`](crate::DirHome) is the one built in. A session talks to these traits only, so that a server can take
//! its place.

use std::fmt;

use segvm_blockcache::CommitId;

use crate::{
    commit::Commit,
    dir::LogError,
    error::{AcquireError, HomeError, PublishError, RemoveError, ResolveError, TagError},
    history::History,
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

/// A name for a commit of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The name.
    pub name: ImageName,
    /// When it was given.
    pub at: Timestamp,
    /// The commit, which the tag keeps: also when the log that it was found in is gone.
    pub record: Record,
}

/// The records of an image, newest first. An error ends it.
pub type Log = Box<dyn Iterator<Item = Result<Record, LogError>> + Send>;

/// Who owns images.
pub trait Home: fmt::Debug + Send + Sync {
    /// Makes durable what somebody began and did not live to finish, before anything relies on its having happened: an image
    /// whose removal can be seen must not come back after what it needed was freed.
    fn settle(&self) -> Result<(), HomeError> {
        Ok(())
    }

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

    /// All tags of an image, sorted by name.
    fn tags(&self, image: &ImageName) -> Result<Vec<Tag>, HomeError>;

    /// Finds a tag by name.
    fn tagged(&self, image: &ImageName, tag: &ImageName) -> Result<Option<Tag>, HomeError>;

    /// Gives the commit that `at` means a name that keeps it. Giving it once more is no error.
    ///
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`TagError::Exists`] where another commit has the name; [`TagError::Shadowed`] where the name would
    ///   be read as a time or as the beginning of an id.
    fn tag(
        &self,
        image: &ImageName,
        tag: &ImageName,
        at: &Ref,
        now: Timestamp,
    ) -> Result<Tag, TagError>;

    /// Takes a name away from its commit, which stays.
    fn untag(&self, image: &ImageName, tag: &ImageName) -> Result<(), TagError>;

    /// Removes an image with its commits and tags.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the image is whole, or gone.
    /// - **Errors**: [`RemoveError::Held`] while somebody has it for writing.
    fn remove(&self, image: &ImageName, holder: &Holder) -> Result<(), RemoveError>;

    /// Finds the commit that `at` means in the image's [`History`]; `now` is what an age counts from.
    ///
    /// - **Cost**: reads the log from its end until the commit is found; a prefix reads all of it, as a second
    ///   commit may begin likewise.
    /// - **Errors**: [`ResolveError`] names image and reference.
    fn resolve(&self, name: &ImageName, at: &Ref, now: Timestamp) -> Result<Record, ResolveError> {
        let mut history = History::of(self, name)?;
        let found = match at {
            Ref::Back(n) => nth(&mut history, *n)?,
            Ref::Prefix(prefix) => by_prefix(&mut history, name, prefix)?,
            Ref::At(time) => find(&mut history, |record| record.commit.time <= *time)?,
            Ref::Ago(age) => {
                let time = now.before(*age);
                find(&mut history, |record| record.commit.time <= time)?
            }
            Ref::Tag(tag) => self.tagged(name, tag)?.map(|tag| tag.record),
        };
        found.ok_or_else(|| ResolveError::NotFound {
            image: name.clone(),
            at: at.clone(),
            gone: history.gone().cloned(),
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

/// The records of a history, one after the other.
trait Records: Iterator<Item = Result<Record, HomeError>> {}

impl<T: Iterator<Item = Result<Record, HomeError>>> Records for T {}

fn nth(history: &mut impl Records, n: u64) -> Result<Option<Record>, HomeError> {
    for _ in 0..n {
        if history.next().transpose()?.is_none() {
            return Ok(None);
        }
    }
    history.next().transpose()
}

fn find(
    history: &mut impl Records,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<Record>, HomeError> {
    for record in history {
        let record = record?;
        if wanted(&record) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn by_prefix(
    history: &mut impl Records,
    image: &ImageName,
    prefix: &str,
) -> Result<Option<Record>, ResolveError> {
    let mut found: Option<Record> = None;
    for record in history {
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
