//! The gate: a lock that everybody who changes a session's memory shares, and that a checkpoint takes alone.
//!
//! A guard of a [`Root`](crate::root::Root) holds a [`Pass`] for as long as it lives. A checkpoint calls
//! [`Gate::close`], which turns newcomers away until the passes are back, and copies the residue while nobody is in
//! the middle of a change. The gate knows threads and counts; it knows nothing of heaps, roots or segments.
//!
//! | file | what |
//! |---|---|
//! | `state` | the counts and flags in one atomic word |
//! | `holder` | what each thread holds, so that a wait that cannot end is named instead of waited for |
//! | `fork` | how a child of `fork` is told from the process that opened the session |
//! | `settle` | waiting for the changes that are under way |
//! | `error` | [`GateError`] |
//!
//! Lock order: `Gate::control` is a leaf. Nothing is called while it is held, and no segment memory is touched.

mod error;
mod fork;
mod holder;
mod settle;
mod state;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

pub use self::error::GateError;
use self::{fork::ForkMark, holder::Holder, state::Word};

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Looking at the session's memory: waited for only by what replaces that memory (suspend, restore, close).
    Read,
    /// Changing it: waited for by a checkpoint too.
    Write,
}

/// Whom a closed gate keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Writers: what a checkpoint needs. Readers go on.
    Writers,
    /// Writers and readers: what suspend and restore need.
    Everybody,
}

/// The name under which a pass is held, for messages: made once by [`Gate::label`], then free to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(u32);

/// What a session's writers share and a checkpoint takes alone.
pub struct Gate {
    /// Tells the gates of this process apart in the table that each thread keeps.
    id: u64,
    /// Where this process stood in the line of forks when the gate was made.
    born: ForkMark,
    word: Word,
    /// Pairs with `changed`: who closes, who holds, why poisoned. A leaf lock.
    control: Mutex<Control>,
    /// Signalled when the passes that a closing waits for are back, when the gate opens, and when it is shut.
    changed: Condvar,
}

#[derive(Default)]
struct Control {
    /// The thread that closes or has closed the gate.
    closer: Option<ThreadId>,
    /// Whether the closer has what it waited for.
    closed: bool,
    /// Every thread that ever entered and is still there, or is gone and left a pass behind.
    holders: Vec<Arc<Holder>>,
    labels: Vec<Arc<str>>,
    /// `Some` from a panic inside a write pass to [`Gate::clear_poison`].
    poison: Option<Arc<str>>,
}

