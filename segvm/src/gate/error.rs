use std::{sync::Arc, time::Duration};

/// Why the gate could not be entered or closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// This thread holds what it would wait for.
    #[error(
        "this thread holds a guard of {what:?}: drop it first (waiting for it would never end)"
    )]
    HeldHere {
        /// What is held.
        what: Arc<str>,
    },
    /// Another thread did not let go in time.
    #[error(
        "thread {thread:?} still holds a guard of {what:?} after {waited:?}: keep guards for one change, not for a loop"
    )]
    TimedOut {
        /// What is held.
        what: Arc<str>,
        /// The holder's name, or its id where it has none.
        thread: Arc<str>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A thread has ended without dropping its guard, so nothing can ever give it back.
    #[error(
        "thread {thread:?} ended while a guard of {what:?} was forgotten (mem::forget, or a leaked Box): \
         no checkpoint can happen any more; start the program again"
    )]
    Leaked {
        /// What was held.
        what: Arc<str>,
        /// The name of the thread that is gone, or its id where it had none.
        thread: Arc<str>,
    },
    /// A panic interrupted a change.
    #[error(
        "{reason}: the state may be half changed; the last checkpoint stays the newest until the poison is cleared"
    )]
    Poisoned {
        /// What happened.
        reason: Arc<str>,
    },
    /// The session has ended.
    #[error("the session has ended: open the image again and take its roots from there")]
    Closed,
    /// This process is a child of the one that opened the session.
    #[error("this process was forked from the one that opened the session: it has none of its own")]
    Forked,
}
