//! Waiting for the changes that are under way, without keeping anybody out.
//!
//! A device that reads into memory (`O_DIRECT`, fixed buffers, RDMA) writes behind the page table: the page is noted as written when the
//! read begins, and holds what was read only when it ends. The rule is that such a read begins and ends within one pass. So after
//! a look at what was written, every read that the look has seen lies in a pass that is out now; once those passes are back, what
//! was found may be copied. Passes taken later do not matter: what they write is found by the next look.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Closing, Gate, holder::Holder};

/// A pass is back after microseconds as a rule; asking often is cheaper than having every pass tell.
const YIELDS: u32 = 64;
const NAP: Duration = Duration::from_micros(50);

impl Gate {
    /// Waits until every write pass that is out now has come back; newcomers are let in as ever.
    ///
    /// - **Cost**: nothing where no pass is out; otherwise a walk over the threads that ever entered.
    /// - **Blocks**: at most for `timeout`; `false` if a pass is still out then.
    pub(crate) fn settle(&self, timeout: Duration) -> bool {
        if !self.word.is_held(Closing::Writers) {
            return true;
        }
        let begun = Instant::now();
        let mut awaited = self.stays();
        let mut looks = 0;
        loop {
            awaited.retain(|(holder, stay)| holder.stay() == Some(*stay));
            if awaited.is_empty() {
                return true;
            }
            if begun.elapsed() >= timeout {
                return false;
            }
            looks += 1;
            if looks < YIELDS {
                thread::yield_now();
            } else {
                thread::sleep(NAP);
            }
        }
    }

    /// The threads that are in a write pass or on their way, each with which stay it is.
    pub(super) fn stays(&self) -> Vec<(Arc<Holder>, u64)> {
        let control = self.control.lock();
        let here = |holder: &Arc<Holder>| Some((Arc::clone(holder), holder.stay()?));
        control.holders.iter().filter_map(here).collect()
    }
}