impl Gate {
    /// Makes an open gate for one session.
    #[must_use]
    pub fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            born: ForkMark::here(),
            word: Word::open(),
            control: Mutex::new(Control::default()),
            changed: Condvar::new(),
        })
    }

    /// Gives `name` a label that passes can be held under; the same name gives the same label.
    #[must_use]
    pub fn label(&self, name: &str) -> Label {
        let mut control = self.control.lock();
        let at = control.labels.iter().position(|have| &**have == name);
        let at = at.unwrap_or_else(|| {
            control.labels.push(name.into());
            control.labels.len() - 1
        });
        Label(u32::try_from(at).expect("names in a program's source do not reach 2^32"))
    }

    /// Takes a pass, waiting while the gate is closed to its kind.
    ///
    /// A thread that already holds a pass is let in while a closer still waits: it has to get done.
    ///
    /// - **Cost**: an atomic addition and a look into a thread-local table; no lock unless the gate is closed.
    /// - **Blocks**: while a checkpoint copies its residue.
    /// - **Errors**: [`GateError::Closed`] once the session has ended, [`GateError::Forked`] in a child process.
    pub fn enter(&self, kind: Kind, label: Label) -> Result<Pass<'_>, GateError> {
        self.check_process()?;
        holder::with(self, |holder| {
            holder.comes(kind);
            if !self.word.add(kind) {
                let entered = self.enter_slowly(kind, holder);
                entered.inspect_err(|_| holder.went(kind))?;
            }
            holder.add(kind, label);
            Ok(())
        })?;
        Ok(Pass {
            gate: self,
            kind,
            was_panicking: thread::panicking(),
            not_send: PhantomData,
        })
    }

    /// Closes the gate: turns newcomers away and waits until every pass that matters to `closing` is back.
    ///
    /// - **Blocks**: at most for `timeout`; never where this thread itself is what it would wait for.
    /// - **Errors**: [`GateError::HeldHere`] where this thread holds a pass, [`GateError::TimedOut`] and
    ///   [`GateError::Leaked`] with the name of what is held, [`GateError::Poisoned`] after a panic in a write guard,
    ///   [`GateError::Closed`], [`GateError::Forked`]. After an error the gate is as open as it was.
    pub fn close(&self, closing: Closing, timeout: Duration) -> Result<Closed<'_>, GateError> {
        let closed = self.close_even_if_poisoned(closing, timeout)?;
        match self.poisoned() {
            Some(reason) => Err(GateError::Poisoned { reason }),
            None => Ok(closed),
        }
    }

    /// Tells at once whether closing the gate would wait for this very thread.
    ///
    /// - **Errors**: [`GateError::HeldHere`] with what is held, [`GateError::Forked`].
    pub fn check_here(&self, closing: Closing) -> Result<(), GateError> {
        self.check_process()?;
        match holder::with(self, |holder| holder.holds(closing)) {
            Some(label) => Err(GateError::HeldHere {
                what: self.name_of(label),
            }),
            None => Ok(()),
        }
    }

    /// The same for whoever is about to replace the memory, so that half-made changes in it do not matter: restore.
    ///
    /// - **Blocks**, **Errors**: as [`Gate::close`], but for [`GateError::Poisoned`].
    pub fn close_even_if_poisoned(
        &self,
        closing: Closing,
        timeout: Duration,
    ) -> Result<Closed<'_>, GateError> {
        self.check_here(closing)?;
        let started = Instant::now();
        let deadline = started.checked_add(timeout);
        let mut control = self.control.lock();
        while control.closer.is_some() {
            if self.wait(&mut control, deadline) {
                return Err(GateError::TimedOut {
                    what: "another checkpoint, suspend or restore".into(),
                    thread: thread_name(control.closer),
                    waited: started.elapsed(),
                });
            }
        }
        if self.word.is_shut() {
            return Err(GateError::Closed);
        }
        control.closer = Some(thread::current().id());
        self.word.start_closing(closing);
        while self.word.is_held(closing) {
            if self.wait(&mut control, deadline) && self.word.is_held(closing) {
                let error = control.who_holds(closing, started.elapsed());
                self.reopen(&mut control);
                return Err(error);
            }
        }
        control.closed = true;
        Ok(Closed { gate: self })
    }

    /// Keeps checkpoints out until [`Gate::clear_poison`], and says why: a change was left half made.
    pub fn poison(&self, reason: &str) {
        if self.check_process().is_ok() {
            self.control
                .lock()
                .poison
                .get_or_insert_with(|| reason.into());
        }
    }

    /// Why the gate is poisoned, where it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.check_process().ok()?;
        self.control.lock().poison.clone()
    }

    /// Lets checkpoints happen again: the caller has looked at the state and vouches for it.
    pub fn clear_poison(&self) {
        if self.check_process().is_ok() {
            self.control.lock().poison = None;
        }
    }

    /// Ends the gate's life with its session: whoever waits and whoever comes later gets [`GateError::Closed`].
    ///
    /// Passes that are held stay valid; to have none left, close for [`Closing::Everybody`] first and shut while closed.
    pub fn shut(&self) {
        if self.check_process().is_ok() {
            let _control = self.control.lock();
            self.word.shut();
            self.changed.notify_all();
        }
    }

    /// Tells whether [`Gate::shut`] was called.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.word.is_shut()
    }

    /// Fails in a child of `fork`, where nothing of the session may be touched.
    pub(crate) fn check_process(&self) -> Result<(), GateError> {
        if self.born.is_here() {
            Ok(())
        } else {
            Err(GateError::Forked)
        }
    }

    #[cold]
    fn enter_slowly(&self, kind: Kind, holder: &Holder) -> Result<(), GateError> {
        let mut control = self.control.lock();
        // `Word::add` came and went in the counts; a closer may have seen it.
        self.changed.notify_all();
        loop {
            if self.word.is_shut() {
                return Err(GateError::Closed);
            }
            // As long as the closer waits, who holds anything is let in: a writer may be waiting for what it holds.
            let admits = |closing: Closing| {
                let awaited = if control.closed {
                    closing
                } else {
                    Closing::Everybody
                };
                !closing.keeps_out(kind) || holder.holds(awaited).is_some()
            };
            if self.word.closing().is_none_or(admits) {
                // Under the lock no closing begins or ends, so the answer above still holds.
                self.word.add_unasked(kind);
                return Ok(());
            }
            self.changed.wait(&mut control);
        }
    }

    fn leave(&self, kind: Kind) {
        if self.word.sub(kind) {
            // Taken so that the notice cannot fall between a closer's look at the word and its wait.
            drop(self.control.lock());
            self.changed.notify_all();
        }
    }

    fn reopen(&self, control: &mut Control) {
        control.closer = None;
        control.closed = false;
        self.word.end_closing();
        self.changed.notify_all();
    }

    /// Waits for a change; `true` when the deadline has passed.
    fn wait(
        &self,
        control: &mut parking_lot::MutexGuard<'_, Control>,
        deadline: Option<Instant>,
    ) -> bool {
        match deadline {
            Some(deadline) => self.changed.wait_until(control, deadline).timed_out(),
            None => {
                self.changed.wait(control);
                false
            }
        }
    }

    /// The name that a label was made from.
    pub(crate) fn name_of(&self, label: Label) -> Arc<str> {
        self.control.lock().name(label)
    }

    fn register(&self, holder: Arc<Holder>) {
        let mut control = self.control.lock();
        control
            .holders
            .retain(|other| !other.is_gone_with_nothing());
        control.holders.push(holder);
    }
}

