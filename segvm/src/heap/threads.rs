//! Small numbers for the threads of this process, which tell each its shard of every heap.
//!
//! A thread takes the lowest number that is free and gives it back when it ends. So a program with one thread uses one
//! shard, run after run, and threads that come and go use those of the ones before.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How many numbers there are; threads beyond share them.
const NUMBERS: u32 = u64::BITS;

/// The numbers of this process's threads.
static TAKEN: Numbers = Numbers(AtomicU64::new(0));

thread_local! {
    static NUMBER: Number = Number::take();
}

/// This thread's number; 0 in a destructor of another thread-local, after its own was given back.
#[inline]
pub(super) fn number() -> u32 {
    NUMBER.try_with(|own| own.number).unwrap_or(0)
}

/// Bit n is set while a thread has number n. Relaxed: a number is a hint, what it leads to has a lock.
struct Numbers(AtomicU64);

impl Numbers {
    /// The lowest number that is free.
    fn take(&self) -> Option<u32> {
        let with_lowest = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
        let before = self.0.fetch_update(Relaxed, Relaxed, with_lowest).ok()?;
        Some(before.trailing_ones())
    }

    fn give(&self, number: u32) {
        self.0.fetch_and(!(1 << number), Relaxed);
    }

    fn live(&self) -> Live {
        Live(self.0.load(Relaxed))
    }
}

/// One thread's number.
struct Number {
    number: u32,
    /// Whether it is this thread's alone, to be given back.
    own: bool,
}

impl Number {
    fn take() -> Self {
        static NEXT_SHARED: AtomicU32 = AtomicU32::new(0);
        let own = TAKEN.take();
        Self {
            number: own.unwrap_or_else(|| NEXT_SHARED.fetch_add(1, Relaxed) % NUMBERS),
            own: own.is_some(),
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if self.own {
            TAKEN.give(self.number);
        }
    }
}

/// Which numbers have threads.
#[derive(Clone, Copy)]
pub(super) struct Live(u64);

impl Live {
    pub(super) fn now() -> Self {
        TAKEN.live()
    }

    /// Tells whether a thread has this number, or one that falls on it modulo `shards`.
    pub(super) fn uses(self, shard: u32, shards: u32) -> bool {
        (shard..NUMBERS)
            .step_by(shards as usize)
            .any(|number| self.0 >> number & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken_until_there_is_none() {
        let numbers = Numbers(AtomicU64::new(0));
        for n in 0..64 {
            assert_eq!(numbers.take(), Some(n));
        }
        assert_eq!(numbers.take(), None);
        numbers.give(40);
        numbers.give(7);
        assert_eq!(numbers.take(), Some(7));
        assert!(!numbers.live().uses(40, 64) && numbers.live().uses(8, 32));
        assert_eq!(numbers.take(), Some(40));
    }

    #[test]
    fn threads_at_the_same_time_have_different_numbers() {
        let both_have_one = Barrier::new(2);
        let ask = || {
            let first = number();
            both_have_one.wait();
            assert_eq!(number(), first);
            first
        };
        let (one, other) = thread::scope(|scope| {
            let (one, other) = (scope.spawn(ask), scope.spawn(ask));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_ne!(one, other);
    }

    #[test]
    fn a_shard_is_used_by_every_number_that_falls_on_it() {
        let live = Live(1 << 0 | 1 << 34);
        assert!(live.uses(0, 32) && live.uses(2, 32));
        assert!(!live.uses(1, 32) && !live.uses(31, 32));
        assert!(live.uses(34, 64) && !live.uses(2, 64));
        assert!(live.uses(0, 1));
    }
}
