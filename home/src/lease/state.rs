//! What a home knows about one image, and the rules that change it.

use std::time::Duration;

use segvm_blockcache::CommitId;

use super::{
    event::{Answer, Checkout, Committed, Event, Grant, Granted, Stolen, Term, Token},
    refusal::{AcquireRefusal, CommitRefusal, NotHeld, Orphan, RenewRefusal},
};
use crate::{home::Holder, time::Timestamp};

/// Who may commit to an image, and what its newest commit is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct State {
    head: Option<CommitId>,
    /// The highest token ever granted. Never less than before.
    last: Token,
    /// To whom `last` was granted, where that is known.
    grant: Option<Grant>,
    standing: Standing,
    /// Tokens up to this one were stolen. Never less than before, never more than `last`.
    fenced: Token,
    /// The home's time at the last event.
    seen: Timestamp,
}

/// Whether the newest grant is outstanding. Older ones never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Standing {
    #[default]
    Over,
    /// With so much of its term left, which is never nothing.
    Left(Duration),
    WhileHeld,
}

impl State {
    /// An image with this newest commit that nobody has for writing. `last` is the highest token that may have been
    /// granted before, `fenced` the highest that was stolen.
    #[must_use]
    pub fn recovered(head: Option<CommitId>, last: Token, fenced: Token) -> Self {
        Self {
            head,
            last: last.max(fenced),
            fenced,
            ..Self::default()
        }
    }

    /// The same, and to whom the newest grant was made; it is over.
    #[must_use]
    pub fn over(head: Option<CommitId>, grant: Grant, fenced: Token) -> Self {
        Self {
            last: grant.token.max(fenced),
            grant: Some(grant),
            ..Self::recovered(head, Token::NONE, fenced)
        }
    }

    /// The same, and it is outstanding as long as the home sees its holder.
    #[must_use]
    pub fn held(head: Option<CommitId>, grant: Grant, fenced: Token) -> Self {
        Self {
            standing: Standing::WhileHeld,
            ..Self::over(head, grant, fenced)
        }
    }

    /// The same at the home's time `now`, which nothing was granted before.
    #[must_use]
    pub(crate) fn at(self, now: Timestamp) -> Self {
        Self { seen: now, ..self }
    }

    /// The newest commit.
    #[must_use]
    pub fn head(&self) -> Option<CommitId> {
        self.head
    }

    /// The highest token that was ever granted.
    #[must_use]
    pub fn last(&self) -> Token {
        self.last
    }

    /// The highest token that was stolen.
    #[must_use]
    pub fn fenced(&self) -> Token {
        self.fenced
    }

