//! The rules of leases and commits: one total function of state, event and time.
//!
//! Knows no file, no socket and no clock. A home keeps a [`State`] for each image, gives it every event, makes the
//! new state durable together with the commit (if there is one), and only then passes the answer on. Why the rules
//! are these: docs/design/leases.md.
//!
//! | file | for |
//! |---|---|
//! | `state` | what a home knows of an image, and the rules |
//! | `event` | what is asked, and what is answered |
//! | `refusal` | why not, per operation |

mod event;
mod refusal;
mod state;

pub use self::{
    event::{Answer, Checkout, Committed, Event, Grant, Granted, Stolen, Term, Token},
    refusal::{AcquireRefusal, CommitRefusal, NotHeld, Orphan, RenewRefusal},
    state::State,
};
