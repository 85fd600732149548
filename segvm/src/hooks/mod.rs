//! What the application has done before its state is captured, and when it goes on from what was captured.
//!
//! | room | for |
//! |---|---|
//! | `call` | what a hook is told |
//! | `here` | which hooks this thread is in: a hook may not checkpoint |
//! | `run` | turns, order, limits, panics |
//! | `error` | [`HookError`] |
//!
//! Why it is as it is: docs/design/hooks.md. This room knows nothing of segments and captures nothing; no lock of the session is held
//! while a hook runs.

mod call;
mod error;
mod here;
mod run;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::region::Refill;

pub(crate) use self::run::{around, flush_now, regenerate, resume, said};
pub use self::{
    call::{Flush, Flushed, Reason, Resuming},
    error::{HookError, HookFailure, HookKind},
};

/// Any error of an application.
pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

/// What a hook may return: nothing, or whether it succeeded.
pub trait Outcome: sealed::Sealed {
    /// The same as a result.
    fn into_result(self) -> Result<(), AnyError>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
}

impl Outcome for () {
    fn into_result(self) -> Result<(), AnyError> {
        Ok(())
    }
}

impl<E: Into<AnyError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), AnyError> {
        self.map_err(Into::into)
    }
}

type FlushFn = dyn Fn(&mut Flush<'_>) -> Result<(), AnyError> + Send + Sync;
pub(crate) type RegenerateFn = dyn Fn(&Refill<'_>, &mut [u8]) -> Result<(), AnyError> + Send + Sync;
type ResumeFn = dyn Fn(&Resuming<'_>) -> Result<(), AnyError> + Send + Sync;

/// Something to run, and the name that it fails under.
pub(crate) struct Hook<F: ?Sized> {
    name: Arc<str>,
    run: Arc<F>,
}

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            run: Arc::clone(&self.run),
        }
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({:?})", self.name)
    }
}

/// The hooks that a session is opened with.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookList {
    flush: Vec<Hook<FlushFn>>,
    resume: Vec<Hook<ResumeFn>>,
    /// Under the name of the segment whose regions they fill.
    regenerate: Vec<Hook<RegenerateFn>>,
    limit: Option<Duration>,
}

impl HookList {
    pub(crate) fn on_flush<O: Outcome>(
        &mut self,
        name: &str,
        hook: impl Fn(&mut Flush<'_>) -> O + Send + Sync + 'static,
    ) {
        self.flush.push(Hook {
            name: name.into(),
            run: Arc::new(move |flush| hook(flush).into_result()),
        });
    }

    pub(crate) fn on_resume<O: Outcome>(
        &mut self,
        name: &str,
        hook: impl Fn(&Resuming<'_>) -> O + Send + Sync + 'static,
    ) {
        self.resume.push(Hook {
            name: name.into(),
            run: Arc::new(move |resumed| hook(resumed).into_result()),
        });
    }

    pub(crate) fn regenerate<O: Outcome>(
        &mut self,
        segment: &str,
        callback: impl Fn(&Refill<'_>, &mut [u8]) -> O + Send + Sync + 'static,
    ) {
        self.regenerate.push(Hook {
            name: segment.into(),
            run: Arc::new(move |refill, buffer| callback(refill, buffer).into_result()),
        });
    }

    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }
}

/// The hooks of one open session.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Tells sessions apart in the list that each thread keeps.
    id: u64,
    limit: Duration,
    /// A leaf lock: copied out before anything runs.
    list: Mutex<HookList>,
    /// Held while hooks run, before `Core::state`; waited for with a limit.
    turn: Mutex<()>,
    /// Which hook has the turn. A leaf lock.
    running: Mutex<Option<Arc<str>>>,
}
