//! What is in use, and whether all structures agree.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::{
    core::{address, index, word},
    layout::{Class, KIND_FREE, KIND_LARGE, KIND_SPAN, Span, UNIT, Unit},
    locks::All,
    spans::FreeObject,
};

/// How a heap's bytes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in live blocks, as large as their size class or their units.
    pub allocated: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Bytes of free runs, and of free objects.
    pub free: u64,
    /// Bytes of the longest free run below the top.
    pub largest_free: u64,
    /// Bytes up to the top: header, unit table, live and free.
    pub held: u64,
    /// Bytes that the heap can grow to.
    pub reserved: u64,
}

/// Something in a heap that disagrees with something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Offset in the segment of what is wrong, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heap offset {:#x}: {}", self.offset, self.what)
    }
}

/// What a walk through the unit table adds up.
#[derive(Default)]
struct Sums {
    findings: Vec<Finding>,
    allocated: u64,
    blocks: u64,
    largest_free: u64,
    free_runs: HashSet<u32>,
    /// Spans with room, and whose they are.
    open_spans: HashMap<u32, u32>,
}

impl Sums {
    fn find(&mut self, unit: u32, what: &'static str) {
        let offset = u64::from(unit) * word(UNIT);
        self.findings.push(Finding { offset, what });
    }
}

impl All<'_> {
    pub(super) fn usage(&self) -> Usage {
        let sums = self.walk();
        let header = self.core.header();
        let held = u64::from(header.top.get()) * word(UNIT);
        let overhead = u64::from(header.first_unit.get()) * word(UNIT);
        Usage {
            allocated: sums.allocated,
            blocks: sums.blocks,
            free: (held - overhead).saturating_sub(sums.allocated),
            largest_free: sums.largest_free,
            held,
            reserved: word(self.core.reserved()),
        }
    }

    pub(super) fn check(&self) -> Result<(), Vec<Finding>> {
        let mut sums = self.walk();
        self.check_bins(&mut sums);
        self.check_open_spans(&mut sums);
        if sums.findings.is_empty() {
            Ok(())
        } else {
            Err(sums.findings)
        }
    }

    fn walk(&self) -> Sums {
        let mut sums = Sums::default();
        let header = self.core.header();
        let (mut at, top) = (header.first_unit.get(), header.top.get());
        let mut after_free = false;
        while at < top {
            let unit = self.core.unit(at);
            let (kind, len) = (unit.kind.get(), unit.len.get());
            if len == 0 || len > top - at {
                sums.find(at, "a run of impossible length");
                break;
            }
            match kind {
                KIND_SPAN if len != 1 => sums.find(at, "a span of more than a unit"),
                KIND_SPAN => self.walk_span(at, &mut sums),
                KIND_LARGE => {
                    sums.allocated += u64::from(len) * word(UNIT);
                    sums.blocks += 1;
                }
                KIND_FREE => self.walk_free(at, len, after_free || at + len == top, &mut sums),
                _ => sums.find(at, "a run of unknown kind"),
            }
            if kind != KIND_SPAN && (at..at + len).any(|at| self.core.unit(at).owner.get() != 0) {
                sums.find(at, "a shard that owns what is no span");
            }
            after_free = kind == KIND_FREE;
            at += len;
        }
        sums
    }

    fn walk_free(&self, at: u32, len: u32, unmerged: bool, sums: &mut Sums) {
        let last = self.core.unit(at + len - 1);
        if (last.kind.get(), last.len.get()) != (KIND_FREE, len) {
            sums.find(at, "a free run whose end does not know it");
        }
        if unmerged {
            sums.find(at, "a free run that was not merged");
        }
        sums.free_runs.insert(at);
        sums.largest_free = sums.largest_free.max(u64::from(len) * word(UNIT));
    }

    fn walk_span(&self, at: u32, sums: &mut Sums) {
        let base = address(self.core.address_of(at));
        let unit = self.core.unit(at);
        let (span, owner) = (&unit.span, unit.owner.get().wrapping_sub(1));
        let (used, fresh, capacity) = (span.used.get(), span.fresh.get(), span.capacity.get());
        if owner >= self.core.shards() {
            return sums.find(at, "a span of no shard");
        }
        let class = Class::from_index(span.class.get());
        let Some(class) = class.filter(|class| index(class.capacity()) == capacity) else {
            return sums.find(at, "a span of unknown class");
        };
        if fresh > capacity || used > fresh {
            return sums.find(at, "a span with more objects than fit");
        }
        let (mut free, mut listed) = (span.free.get(), 0);
        while free != 0 && listed <= fresh {
            let offset = free.wrapping_sub(base);
            let size = word(class.size());
            if !offset.is_multiple_of(size) || offset / size >= u64::from(fresh) {
                return sums.find(at, "a free list that leaves its span: written after free?");
            }
            listed += 1;
            free = FreeObject(self.core.place(free)).next();
        }
        if listed != fresh - used {
            sums.find(at, "a free list that is too short or too long");
        }
        sums.allocated += u64::from(used) * word(class.size());
        sums.blocks += u64::from(used);
        if used < capacity {
            sums.open_spans.insert(at, owner);
        }
    }

    fn check_bins(&self, sums: &mut Sums) {
        let header = self.core.header();
        for (bin, head) in header.bins.iter().enumerate() {
            let head = head.get();
            if (head != 0) != (header.filled_bins.get() >> bin & 1 == 1) {
                sums.find(head, "a bin that its bitmap does not know");
            }
            let (mut at, mut before) = (head, 0);
            while at != 0 {
                // What the walk did not find may be no unit at all.
                let unit = sums.free_runs.remove(&at).then(|| self.core.unit(at));
                let fits = |unit: &&Unit| {
                    unit.len.get().ilog2() as usize == bin && unit.prev.get() == before
                };
                let Some(unit) = unit.filter(fits) else {
                    sums.find(at, "a run in a bin it does not belong in");
                    break;
                };
                (at, before) = (unit.next.get(), at);
            }
        }
        if let Some(&lost) = sums.free_runs.iter().next() {
            sums.find(lost, "a free run in no bin");
        }
    }

    fn check_open_spans(&self, sums: &mut Sums) {
        for number in 0..self.core.shards() {
            let heads = &self.core.shard_lists(number).open_spans;
            for (class, head) in heads.iter().enumerate() {
                let (mut at, mut before) = (head.get(), 0);
                while at != 0 {
                    let owned = sums.open_spans.remove(&at) == Some(number);
                    let span = owned.then(|| &self.core.unit(at).span);
                    let fits = |span: &&Span| {
                        span.class.get() as usize == class && span.prev.get() == before
                    };
                    let Some(span) = span.filter(fits) else {
                        sums.find(at, "a span in a list it does not belong in");
                        break;
                    };
                    (at, before) = (span.next.get(), at);
                }
            }
        }
        if let Some(&lost) = sums.open_spans.keys().next() {
            sums.find(lost, "a span with room in no list");
        }
    }
}
