//! The writer's lease of an image in a directory home: appends records as long as nobody stole it.

use std::{process, sync::Arc, time::Duration};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Lock},
};

use super::{
    append::{Appender, Prepared},
    grant::LeaseFile,
    inside::{publish_error, refused},
    turn::Turn,
};
use crate::{
    commit::Commit,
    error::PublishError,
    home::{Holder, Lease, Log, Record},
    lease::{Checkout, Committed, State, Token},
    name::ImageName,
};

/// The exclusive right to append to an image's log, as long as it lives and nobody steals it.
#[derive(Debug)]
pub struct WriterLease {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) appender: Appender,
    pub(super) file: LeaseFile,
    pub(super) token: Token,
    pub(super) patience: Duration,
    pub(super) taken_from: Option<Holder>,
    pub(super) fenced_alive: Vec<u32>,
    /// The process that took the lease: a forked child may not publish.
    pub(super) pid: u32,
    /// Held for its drop alone.
    pub(super) _lock: Box<dyn Lock>,
}

impl WriterLease {
    /// The image.
    #[must_use]
    pub fn image(&self) -> &ImageName {
        &self.appender.place().image
    }

    /// The newest record.
    #[must_use]
    pub fn head(&self) -> Option<&Record> {
        self.appender.head()
    }

    /// The lease's fencing token.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whom the lease was stolen from: who had it when [`steal`](super::DirHome::steal) took it.
    #[must_use]
    pub fn taken_from(&self) -> Option<&Holder> {
        self.taken_from.as_ref()
    }

    /// Processes that had the image once, were stolen from, and were still alive when this lease was granted (0 for one
    /// that cannot be seen from here; this process too, if it stole from itself).
    ///
    /// They commit no more, but do not know it yet: while there is one, a pack that is not sealed may still be written to
    /// behind its mark, and must not be sealed by anybody else.
    #[must_use]
    pub fn fenced_alive(&self) -> &[u32] {
        &self.fenced_alive
    }

    /// All records, newest first.
    #[must_use]
    pub fn log(&self) -> Log {
        self.appender.log()
    }

    /// Adds a commit as the newest, with what the store says beside it (at most [`MARK_MAX`](super::MARK_MAX) bytes).
    ///
    /// - **Cost**: one write of the record and one `fdatasync`; the first of an image also makes and syncs its directories.
    /// - **Durable**: on `Ok`, yes. On `Err` the newest is the one before; after a power cut it may be this one, whole.
    /// - **Blocks**: on the disk, and on another process that changes something of this image.
    /// - **Errors**: [`PublishError::Orphaned`] once the lease was stolen; after [`PublishError::Write`] the lease goes
    ///   on; after [`PublishError::Sync`] it publishes no more.
    /// - **Source**: docs/format.md 7.6.
    pub fn publish(&mut self, commit: &Commit, mark: &[u8]) -> Result<CommitId, PublishError> {
        let image = self.image().clone();
        if process::id() != self.pid {
            let pid = self.pid;
            return Err(PublishError::Forked { image, pid });
        }
        self.appender.check_sound()?;
        let prepared = Prepared::new(&image, commit, mark)?;
        let dir = &self.appender.place().dir;
        let turn = Turn::take(&*self.disk, dir, self.patience)
            .map_err(|error| publish_error(&image, error.into()))?;
        let record = self.file.read_granted()?;
        let head = self.appender.head();
        let base = head.map(|head| head.commit_id);
        // Somebody else's grant counts as outstanding, whether or not its holder still lives: ours is over either way.
        let mut state = State::held(base, record.grant, record.fenced);
        let checkout = Checkout {
            token: Some(self.token),
            base,
        };
        match state.commit(checkout, prepared.commit_id) {
            Err(refusal) => return Err(refused(&image, base, refusal)),
            // It is the head already. Only what the store says beside it may be new, if the lease is still ours.
            Ok(Committed::Already) if !state.is_current(self.token) || prepared.is(head) => {
                return Ok(prepared.commit_id);
            }
            Ok(Committed::Already | Committed::New) => {}
        }
        let published = self.appender.append(&prepared, self.token);
        drop(turn);
        published
    }
}

impl WriterLease {
    /// Makes the newest record durable, where another process left it: it may have been killed before its sync. For who tells
    /// that there is nothing to commit.
    ///
    /// - **Cost**: nothing after the first time, or after a publish; else a write and a sync.
    /// - **Durable**: on `Ok`, the record is, if the lease was not stolen: then it is not this session's to say.
    /// - **Errors**: as [`publish`](Self::publish).
    pub fn confirm(&mut self) -> Result<(), PublishError> {
        if self.appender.is_proven() || process::id() != self.pid {
            return Ok(());
        }
        let image = self.image().clone();
        let dir = &self.appender.place().dir;
        let turn = Turn::take(&*self.disk, dir, self.patience)
            .map_err(|error| publish_error(&image, error.into()))?;
        let record = self.file.read_granted()?;
        let proven = if record.grant.token == self.token {
            self.appender.prove()
        } else {
            Ok(())
        };
        drop(turn);
        proven
    }
}

impl Lease for WriterLease {
    fn image(&self) -> &ImageName {
        self.image()
    }

    fn head(&self) -> Option<&Record> {
        self.head()
    }

    fn token(&self) -> Token {
        self.token()
    }

    fn publish(&mut self, commit: &Commit, mark: &[u8]) -> Result<CommitId, PublishError> {
        self.publish(commit, mark)
    }
}
