//! How a session ends: suspended, or dropped.

use std::{thread, time::Instant};

use segvm_blockcache::spans;
use segvm_os::PageRange;

use super::{
    Role, Session,
    background::{Automatic, Background},
    core::{Core, State},
    error::SuspendError,
};
use crate::{
    checkpoint::{self, CheckpointError, Saved, Style},
    gate::Closing,
    hooks::{self, Reason},
};

impl Session {
    /// Saves everything and ends the session: the next one resumes by mapping.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the session goes on as before: the error holds it.
    /// - **Errors**: [`GateError::HeldHere`](crate::gate::GateError::HeldHere) if this thread holds a guard of one of its roots.
    pub fn suspend(self) -> Result<Saved, SuspendError> {
        // Told before anything is waited for: the session's thread may be waiting for a guard of this one.
        let free = self.core.check_process().and_then(|()| {
            let here = self.core.gate.check_here(Closing::Everybody);
            here.map_err(CheckpointError::from)
        });
        let free = free.and_then(|()| self.core.hooks.check_here());
        if let Err(reason) = free {
            let session = Box::new(self);
            return Err(SuspendError { session, reason });
        }
        let span = spans::span!(
            INFO,
            "suspend",
            image = %self.core.image(),
            sequence = spans::Empty,
            changed = spans::Empty,
            bytes_written = spans::Empty,
            took_us = spans::Empty,
        );
        let automatic = self.stop_background();
        match hooks::around(&self.core, Reason::Suspend, || self.try_suspend()) {
            Ok(saved) => {
                spans::record!(
                    span,
                    sequence = saved.sequence,
                    changed = saved.changed,
                    bytes_written = saved.bytes_written,
                    took_us = spans::micros(saved.took),
                );
                Ok(saved)
            }
            Err(reason) => {
                if let Some(when) = automatic {
                    self.background().automatic(when);
                }
                let session = Box::new(self);
                Err(SuspendError { session, reason })
            }
        }
    }

    fn try_suspend(&self) -> Result<Saved, CheckpointError> {
        let mut slot = self.core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        let closed = self
            .core
            .gate
            .close(Closing::Everybody, self.core.gate_timeout)?;
        let begun = Instant::now();
        let mut saved = checkpoint::run(&self.core, state, Style::Suspend, &|_| ())?;
        // The checkpoint is durable: memory is not needed any more. Sealing and the extent maps only spare the next open
        // some work.
        self.core.gate.shut();
        drop(closed);
        if let Some(state) = slot.take() {
            let _closing = spans::span!(DEBUG, "close");
            self.core.seal_and_close(state);
        }
        saved.pause = begun.elapsed();
        saved.took = begun.elapsed();
        Ok(saved)
    }

    /// Ends the session's thread; answers when it would have checkpointed by itself.
    pub(super) fn stop_background(&self) -> Option<Automatic> {
        let background = self.background.lock().take();
        background.and_then(Background::stop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.role == Role::Visitor || self.core.check_process().is_err() {
            // A forked child: its copy of everything is not the session's.
            return;
        }
        let _over = self.stop_background();
        let core = &self.core;
        let closed = core
            .gate
            .close_even_if_poisoned(Closing::Everybody, core.gate_timeout);
        core.gate.shut();
        if let Some(state) = core.state.lock().take() {
            match closed {
                Ok(_nobody_inside) => core.close(state),
                // Somebody still has a guard, and memory may not go away under it: it stays, and stays claimed, for the
                // life of the process. Nothing of it is saved.
                Err(held) => eprintln!(
                    "segvm: the session of image `{}` ended while in use, its memory is kept: {held}",
                    core.image()
                ),
            }
        }
    }
}

impl Core {
    /// Completes the pack and writes the extent maps, while another thread gives the memory back: 1 GiB of small pages
    /// takes as long as the rest of it.
    fn seal_and_close(&self, mut state: State) {
        let ranges = self.ranges_of(&mut state);
        thread::scope(|scope| {
            let aside = thread::Builder::new()
                .name("segvm-close".into())
                .spawn_scoped(scope, || self.give_back(&ranges));
            if state.seal().is_ok() {
                state.save_extents(self);
            }
            if aside.is_err() {
                self.give_back(&ranges);
            }
        });
    }

    /// Gives everything back but the addresses. The gate is closed to everybody, or nobody was ever let in.
    fn close(&self, mut state: State) {
        // The trackers live to the end of this: a registered range is replaced before its userfaultfd is closed.
        self.give_back(&self.ranges_of(&mut state));
    }

    fn ranges_of(&self, state: &mut State) -> Vec<PageRange> {
        state.segments.append(&mut self.arrivals.lock());
        let ranges = state.segments.iter();
        ranges.map(|segment| segment.shared.reservation).collect()
    }

    fn give_back(&self, ranges: &[PageRange]) {
        for &range in ranges {
            // SAFETY: the range is this session's, which ends here; no guard or pass is held, and the gate is shut, so none
            // is handed out any more.
            let _best_effort = unsafe { self.world.kernel.fence(range) };
            self.world.ranges.retire(range);
        }
    }
}
