//! The turn: held for a moment by whoever changes something of an image, so that check and change are one step.
//!
//! A lock of the kernel like the writer's own: who is killed holds nothing. Who is stopped in the middle of a change
//! keeps it, and nobody else changes anything until it goes on or dies: what it is about to write cannot be taken back.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use segvm_blockcache::disk::{Disk, Lock, LockAttempt};

/// How many tries come one after the other at once: most changes are shorter than the shortest sleep.
const AT_ONCE: u32 = 20;
/// Between the tries after these.
const PAUSE: Duration = Duration::from_millis(1);

/// The turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// Held for its drop alone.
    _lock: Box<dyn Lock>,
}

/// Why the turn did not come.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// This process had it all the time; 0 where it cannot be seen from here.
    Busy(u32),
    Io(PathBuf, io::Error),
}

impl Turn {
    /// Waits for the turn at the image in `dir`, which exists: about as long as `patience`.
    pub(super) fn take(disk: &dyn Disk, dir: &Path, patience: Duration) -> Result<Self, NoTurn> {
        let path = dir.join("turn");
        let mut slept = Duration::ZERO;
        let mut tried = 0;
        loop {
            let failed = |source| NoTurn::Io(path.clone(), source);
            let holder = match disk.try_lock(&path).map_err(failed)? {
                LockAttempt::Held(lock) => return Ok(Self { _lock: lock }),
                LockAttempt::Refused(by) => by.pid,
            };
            tried += 1;
            if tried < AT_ONCE {
                thread::yield_now();
            } else if slept < patience {
                thread::sleep(PAUSE);
                slept += PAUSE;
            } else {
                return Err(NoTurn::Busy(holder));
            }
        }
    }
}
