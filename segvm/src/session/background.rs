//! Checkpoints beside the program: on a thread of the session's, by a handle or automatically.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};
use segvm_blockcache::spans;

use super::core::Core;
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Saved, Style},
    hooks::{self, Reason},
};

/// How often the amount of dirt is looked at when it decides.
const LOOK: Duration = Duration::from_millis(50);

/// Checkpoints on the calling thread.
pub(crate) fn checkpoint_now(
    core: &Arc<Core>,
    rounds: Rounds,
    progress: &dyn Fn(u64),
) -> Result<Saved, CheckpointError> {
    core.check_process()?;
    // A guard held by this thread is told at once: waiting for the lock first could wait for a checkpoint that waits
    // for that guard.
    core.gate.check_here(crate::gate::Closing::Writers)?;
    let span = spans::span!(
        INFO,
        "checkpoint",
        image = %core.image(),
        sequence = spans::Empty,
        changed = spans::Empty,
        rounds = spans::Empty,
        bytes_paused = spans::Empty,
        bytes_written = spans::Empty,
        pause_us = spans::Empty,
        took_us = spans::Empty,
    );
    let done = hooks::around(core, Reason::Checkpoint, || {
        let mut state = core.state.lock();
        let state = state.as_mut().ok_or(CheckpointError::Closed)?;
        checkpoint::run(core, state, Style::Checkpoint(rounds), progress)
    });
    if let Ok(saved) = &done {
        spans::record!(
            span,
            sequence = saved.sequence,
            changed = saved.changed,
            rounds = saved.rounds,
            bytes_paused = saved.bytes_paused,
            bytes_written = saved.bytes_written,
            pause_us = spans::micros(saved.pause),
            took_us = spans::micros(saved.took),
        );
    }
    done
}

type OnDone = Arc<dyn Fn(&Result<Saved, CheckpointError>) + Send + Sync>;

/// When a session checkpoints by itself.
#[derive(Clone)]
pub struct Automatic {
    interval: Option<Duration>,
    dirty_bytes: Option<u64>,
    on_done: OnDone,
}

impl fmt::Debug for Automatic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automatic")
            .field("interval", &self.interval)
            .field("dirty_bytes", &self.dirty_bytes)
            .finish_non_exhaustive()
    }
}

impl Automatic {
    fn new(interval: Option<Duration>, dirty_bytes: Option<u64>) -> Self {
        Self {
            interval,
            dirty_bytes,
            on_done: Arc::new(|done| {
                if let Err(error) = done {
                    eprintln!("segvm: an automatic checkpoint failed: {error}");
                }
            }),
        }
    }

    /// Every `interval`, if anything changed.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self::new(Some(interval), None)
    }

    /// Whenever about that many bytes have been written to.
    #[must_use]
    pub fn after_bytes(dirty: u64) -> Self {
        Self::new(None, Some(dirty))
    }

    /// Also whenever about that many bytes have been written to.
    #[must_use]
    pub fn or_after_bytes(mut self, dirty: u64) -> Self {
        self.dirty_bytes = Some(dirty);
        self
    }

    /// Calls `done` on the session's thread after each attempt instead of printing errors to stderr.
    #[must_use]
    pub fn on_done(
        mut self,
        done: impl Fn(&Result<Saved, CheckpointError>) + Send + Sync + 'static,
    ) -> Self {
        self.on_done = Arc::new(done);
        self
    }
}

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    outcome: Mutex<Outcome>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Outcome {
    result: Option<Result<Saved, CheckpointError>>,
    waker: Option<Waker>,
}

/// A checkpoint that runs beside the program: wait for it, or await it with any executor, or neither.
///
/// Dropping it does not stop the checkpoint.
#[derive(Debug)]
#[must_use = "errors of this checkpoint are told by `wait` only"]
pub struct Checkpoint {
    progress: Arc<Progress>,
}

impl Checkpoint {
    /// Bytes of blocks looked at so far.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Tells whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.progress.outcome.lock().result.is_some()
    }

    /// Waits for the end.
    ///
    /// - **Blocks**: until the checkpoint is durable or has failed.
    pub fn wait(self) -> Result<Saved, CheckpointError> {
        let mut outcome = self.progress.outcome.lock();
        loop {
            if let Some(result) = outcome.result.take() {
                return result;
            }
            self.progress.done.wait(&mut outcome);
        }
    }
}

