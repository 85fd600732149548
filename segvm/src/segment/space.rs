//! A segment as the memory of a heap.

use std::{ptr::NonNull, sync::Arc};

use super::state::Shared;
use crate::heap::{Space, SpaceError};

/// Grows in steps, so that a growing heap makes few calls.
const STEP: usize = 1 << 20;

/// Lends a segment's memory to its heap.
#[derive(Debug)]
pub(crate) struct SegmentSpace {
    shared: Arc<Shared>,
}

impl SegmentSpace {
    pub(crate) fn boxed(shared: Arc<Shared>) -> Box<dyn Space> {
        Box::new(Self { shared })
    }
}

// SAFETY: `base..base + len` is committed memory of the segment's reservation: readable and writable from `grow` on until the
// session closes, at one address; `commit` makes new bytes zero.
unsafe impl Space for SegmentSpace {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.shared.base()))
            .unwrap_or(NonNull::dangling())
    }

    fn len(&self) -> usize {
        self.shared.len()
    }

    fn reserved(&self) -> usize {
        self.shared.reservation.len()
    }

    fn grow(&self, to: usize) -> Result<(), SpaceError> {
        let step = to
            .max(self.shared.len() + self.shared.len() / 8)
            .checked_next_multiple_of(STEP);
        let wanted = step
            .unwrap_or(to)
            .min(self.shared.reservation.len())
            .max(to);
        match self.shared.grow(wanted) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SpaceError::Reservation {
                to,
                reserved: self.reserved(),
            }),
            Err(refused) => Err(SpaceError::System(std::io::Error::other(refused))),
        }
    }
}