    /// The newest grant, outstanding or not.
    #[must_use]
    pub fn newest(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// The lease that is outstanding.
    #[must_use]
    pub fn outstanding(&self) -> Option<&Grant> {
        match self.standing {
            Standing::Over => None,
            Standing::Left(_) | Standing::WhileHeld => self.grant.as_ref(),
        }
    }

    /// How long the lease that is outstanding lasts from the last event on, when nobody renews it.
    #[must_use]
    pub fn left(&self) -> Option<Term> {
        match self.standing {
            Standing::Over => None,
            Standing::Left(left) => Some(Term::For(left)),
            Standing::WhileHeld => Some(Term::WhileHeld),
        }
    }

    /// What becomes of an image by one event at the home's time `now`, and the answer.
    ///
    /// Every event in every state has both. An answer that refuses leaves all but the time as it was.
    #[must_use]
    pub fn step(&self, event: &Event, now: Timestamp) -> (Self, Answer) {
        let mut next = self.clone();
        next.age(now);
        let answer = match event {
            Event::Acquire {
                holder,
                term,
                checkout,
            } => Answer::Acquire(next.acquire(holder, *term, *checkout)),
            Event::Renew { token, term } => Answer::Renew(next.renew(*token, *term)),
            Event::Release { token } => Answer::Release(next.end(*token)),
            Event::Ended { token } => Answer::Ended(next.end(*token)),
            Event::Steal { holder, term } => Answer::Steal(next.steal(holder, *term)),
            Event::Commit { checkout, commit } => Answer::Commit(next.commit(*checkout, *commit)),
            Event::HandOver {
                checkout,
                commit,
                to,
                term,
            } => Answer::HandOver(next.hand_over(*checkout, *commit, to, *term)),
            Event::Tick => Answer::Tick,
        };
        (next, answer)
    }

    /// Takes what passed off the term. A clock that went back stood still.
    fn age(&mut self, now: Timestamp) {
        let passed = now.since(self.seen);
        self.seen = now;
        if let Standing::Left(left) = self.standing {
            self.standing = standing(left.saturating_sub(passed));
        }
    }

    fn acquire(
        &mut self,
        holder: &Holder,
        term: Term,
        checkout: Option<Checkout>,
    ) -> Result<Granted, AcquireRefusal> {
        let Some(Checkout { token, base }) = checkout else {
            return self.open(holder, term).map_err(AcquireRefusal::Held);
        };
        match token {
            Some(token) if self.is_fenced(token) => {
                Err(AcquireRefusal::Orphaned(self.orphan(token)))
            }
            _ if self.outstanding().is_some() || base == self.head => {
                self.open(holder, term).map_err(AcquireRefusal::Held)
            }
            Some(token) => Err(AcquireRefusal::Orphaned(self.orphan(token))),
            None => Err(AcquireRefusal::Moved {
                base,
                head: self.head,
            }),
        }
    }

    /// Grants the lease to a session that has no memory yet, unless it is outstanding: to whom, then.
    pub(crate) fn open(&mut self, holder: &Holder, term: Term) -> Result<Granted, Grant> {
        match self.outstanding() {
            Some(grant) => Err(grant.clone()),
            None => Ok(self.grant(holder, term)),
        }
    }

    fn renew(&mut self, token: Token, term: Term) -> Result<(), RenewRefusal> {
        if self.is_fenced(token) {
            return Err(RenewRefusal::Orphaned(self.orphan(token)));
        }
        if !self.is_current(token) {
            return Err(RenewRefusal::Lapsed { token });
        }
        self.standing = begun(term);
        Ok(())
    }

    fn end(&mut self, token: Token) -> Result<(), NotHeld> {
        if !self.is_current(token) {
            return Err(NotHeld { token });
        }
        self.standing = Standing::Over;
        Ok(())
    }

    pub(crate) fn steal(&mut self, holder: &Holder, term: Term) -> Stolen {
        let from = self.outstanding().cloned();
        self.fenced = self.last;
        Stolen {
            granted: self.grant(holder, term),
            from,
        }
    }

    pub(crate) fn commit(
        &mut self,
        checkout: Checkout,
        commit: CommitId,
    ) -> Result<Committed, CommitRefusal> {
        if self.head == Some(commit) {
            return Ok(Committed::Already);
        }
        self.may_commit(checkout)?;
        self.head = Some(commit);
        Ok(Committed::New)
    }

    fn hand_over(
        &mut self,
        checkout: Checkout,
        commit: Option<CommitId>,
        to: &Holder,
        term: Term,
    ) -> Result<Granted, CommitRefusal> {
        self.may_commit(checkout)?;
        let token = checkout.token.unwrap_or(Token::NONE);
        if !self.is_current(token) {
            return Err(CommitRefusal::Lapsed { token });
        }
        self.head = commit.or(self.head);
        Ok(self.grant(to, term))
    }

    /// The current token; or no other commit since the checkout and no lease outstanding. See docs/design/leases.md
    /// for the two points in which this is stricter than those words.
    fn may_commit(&self, Checkout { token, base }: Checkout) -> Result<(), CommitRefusal> {
        let current = token.is_some_and(|token| self.is_current(token));
        match (token, self.outstanding()) {
            (Some(token), _) if self.is_fenced(token) => {
                Err(CommitRefusal::Orphaned(self.orphan(token)))
            }
            (Some(token), _) if base != self.head && !current => {
                Err(CommitRefusal::Orphaned(self.orphan(token)))
            }
            _ if base != self.head => Err(CommitRefusal::Moved {
                base,
                head: self.head,
            }),
            (_, Some(grant)) if !current => Err(CommitRefusal::Held(grant.clone())),
            _ => Ok(()),
        }
    }

    fn grant(&mut self, holder: &Holder, term: Term) -> Granted {
        self.last = self.last.next();
        self.grant = Some(Grant {
            token: self.last,
            holder: Holder {
                since: self.seen,
                ..holder.clone()
            },
        });
        self.standing = begun(term);
        Granted {
            token: self.last,
            head: self.head,
        }
    }

    pub(crate) fn is_current(&self, token: Token) -> bool {
        let outstanding = self.outstanding();
        outstanding.is_some_and(|grant| grant.token == token)
    }

    fn is_fenced(&self, token: Token) -> bool {
        token <= self.fenced
    }

    fn orphan(&self, token: Token) -> Box<Orphan> {
        Box::new(Orphan {
            token,
            newest: self.grant.clone(),
            head: self.head,
        })
    }
}

fn begun(term: Term) -> Standing {
    match term {
        Term::For(term) => standing(term),
        Term::WhileHeld => Standing::WhileHeld,
    }
}

fn standing(left: Duration) -> Standing {
    match left {
        Duration::ZERO => Standing::Over,
        left => Standing::Left(left),
    }
}
