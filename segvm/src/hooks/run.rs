//! Running hooks: one session's in turn, each within its limit, none of them taking the program down.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use segvm_blockcache::spans;
use segvm_home::Timestamp;

use super::{
    AnyError, Flush, Flushed, Hook, HookError, HookFailure, HookKind, HookList, Hooks, Outcome,
    Reason, RegenerateFn, Resuming, here,
};
use crate::{
    checkpoint::{CheckpointError, Saved},
    session::{Cause, Resumed, Session, core::Core},
};

/// How long a hook may run unless the application says otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// The turn of a session's hooks; nobody else's run until it is dropped.
struct Turn<'h> {
    hooks: &'h Hooks,
    _turn: MutexGuard<'h, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.hooks.running.lock() = None;
    }
}

impl Hooks {
    pub(crate) fn new(list: HookList) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            limit: list.limit.unwrap_or(LIMIT),
            list: Mutex::new(list),
            turn: Mutex::new(()),
            running: Mutex::new(None),
        }
    }

    pub(crate) fn on_flush<O: Outcome>(
        &self,
        name: &str,
        hook: impl Fn(&mut Flush<'_>) -> O + Send + Sync + 'static,
    ) {
        self.list.lock().on_flush(name, hook);
    }

    pub(crate) fn on_resume<O: Outcome>(
        &self,
        name: &str,
        hook: impl Fn(&Resuming<'_>) -> O + Send + Sync + 'static,
    ) {
        self.list.lock().on_resume(name, hook);
    }

    /// Refuses what a hook may not do.
    pub(crate) fn check_here(&self) -> Result<(), CheckpointError> {
        match here::of(self.id) {
            Some(hook) => Err(CheckpointError::InHook { hook }),
            None => Ok(()),
        }
    }

    fn turn(&self, kind: HookKind, timeout: Duration) -> Result<Turn<'_>, HookError> {
        match self.turn.try_lock_for(timeout) {
            Some(turn) => Ok(Turn {
                hooks: self,
                _turn: turn,
            }),
            None => Err(HookError {
                kind,
                hook: self.running.lock().clone().unwrap_or_else(|| "?".into()),
                failure: HookFailure::Busy { waited: timeout },
            }),
        }
    }

    /// The callback that fills regions of that segment.
    pub(crate) fn regenerator(&self, segment: &str) -> Option<Hook<RegenerateFn>> {
        let list = self.list.lock();
        let all = list.regenerate.iter().rev();
        all.clone().find(|hook| &*hook.name == segment).cloned()
    }

    /// Runs one hook that has the turn.
    fn call_in_turn(
        &self,
        kind: HookKind,
        hook: &Arc<str>,
        run: impl FnOnce(Instant) -> Result<(), AnyError>,
    ) -> Result<Duration, HookError> {
        *self.running.lock() = Some(Arc::clone(hook));
        self.call(kind, hook, self.limit, run)
    }

    fn call(
        &self,
        kind: HookKind,
        hook: &Arc<str>,
        limit: Duration,
        run: impl FnOnce(Instant) -> Result<(), AnyError>,
    ) -> Result<Duration, HookError> {
        let span = spans::span!(DEBUG, "hook", %kind, %hook, took_us = spans::Empty);
        let begun = Instant::now();
        let inside = here::enter(self.id, hook);
        // Unwinding crosses nothing of ours: what a hook leaves half-changed is behind guards, which poison the gate.
        let done = catch_unwind(AssertUnwindSafe(|| run(begun)));
        drop(inside);
        let took = begun.elapsed();
        spans::record!(span, took_us = spans::micros(took));
        let failure = match done {
            Err(panic) => HookFailure::Panicked {
                message: said(&*panic),
            },
            Ok(Err(error)) => HookFailure::Failed(error),
            Ok(Ok(())) if took > limit => HookFailure::Overran { took, limit },
            Ok(Ok(())) => return Ok(took),
        };
        Err(HookError {
            kind,
            hook: Arc::clone(hook),
            failure,
        })
    }
}

pub(crate) fn said(panic: &(dyn Any + Send)) -> Box<str> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("something that is no text").into()
}

