//! Why a home says no: one type per operation, with what the refused has to know.

use segvm_blockcache::CommitId;

use super::event::{Grant, Token};

/// Why a lease was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireRefusal {
    /// Somebody has it.
    #[error("{}", held(.0))]
    Held(Grant),
    /// The session's lease is over and the image went on without it.
    #[error(transparent)]
    Orphaned(Box<Orphan>),
    /// The session's memory is not that of the newest commit.
    #[error("{}", moved(.base, .head))]
    Moved {
        /// What the session has.
        base: Option<CommitId>,
        /// The newest.
        head: Option<CommitId>,
    },
}

/// Why a lease was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewRefusal {
    /// It is over: it expired or was released.
    #[error("the lease with token {token} is over: acquire the image again")]
    Lapsed {
        /// The token that was shown.
        token: Token,
    },
    /// It was stolen.
    #[error(transparent)]
    Orphaned(Box<Orphan>),
}

/// Why a commit, or a hand-over, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitRefusal {
    /// Somebody else has the lease.
    #[error("{}", held(.0))]
    Held(Grant),
    /// The session had a lease, which was stolen, or ended before the image went on: it may only branch.
    #[error(transparent)]
    Orphaned(Box<Orphan>),
    /// There are commits since the session's checkout: it may only branch.
    #[error("{}", moved(.base, .head))]
    Moved {
        /// What the session's memory was equal to.
        base: Option<CommitId>,
        /// The newest.
        head: Option<CommitId>,
    },
    /// A hand-over needs a lease that is outstanding.
    #[error("the lease with token {token} is over: acquire the image again")]
    Lapsed {
        /// The token that was shown; [`Token::NONE`] where none was.
        token: Token,
    },
}

/// Who may only branch, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", orphaned(self))]
pub struct Orphan {
    /// The token of its lease, which is over.
    pub token: Token,
    /// The newest grant: it is later than the orphan's, unless a session without a lease committed.
    pub newest: Option<Grant>,
    /// The newest commit.
    pub head: Option<CommitId>,
}

/// There is no such lease any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no lease with token {token} is outstanding")]
pub struct NotHeld {
    /// The token that was shown.
    pub token: Token,
}

fn held(grant: &Grant) -> String {
    let holder = &grant.holder;
    format!(
        "the image is open for writing by {}, process {} on {}, since {}",
        holder.program, holder.pid, holder.host, holder.since
    )
}

fn moved(base: &Option<CommitId>, head: &Option<CommitId>) -> String {
    format!(
        "the image's newest commit is {}, this memory continues {}: branch",
        name(head),
        name(base)
    )
}

fn orphaned(orphan: &Orphan) -> String {
    match &orphan.newest {
        Some(grant) if grant.token != orphan.token => {
            let holder = &grant.holder;
            format!(
                "the image was taken over by {}, process {} on {}, at {}: branch to keep what changed since",
                holder.program, holder.pid, holder.host, holder.since
            )
        }
        _ => format!(
            "the lease ended and {} was committed by somebody else: branch to keep what changed since",
            name(&orphan.head)
        ),
    }
}

fn name(commit: &Option<CommitId>) -> String {
    commit.map_or_else(|| "none".to_owned(), |commit| format!("{commit:.12}"))
}
