//! Who in this process holds which addresses, and where a new segment goes.
//!
//! A closed session's range stays reserved for the life of the process, so that a stale pointer faults and never
//! aliases another image's memory. Only the same segment of the same image may be opened there again.

use std::{collections::BTreeMap, path::PathBuf};

use parking_lot::Mutex;
use segvm_os::{FaultKind, FaultWatch, Kernel, KernelError, PageRange, watch_faults};

const GIB: usize = 1 << 30;
/// Bases are chosen from 16 TiB (above what programs and their libraries use when loaded low) ...
const LOWEST: usize = 16 << 40;
/// ... to 80 TiB (below the stack and the libraries, with room for sanitizers' shadow in between).
const HIGHEST: usize = 80 << 40;

/// The owner of a range: which segment of which image in which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The store's directory.
    pub store: PathBuf,
    /// The image's name.
    pub image: String,
    /// The segment's name.
    pub segment: String,
}

#[derive(Debug)]
struct Claim {
    len: usize,
    owner: Owner,
    live: bool,
    /// What is said when a page of the range faults; `None` where there was no room for it, or in a simulation.
    fault: Option<FaultWatch>,
}

/// Why a range could not be claimed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another open session of this process has it.
    #[error(
        "segment `{}` of image `{}` ({}) is open in this process at {range}: close or suspend that session first",
        .by.segment, .by.image, .by.store.display()
    )]
    Open {
        /// The range that was asked for.
        range: PageRange,
        /// Who has it.
        by: Box<Owner>,
    },
    /// A closed session of another segment had it; it stays reserved.
    #[error(
        "{range} was used in this process by segment `{}` of image `{}` ({}) and stays reserved: \
         open this one in a process of its own, or create it with another base",
        .by.segment, .by.image, .by.store.display()
    )]
    Used {
        /// The range that was asked for.
        range: PageRange,
        /// Who had it.
        by: Box<Owner>,
    },
    /// Something that is not segvm's lies there.
    #[error(
        "{0}; a segment lives at one address for ever: open it in a process that leaves that range free"
    )]
    Kernel(#[from] KernelError),
    /// No free place was found for a new segment.
    #[error(
        "no free range of {len} bytes between 16 and 80 TiB for a new segment: give it a base or a smaller reservation"
    )]
    Full {
        /// The reservation that was wanted.
        len: usize,
    },
}

/// The claims of one process (of one kernel, in a simulation).
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// By address. Innermost lock: held only for the look-up and one mmap.
    claims: Mutex<BTreeMap<usize, Claim>>,
    /// Whether the addresses are this process's own, so that a fault there is a signal.
    real: bool,
}

impl Ranges {
    /// The claims on this process's own addresses.
    pub(crate) fn real() -> Self {
        Self {
            real: true,
            ..Self::default()
        }
    }
}

impl Ranges {
    pub(crate) fn is_real(&self) -> bool {
        self.real
    }

    /// Reserves exactly `range` for `owner`; its own range of an earlier session is taken over.
    pub(crate) fn claim(
        &self,
        kernel: &dyn Kernel,
        range: PageRange,
        owner: &Owner,
    ) -> Result<(), ClaimError> {
        let mut claims = self.claims.lock();
        let overlapping = claims
            .range(..range.end())
            .rev()
            .map(|(&start, claim)| (start, claim))
            .find(|(start, claim)| start + claim.len > range.start());
        if let Some((start, claim)) = overlapping {
            let by = Box::new(claim.owner.clone());
            if claim.live {
                return Err(ClaimError::Open { range, by });
            }
            if start != range.start() || claim.len != range.len() || claim.owner != *owner {
                return Err(ClaimError::Used { range, by });
            }
        } else {
            kernel.reserve(range)?;
        }
        let fault = self.watch(range, FaultKind::Unreadable, owner);
        claims.insert(
            range.start(),
            Claim {
                len: range.len(),
                owner: owner.clone(),
                live: true,
                fault,
            },
        );
        Ok(())
    }

    /// Reserves `len` bytes for a new segment: at a place made from its names, or the next free one.
    pub(crate) fn claim_any(
        &self,
        kernel: &dyn Kernel,
        len: usize,
        owner: &Owner,
    ) -> Result<PageRange, ClaimError> {
        let slots = (HIGHEST - LOWEST) / GIB;
        let first = usize::try_from(place_of(owner) % slots as u64).unwrap_or_default();
        for step in 0..slots.min(4096) {
            // A stride that is coprime to the number of slots leaves a crowded neighbourhood at once.
            let slot = (first + step * 67) % slots;
            let start = LOWEST + slot * GIB;
            let Some(range) = PageRange::new(kernel.page_size(), start, len) else {
                return Err(ClaimError::Full { len });
            };
            match self.claim(kernel, range, owner) {
                Ok(()) => return Ok(range),
                Err(ClaimError::Kernel(error)) if !matches!(error, KernelError::Taken { .. }) => {
                    return Err(error.into());
                }
                Err(_taken) => {}
            }
        }
        Err(ClaimError::Full { len })
    }

    /// Notes that the session that has the range is another image's now.
    pub(crate) fn pass_on(&self, range: PageRange, owner: &Owner) {
        if let Some(claim) = self.claims.lock().get_mut(&range.start()) {
            claim.owner = owner.clone();
            claim.fault = None;
            claim.fault = self.watch(range, FaultKind::Unreadable, owner);
        }
    }

    /// Notes that the session that had the range is closed. The range stays reserved.
    pub(crate) fn retire(&self, range: PageRange) {
        if let Some(claim) = self.claims.lock().get_mut(&range.start()) {
            claim.live = false;
            // The old text goes first: both would be printed for the same addresses.
            claim.fault = None;
            claim.fault = self.watch(range, FaultKind::Forbidden, &claim.owner);
        }
    }

    /// Has a fault in the range explained before the process dies of it. There is room for some hundred ranges; a fault
    /// in one that found none is the bare signal, which is no less safe.
    fn watch(&self, range: PageRange, kind: FaultKind, owner: &Owner) -> Option<FaultWatch> {
        if !self.real {
            return None;
        }
        let Owner {
            store,
            image,
            segment,
        } = owner;
        let text = match kind {
            // The pack and the offset in it follow, from the kernel. The directory comes last: a long one is cut.
            FaultKind::Unreadable => format!(
                "segvm: a page of segment `{segment}` of image `{image}` could not be read: the disk failed, or a pack \
                 was cut; `Session::restore` an older checkpoint, or the store from a copy; its packs are in {}",
                store.join("packs").display()
            ),
            _ => format!(
                "segvm: memory of segment `{segment}` of image `{image}` was used after its session had ended"
            ),
        };
        watch_faults(range, kind, &text).ok()
    }
}

/// A number that depends on the names alone (FNV-1a): the same image tends to the same base on every machine.
fn place_of(owner: &Owner) -> u64 {
    let bytes = owner.image.bytes().chain([0]).chain(owner.segment.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
