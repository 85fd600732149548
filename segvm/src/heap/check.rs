//! What is in use, and whether all structures agree.

use std::{collections::HashSet, fmt};

use super::{
    core::{Core, address, index, word},
    layout::{CLASSES, Class, KIND_FREE, KIND_LARGE, KIND_SPAN, UNIT, Unit},
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
    open_spans: HashSet<u32>,
}

impl Sums {
    fn find(&mut self, unit: u32, what: &'static str) {
        let offset = u64::from(unit) * word(UNIT);
        self.findings.push(Finding { offset, what });
    }
}

impl Core {
    pub(super) fn usage(&mut self) -> Usage {
        let reserved = word(self.reserved());
        let largest_free = self.walk().largest_free;
        let header = self.header();
        let held = u64::from(header.top) * word(UNIT);
        let overhead = u64::from(header.first_unit) * word(UNIT);
        Usage {
            allocated: header.allocated,
            blocks: header.blocks,
            free: held - overhead - header.allocated,
            largest_free,
            held,
            reserved,
        }
    }

    pub(super) fn check(&mut self) -> Result<(), Vec<Finding>> {
        let mut sums = self.walk();
        self.check_bins(&mut sums);
        self.check_open_spans(&mut sums);
        let header = self.header();
        if (header.allocated, header.blocks) != (sums.allocated, sums.blocks) {
            sums.find(0, "the header's counts differ from the blocks");
        }
        if sums.findings.is_empty() {
            Ok(())
        } else {
            Err(sums.findings)
        }
    }

    fn walk(&mut self) -> Sums {
        let mut sums = Sums::default();
        let header = self.header();
        let (mut at, top) = (header.first_unit, header.top);
        let mut after_free = false;
        while at < top {
            let Unit { kind, len, .. } = *self.unit(at);
            if len == 0 || len > top - at {
                sums.find(at, "a run of impossible length");
                break;
            }
            match kind {
                KIND_SPAN => self.walk_span(at, &mut sums),
                KIND_LARGE => {
                    sums.allocated += u64::from(len) * word(UNIT);
                    sums.blocks += 1;
                }
                KIND_FREE => {
                    let last = *self.unit(at + len - 1);
                    if (last.kind, last.len) != (KIND_FREE, len) {
                        sums.find(at, "a free run whose end does not know it");
                    }
                    if after_free || at + len == top {
                        sums.find(at, "a free run that was not merged");
                    }
                    sums.free_runs.insert(at);
                    sums.largest_free = sums.largest_free.max(u64::from(len) * word(UNIT));
                }
                _ => sums.find(at, "a run of unknown kind"),
            }
            after_free = kind == KIND_FREE;
            at += len;
        }
        sums
    }

    fn walk_span(&mut self, at: u32, sums: &mut Sums) {
        let base = address(self.address_of(at));
        let span = self.span(at);
        let (used, fresh, capacity) = (span.used, span.fresh, span.capacity);
        let (class, mut free) = (Class::from_index(span.class), span.free);
        let Some(class) = class.filter(|class| index(class.capacity()) == capacity) else {
            return sums.find(at, "a span of unknown class");
        };
        if fresh > capacity || used > fresh {
            return sums.find(at, "a span with more objects than fit");
        }
        let mut listed = 0;
        while free != 0 && listed <= fresh {
            let offset = free.wrapping_sub(base);
            let size = word(class.size());
            if !offset.is_multiple_of(size) || offset / size >= u64::from(fresh) {
                return sums.find(at, "a free list that leaves its span: written after free?");
            }
            listed += 1;
            let object = self.place(free);
            free = self.free_object(object)[0];
        }
        if listed != fresh - used {
            sums.find(at, "a free list that is too short or too long");
        }
        sums.allocated += u64::from(used) * word(class.size());
        sums.blocks += u64::from(used);
        if used < capacity {
            sums.open_spans.insert(at);
        }
    }

    fn check_bins(&mut self, sums: &mut Sums) {
        let bins = self.header().bins;
        for (bin, head) in bins.into_iter().enumerate() {
            if (head != 0) != (self.header().filled_bins >> bin & 1 == 1) {
                sums.find(head, "a bin that its bitmap does not know");
            }
            let mut at = head;
            while at != 0 {
                if !sums.free_runs.remove(&at) || self.unit(at).len.ilog2() as usize != bin {
                    sums.find(at, "a run in a bin it does not belong in");
                    break;
                }
                at = self.unit(at).next;
            }
        }
        if let Some(&lost) = sums.free_runs.iter().next() {
            sums.find(lost, "a free run in no bin");
        }
    }

    fn check_open_spans(&mut self, sums: &mut Sums) {
        let classes = (0..index(CLASSES)).filter_map(Class::from_index);
        for class in classes {
            let mut at = self.open_spans(class);
            while at != 0 {
                if !sums.open_spans.remove(&at) || self.span(at).class as usize != class.index() {
                    sums.find(at, "a span in a list it does not belong in");
                    break;
                }
                at = self.span(at).next;
            }
        }
        if let Some(&lost) = sums.open_spans.iter().next() {
            sums.find(lost, "a span with room in no list");
        }
    }
}
