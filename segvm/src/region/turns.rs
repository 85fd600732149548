//! The lock of a region: shared or alone, knows its holders, never waits for its own thread, and not for ever for another.

use std::{
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// How a region is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Shared,
    Alone,
}

/// Why it was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// This thread is in already.
    Here,
    /// Another one is, after so long.
    Elsewhere(Duration),
}

/// Who is in. Not in the image: after a resume nobody is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// A leaf lock.
    inside: Mutex<Inside>,
    /// Signalled when somebody leaves.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    /// A thread that shares more than once is there more than once.
    sharing: Vec<ThreadId>,
    alone: Option<ThreadId>,
    /// How many wait to be alone: newcomers who have no turn yet let them go first.
    waiting: usize,
}

impl Turns {
    pub(super) fn enter(&self, turn: Turn, timeout: Duration) -> Result<(), NoTurn> {
        let me = thread::current().id();
        let begun = Instant::now();
        let deadline = begun.checked_add(timeout);
        let mut inside = self.inside.lock();
        let shares = inside.sharing.contains(&me);
        if inside.alone == Some(me) || (turn == Turn::Alone && shares) {
            return Err(NoTurn::Here);
        }
        inside.waiting += usize::from(turn == Turn::Alone);
        let mut late = false;
        let entered = loop {
            let free = match turn {
                Turn::Shared => inside.alone.is_none() && (shares || inside.waiting == 0),
                Turn::Alone => inside.alone.is_none() && inside.sharing.is_empty(),
            };
            if free || late {
                break free;
            }
            match deadline {
                Some(deadline) => late = self.left.wait_until(&mut inside, deadline).timed_out(),
                None => self.left.wait(&mut inside),
            }
        };
        inside.waiting -= usize::from(turn == Turn::Alone);
        if !entered {
            // Those who let this one go first need not any more.
            self.left.notify_all();
            return Err(NoTurn::Elsewhere(begun.elapsed()));
        }
        match turn {
            Turn::Shared => inside.sharing.push(me),
            Turn::Alone => inside.alone = Some(me),
        }
        Ok(())
    }

    /// Gives back a turn of this thread's.
    pub(super) fn leave(&self, turn: Turn) {
        let me = thread::current().id();
        let mut inside = self.inside.lock();
        match turn {
            Turn::Shared => {
                if let Some(at) = inside.sharing.iter().position(|&thread| thread == me) {
                    inside.sharing.swap_remove(at);
                }
            }
            Turn::Alone => inside.alone = None,
        }
        drop(inside);
        self.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    const NEVER: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_for_itself() {
        let turns = Turns::default();
        turns.enter(Turn::Shared, NEVER).unwrap();
        turns.enter(Turn::Shared, NEVER).unwrap();
        assert_eq!(turns.enter(Turn::Alone, NEVER), Err(NoTurn::Here));
        turns.leave(Turn::Shared);
        assert_eq!(turns.enter(Turn::Alone, NEVER), Err(NoTurn::Here));
        turns.leave(Turn::Shared);
        turns.enter(Turn::Alone, NEVER).unwrap();
        for turn in [Turn::Shared, Turn::Alone] {
            assert_eq!(turns.enter(turn, NEVER), Err(NoTurn::Here));
        }
    }

    #[test]
    fn others_are_waited_for_up_to_the_limit_and_whoever_waits_alone_goes_first() {
        let turns = Arc::new(Turns::default());
        turns.enter(Turn::Shared, NEVER).unwrap();
        let there = Arc::clone(&turns);
        let late = thread::spawn(move || there.enter(Turn::Alone, Duration::ZERO));
        assert!(matches!(late.join().unwrap(), Err(NoTurn::Elsewhere(_))));
        let there = Arc::clone(&turns);
        let alone = thread::spawn(move || {
            there.enter(Turn::Alone, NEVER).unwrap();
            there.leave(Turn::Alone);
        });
        while turns.inside.lock().waiting == 0 {
            thread::yield_now();
        }
        let there = Arc::clone(&turns);
        let newcomer = thread::spawn(move || there.enter(Turn::Shared, Duration::ZERO));
        assert!(matches!(
            newcomer.join().unwrap(),
            Err(NoTurn::Elsewhere(_))
        ));
        turns.enter(Turn::Shared, NEVER).unwrap();
        turns.leave(Turn::Shared);
        turns.leave(Turn::Shared);
        alone.join().unwrap();
        turns.enter(Turn::Shared, Duration::ZERO).unwrap();
    }

    #[test]
    fn alone_means_alone() {
        let (turns, inside) = (Turns::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            for n in 0..4 {
                let (turns, inside) = (&turns, &inside);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let alone = (n + round) % 3 == 0;
                        let (turn, weight) = if alone {
                            (Turn::Alone, 1000)
                        } else {
                            (Turn::Shared, 1)
                        };
                        turns.enter(turn, NEVER).unwrap();
                        let before = inside.fetch_add(weight, Ordering::SeqCst);
                        assert!(if alone { before == 0 } else { before < 1000 });
                        inside.fetch_sub(weight, Ordering::SeqCst);
                        turns.leave(turn);
                    }
                });
            }
        });
    }
}