impl Control {
    fn name(&self, label: Label) -> Arc<str> {
        let name = usize::try_from(label.0)
            .ok()
            .and_then(|at| self.labels.get(at));
        name.cloned().unwrap_or_else(|| "a guard".into())
    }

    fn who_holds(&self, closing: Closing, waited: Duration) -> GateError {
        let held = |holder: &&Arc<Holder>| holder.holds(closing).is_some();
        let gone = self.holders.iter().filter(held).find(|h| h.is_gone());
        let holder = gone.or_else(|| self.holders.iter().find(held));
        let thread = holder.map_or_else(|| "unknown".into(), |h| h.thread().into());
        let label = holder.and_then(|holder| holder.holds(closing));
        let what = label.map_or_else(|| "a guard".into(), |label| self.name(label));
        if gone.is_some() {
            GateError::Leaked { what, thread }
        } else {
            GateError::TimedOut {
                what,
                thread,
                waited,
            }
        }
    }
}

impl Closing {
    const fn keeps_out(self, kind: Kind) -> bool {
        matches!((self, kind), (Self::Everybody, _) | (_, Kind::Write))
    }
}

fn thread_name(id: Option<ThreadId>) -> Arc<str> {
    format!("{id:?}").into()
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("id", &self.id)
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

/// Leave to be in the session's memory; given back on drop. It belongs to its thread.
#[must_use]
pub struct Pass<'g> {
    gate: &'g Gate,
    kind: Kind,
    /// A guard that is made and dropped while a panic unwinds has not been interrupted by it.
    was_panicking: bool,
    /// The thread's table of what it holds must be left by the thread that entered it.
    not_send: PhantomData<*mut ()>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.gate.check_process().is_err() {
            return;
        }
        if self.kind == Kind::Write && !self.was_panicking && thread::panicking() {
            self.gate
                .poison("a thread panicked while it held a write guard");
        }
        holder::remove(self.gate, self.kind, || self.gate.leave(self.kind));
    }
}

impl fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pass({:?})", self.kind)
    }
}

/// A gate that is closed; it opens on drop.
#[must_use]
#[derive(Debug)]
pub struct Closed<'g> {
    gate: &'g Gate,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if self.gate.check_process().is_ok() {
            self.gate.reopen(&mut self.gate.control.lock());
        }
    }
}