impl Future for Checkpoint {
    type Output = Result<Saved, CheckpointError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut outcome = self.progress.outcome.lock();
        match outcome.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                outcome.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Progress {
    fn finish(&self, result: Result<Saved, CheckpointError>) {
        let mut outcome = self.outcome.lock();
        outcome.result = Some(result);
        let waker = outcome.waker.take();
        drop(outcome);
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

enum Command {
    Start(Arc<Progress>),
    /// So many bytes of old blocks may be written again.
    LayOut(u64),
    Automatic(Automatic),
    /// There is an image to checkpoint to again.
    GoOn,
}

/// The session's thread, made when it is first needed. Ends when the sender is dropped.
pub(super) struct Background {
    commands: Sender<Command>,
    /// Set when the session is about to end: what only spares the next resume time is left undone. Pairs with nothing, it
    /// is a hint.
    hurry: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Option<Automatic>>>,
}

impl Background {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        let (commands, inbox) = bounded(64);
        let core = Arc::clone(core);
        let hurry = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&hurry);
        let work = move || {
            let mut when: Option<Automatic> = None;
            let mut last = Instant::now();
            // Told once that it cannot be: an orphan asks no more until it is the writer of another image.
            let mut given_up = false;
            loop {
                let due = when.as_ref().filter(|_| !given_up);
                let wait = due.map_or(Duration::from_secs(3600), |when| {
                    let due = when
                        .interval
                        .map_or(LOOK, |every| every.saturating_sub(last.elapsed()));
                    if when.dirty_bytes.is_some() {
                        due.min(LOOK)
                    } else {
                        due
                    }
                });
                match inbox.recv_timeout(wait) {
                    Ok(Command::Start(progress)) => {
                        let told = |bytes| {
                            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                        };
                        let done = checkpoint_now(&core, Rounds::Auto, &told);
                        let budget = done.as_ref().map_or(0, |saved| saved.to_lay_out);
                        progress.finish(done);
                        lay_out(&core, budget, &hurry);
                        last = Instant::now();
                    }
                    Ok(Command::LayOut(budget)) => lay_out(&core, budget, &hurry),
                    Ok(Command::Automatic(new)) => when = Some(new),
                    Ok(Command::GoOn) => given_up = false,
                    Err(RecvTimeoutError::Disconnected) => return when,
                    Err(RecvTimeoutError::Timeout) => {
                        let Some(when) = when.as_ref().filter(|_| !given_up) else {
                            continue;
                        };
                        let by_time = when.interval.is_some_and(|every| last.elapsed() >= every);
                        let by_dirt = || {
                            when.dirty_bytes
                                .is_some_and(|limit| dirty_bytes(&core) >= limit)
                        };
                        if by_time || by_dirt() {
                            let done = checkpoint_now(&core, Rounds::Auto, &|_| ());
                            (when.on_done)(&done);
                            given_up = done.as_ref().is_err_and(CheckpointError::is_for_good);
                            lay_out(&core, done.map_or(0, |saved| saved.to_lay_out), &hurry);
                            last = Instant::now();
                        }
                    }
                }
            }
        };
        // A thread that cannot be had is told by the first command that finds nobody at the other end.
        let thread = thread::Builder::new()
            .name("segvm-checkpoint".into())
            .spawn(work)
            .ok();
        Self {
            commands,
            thread,
            hurry: stopping,
        }
    }

    /// Has fragmented windows written again beside the program. Left out where much is waiting to be done: only the next
    /// resume's speed depends on it.
    pub(super) fn lay_out(&self, budget: u64) {
        let _later = self.commands.try_send(Command::LayOut(budget));
    }

    pub(super) fn start(&self) -> Checkpoint {
        let progress = Arc::new(Progress::default());
        if self
            .commands
            .send(Command::Start(Arc::clone(&progress)))
            .is_err()
        {
            progress.finish(Err(CheckpointError::Closed));
        }
        Checkpoint { progress }
    }

    /// Takes automatic checkpoints up again that an orphan had given up.
    pub(super) fn go_on(&self) {
        let _gone = self.commands.send(Command::GoOn);
    }

    pub(super) fn automatic(&self, when: Automatic) {
        let _gone = self.commands.send(Command::Automatic(when));
    }

    /// Lets the work in hand end, then joins the thread; answers when it would have checkpointed by itself.
    pub(super) fn stop(self) -> Option<Automatic> {
        self.hurry.store(true, Ordering::Relaxed);
        drop(self.commands);
        self.thread
            // A callback may drop the session on this very thread; it then ends by itself.
            .filter(|thread| thread.thread().id() != thread::current().id())
            .and_then(|thread| thread.join().unwrap_or_default())
    }
}

/// Writes fragmented windows again, a few at a time, so that a checkpoint that comes meanwhile hardly waits.
fn lay_out(core: &Core, mut budget: u64, hurry: &AtomicBool) {
    const STEP: u64 = 4 << 20;
    while budget > 0 && !hurry.load(Ordering::Relaxed) {
        let mut slot = core.state.lock();
        let Some(state) = slot.as_mut() else { return };
        let wrote = checkpoint::lay_out_again(core, state, budget.min(STEP));
        MutexGuard::unlock_fair(slot);
        if wrote == 0 {
            return;
        }
        budget = budget.saturating_sub(wrote);
    }
}

/// About how much was written since the last checkpoint.
fn dirty_bytes(core: &Core) -> u64 {
    let state = core.state.lock();
    let Some(state) = state.as_ref() else {
        return 0;
    };
    let mut runs = Vec::new();
    for segment in &state.segments {
        // Only an estimate: what cannot be told counts as nothing, and the next checkpoint finds it.
        for part in segment.shared.kept(segment.shared.committed()) {
            let _unknown = segment.tracker.peek(part, &mut runs);
        }
    }
    crate::dirty::pages_in(&runs) as u64
}
