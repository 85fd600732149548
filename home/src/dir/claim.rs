//! Taking the lease of an image, stealing it, and committing without it: the rules of [`crate::lease`], one step at a
//! time, each with the turn held.

use std::{process, sync::Arc};

use segvm_blockcache::{CommitId, disk::Lock};

use super::{
    DirHome,
    append::{Appender, Prepared},
    grant::LeaseRecord,
    inside::{EnterError, Inside, WriterLock, acquire_error, held, publish_error, refused},
    lease::WriterLease,
    names,
    turn::NoTurn,
};
use crate::{
    commit::Commit,
    error::{AcquireError, PublishError},
    home::Holder,
    lease::{Checkout, Committed, State, Term, Token},
    name::ImageName,
};

impl DirHome {
    /// Takes the lease of an image, which need not exist yet: a lock that dies with this process and that a forked
    /// child does not inherit, and a new token.
    ///
    /// - **Errors**: [`AcquireError::Held`] says who has it, another part of this process included.
    pub fn acquire(&self, name: &ImageName, holder: Holder) -> Result<WriterLease, AcquireError> {
        let failed = |error| acquire_error(name, error);
        let inside = self.enter(name).map_err(failed)?;
        let now = holder.since;
        match inside.try_lock(&*self.disk).map_err(failed)? {
            WriterLock::Ours(lock) => {
                let mut state = inside.free().at(now);
                let granted = state.open(&holder, Term::WhileHeld);
                granted.map_err(|grant| held(name, grant))?;
                let (lock, number) = self.settle(&inside, lock).map_err(failed)?;
                self.granted(inside, &state, lock, number, None)
                    .map_err(failed)
            }
            WriterLock::Theirs(pid) => {
                let mut state = inside.held_by(pid).at(now);
                match state.open(&holder, Term::WhileHeld) {
                    Err(grant) => Err(held(name, grant)),
                    // Not while it is held.
                    Ok(_) => Err(failed(NoTurn::Busy(pid).into())),
                }
            }
        }
    }

    /// Takes the lease of an image although another process may have it and live: its next publish is refused as
    /// [`Orphaned`](PublishError::Orphaned), and every later one.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the lease may be taken from its holder all the same.
    /// - **Errors**: [`AcquireError::Busy`] if a process was stopped in the middle of a change: it must go on or be
    ///   killed, as what it is about to write cannot be taken back.
    pub fn steal(&self, name: &ImageName, holder: Holder) -> Result<WriterLease, AcquireError> {
        let failed = |error| acquire_error(name, error);
        let inside = self.enter(name).map_err(failed)?;
        let now = holder.since;
        let (state, from, lock, number) = match inside.try_lock(&*self.disk).map_err(failed)? {
            WriterLock::Ours(lock) => {
                let mut state = inside.free().at(now);
                let _nobody = state.steal(&holder, Term::WhileHeld);
                let (lock, number) = self.settle(&inside, lock).map_err(failed)?;
                (state, None, lock, number)
            }
            WriterLock::Theirs(pid) => {
                let mut state = inside.held_by(pid).at(now);
                let stolen = state.steal(&holder, Term::WhileHeld);
                // Its own lock can be had at once: no token is granted twice, so nobody else ever asks for this one.
                let number = stolen.granted.token.number();
                match inside.try_lock_of(&*self.disk, number).map_err(failed)? {
                    WriterLock::Ours(lock) => (state, stolen.from, lock, number),
                    WriterLock::Theirs(pid) => return Err(failed(NoTurn::Busy(pid).into())),
                }
            }
        };
        let from = from.map(|grant| grant.holder);
        let lease = self
            .granted(inside, &state, lock, number, from)
            .map_err(failed)?;
        lease.file.sync()?;
        if let Err((path, source)) = names::sync(&*self.disk, lease.appender.place()) {
            return Err(AcquireError::Io { path, source });
        }
        Ok(lease)
    }

    /// Adds a commit as the newest without a lease: see [`Home::commit`](crate::Home::commit).
    ///
    /// - **Durable**: on `Ok`, yes.
    pub fn commit(
        &self,
        name: &ImageName,
        checkout: Checkout,
        commit: &Commit,
        mark: &[u8],
    ) -> Result<CommitId, PublishError> {
        let failed = |error| publish_error(name, error);
        let prepared = Prepared::new(name, commit, mark)?;
        let inside = self.enter(name).map_err(failed)?;
        let lock = inside.try_lock(&*self.disk).map_err(failed)?;
        let mut state = match &lock {
            WriterLock::Ours(_) => inside.free(),
            WriterLock::Theirs(pid) => inside.held_by(*pid),
        };
        // The holder of a lease publishes through it, which knows where the log ends: here its token does not count.
        let token = checkout.token.filter(|token| !state.is_current(*token));
        let answer = state.commit(Checkout { token, ..checkout }, prepared.commit_id);
        match answer.map_err(|refusal| refused(name, checkout.base, refusal))? {
            Committed::Already => Ok(prepared.commit_id),
            Committed::New => {
                let disk = Arc::clone(&self.disk);
                let (place, log, tail) = (
                    inside.place.clone(),
                    inside.log.clone(),
                    inside.tail.clone(),
                );
                Appender::new(disk, place, log, tail).append(&prepared, state.last())
            }
        }
    }

    pub(super) fn enter(&self, name: &ImageName) -> Result<Inside, EnterError> {
        Inside::enter(&*self.disk, self.place(name), self.patience)
    }

    /// Goes back from a thief's lock to the ordinary one, if who was stolen from is gone.
    fn settle(
        &self,
        inside: &Inside,
        lock: Box<dyn Lock>,
    ) -> Result<(Box<dyn Lock>, u64), EnterError> {
        let number = inside.lock();
        if number == 0 {
            return Ok((lock, 0));
        }
        match inside.try_lock_of(&*self.disk, 0)? {
            WriterLock::Ours(ordinary) => {
                drop(lock);
                Ok((ordinary, 0))
            }
            WriterLock::Theirs(_) => Ok((lock, number)),
        }
    }

    /// Writes down what the rules granted.
    fn granted(
        &self,
        inside: Inside,
        state: &State,
        lock: Box<dyn Lock>,
        number: u64,
        taken_from: Option<Holder>,
    ) -> Result<WriterLease, EnterError> {
        if let Some(grant) = state.newest() {
            inside.file.write(&LeaseRecord {
                grant: grant.clone(),
                fenced: state.fenced(),
                lock: number,
            })?;
        }
        let fenced_alive = match state.fenced() {
            // Nobody was ever stolen from: no other lock can be held.
            Token::NONE => Vec::new(),
            _ => inside.others(&*self.disk, number)?,
        };
        let disk = Arc::clone(&self.disk);
        let Inside {
            place,
            file,
            log,
            tail,
            ..
        } = inside;
        Ok(WriterLease {
            appender: Appender::new(Arc::clone(&disk), place, log, tail),
            disk,
            file,
            token: state.last(),
            patience: self.patience,
            taken_from,
            fenced_alive,
            pid: process::id(),
            _lock: lock,
        })
    }
}