/// Runs flush hooks, then `capture`; where either fails after a hook has begun, resume hooks.
///
/// - **Cost**: without flush hooks, the look at an empty list.
pub(crate) fn around(
    core: &Arc<Core>,
    reason: Reason,
    capture: impl FnOnce() -> Result<Saved, CheckpointError>,
) -> Result<Saved, CheckpointError> {
    core.hooks.check_here()?;
    if core.hooks.list.lock().flush.is_empty() {
        return capture();
    }
    if core.gate.is_shut() {
        return Err(CheckpointError::Closed);
    }
    let turn = core.hooks.turn(HookKind::Flush, core.gate_timeout)?;
    let flushed = flush(core, reason);
    drop(turn);
    let saved = match flushed {
        Ok(flushed) => capture().map(|saved| Saved { flushed, ..saved }),
        Err(error) => Err(error.into()),
    };
    saved.map_err(|error| match resume(core, failed(core)) {
        Ok(()) => error,
        Err(hook) => CheckpointError::Twice {
            first: Box::new(error),
            hook,
        },
    })
}

/// Runs flush hooks alone.
pub(crate) fn flush_now(core: &Arc<Core>, reason: Reason) -> Result<Vec<Flushed>, CheckpointError> {
    core.hooks.check_here()?;
    let _turn = core.hooks.turn(HookKind::Flush, core.gate_timeout)?;
    Ok(flush(core, reason)?)
}

fn flush(core: &Arc<Core>, reason: Reason) -> Result<Vec<Flushed>, HookError> {
    let hooks = &core.hooks;
    let list = hooks.list.lock().flush.clone();
    let session = Session::visiting(core);
    let mut all = Vec::with_capacity(list.len());
    for hook in list {
        let mut dropped = 0;
        let took = hooks.call_in_turn(HookKind::Flush, &hook.name, |begun| {
            let mut flush = Flush {
                session: &session,
                reason,
                begun,
                limit: hooks.limit,
                dropped: 0,
            };
            let done = (hook.run)(&mut flush);
            dropped = flush.dropped;
            done
        })?;
        all.push(Flushed {
            hook: hook.name,
            dropped,
            took,
        });
    }
    Ok(all)
}

/// Runs every resume hook, newest first; answers the first failure.
pub(crate) fn resume(core: &Arc<Core>, how: Resumed) -> Result<(), HookError> {
    let hooks = &core.hooks;
    let list = hooks.list.lock().resume.clone();
    if list.is_empty() {
        return Ok(());
    }
    let _turn = hooks.turn(HookKind::Resume, core.gate_timeout)?;
    let session = Session::visiting(core);
    let told = Resuming {
        session: &session,
        generation: how.generation,
        cause: how.cause,
        elapsed: how.elapsed,
    };
    let mut first = Ok(());
    for hook in list.iter().rev() {
        let done = hooks.call_in_turn(HookKind::Resume, &hook.name, |_begun| (hook.run)(&told));
        first = first.and(done.map(|_took| ()));
    }
    first
}

/// How memory is what it is after a checkpoint that failed: nothing came or went.
fn failed(core: &Core) -> Resumed {
    let state = core.state.lock();
    let head = state.as_ref().and_then(|state| state.head.as_ref());
    let now = Timestamp::from((core.world.now)());
    Resumed {
        cause: Cause::Failed,
        generation: state.as_ref().map_or(0, |state| state.generation),
        elapsed: head.map_or(Duration::ZERO, |head| now.since(head.commit.time)),
    }
}

/// Runs a callback as often as `fill` does. It takes no turn: a flush hook may discard what is filled again at once. It has no
/// limit: how long filling takes depends on how much there is.
pub(crate) fn regenerate(
    core: &Core,
    callback: &Hook<RegenerateFn>,
    fill: impl FnOnce(&RegenerateFn) -> Result<(), AnyError>,
) -> Result<(), HookError> {
    let kind = HookKind::Regenerate;
    let run = |_begun| fill(&*callback.run);
    core.hooks
        .call(kind, &callback.name, Duration::MAX, run)
        .map(|_took| ())
}
