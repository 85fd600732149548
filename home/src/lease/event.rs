//! What is asked of a home about one image, and what it answers.

use std::{fmt, time::Duration};

use segvm_blockcache::CommitId;

use super::refusal::{AcquireRefusal, CommitRefusal, NotHeld, RenewRefusal};
use crate::home::Holder;

/// The number of a grant. Of one image, no two grants have the same, and later ones have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(u64);

impl Token {
    /// What no grant has: lower than every token.
    pub const NONE: Self = Self(0);

    /// The token of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The one after it. The last of 2^64 stays what it is: no home lives that long.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a lease lasts when nobody renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// So long by the home's clock.
    For(Duration),
    /// Until the home itself sees that the holder is gone.
    WhileHeld,
}

/// What a session can show of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Checkout {
    /// The token of its last lease; `None` for a session that never had one.
    pub token: Option<Token>,
    /// The commit that its memory was last equal to, because it read or made it; `None` where there was none yet.
    pub base: Option<CommitId>,
}

/// A lease as it was granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Its token.
    pub token: Token,
    /// To whom, and since when by the home's clock.
    pub holder: Holder,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A session wants the lease.
    Acquire {
        /// Who.
        holder: Holder,
        /// For how long.
        term: Term,
        /// What it has already; `None` where it will read the head once it has the lease.
        checkout: Option<Checkout>,
    },
    /// A holder wants its term to begin again.
    Renew {
        /// Its token.
        token: Token,
        /// For how long from now.
        term: Term,
    },
    /// A holder gives the lease back.
    Release {
        /// Its token.
        token: Token,
    },
    /// The home saw that the holder is gone.
    Ended {
        /// The token it had.
        token: Token,
    },
    /// Somebody takes the lease, whoever has it.
    Steal {
        /// Who.
        holder: Holder,
        /// For how long.
        term: Term,
    },
    /// A session wants a commit to be the newest.
    Commit {
        /// What it can show.
        checkout: Checkout,
        /// The commit.
        commit: CommitId,
    },
    /// A holder passes the lease on, with a last commit.
    HandOver {
        /// What it can show.
        checkout: Checkout,
        /// The last commit; `None` where nothing changed.
        commit: Option<CommitId>,
        /// To whom.
        to: Holder,
        /// For how long.
        term: Term,
    },
    /// Time passed.
    Tick,
}

/// What is answered: each event has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Event::Acquire`].
    Acquire(Result<Granted, AcquireRefusal>),
    /// To [`Event::Renew`].
    Renew(Result<(), RenewRefusal>),
    /// To [`Event::Release`].
    Release(Result<(), NotHeld>),
    /// To [`Event::Ended`].
    Ended(Result<(), NotHeld>),
    /// To [`Event::Steal`].
    Steal(Stolen),
    /// To [`Event::Commit`].
    Commit(Result<Committed, CommitRefusal>),
    /// To [`Event::HandOver`].
    HandOver(Result<Granted, CommitRefusal>),
    /// To [`Event::Tick`].
    Tick,
}

/// A lease, and what its holder has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// The lease's token.
    pub token: Token,
    /// The newest commit.
    pub head: Option<CommitId>,
}

/// A lease that was taken, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stolen {
    /// What the thief has now.
    pub granted: Granted,
    /// Whose lease was outstanding; `None` where none was.
    pub from: Option<Grant>,
}

/// How a commit was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Committed {
    /// It is the newest now.
    New,
    /// It was the newest already: its sender did not get the first answer.
    Already,
}
