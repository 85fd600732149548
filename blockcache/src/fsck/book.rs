//! Findings while they are being made: where each lies, so that whoever reaches that place is told.

use std::{collections::HashMap, ops::Range, path::Path, sync::Arc};

use super::report::{Finding, Severity, What};

/// A finding's number.
pub(super) type Number = usize;

/// Part of a pack in which a finding concerns everything.
pub(super) struct Taint {
    pub(super) range: Range<u64>,
    pub(super) number: Number,
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Book {
    pub(super) findings: Vec<Finding>,
    /// Taints by the pack's number in the catalog.
    taints: HashMap<usize, Vec<Taint>>,
    /// Copies whose bytes are wrong or unreadable, by pack, offset and id.
    copies: HashMap<(usize, u64, [u8; 32]), Number>,
    /// Findings that concern a whole image.
    pub(super) images: Vec<(Arc<str>, Number)>,
}

impl Book {
    pub(super) fn add(
        &mut self,
        severity: Severity,
        path: Option<&Path>,
        offset: u64,
        what: What,
    ) -> Number {
        self.findings.push(Finding {
            what,
            severity,
            path: path.map(Path::to_owned),
            offset,
            touches: Vec::new(),
        });
        self.findings.len() - 1
    }

    pub(super) fn taint(&mut self, pack: usize, range: Range<u64>, number: Number) {
        let taints = self.taints.entry(pack).or_default();
        taints.push(Taint { range, number });
    }

    pub(super) fn image(&mut self, image: Arc<str>, number: Number) {
        self.images.push((image, number));
    }

    pub(super) fn bad_copy(&mut self, pack: usize, offset: u64, id: [u8; 32], number: Number) {
        self.copies.insert((pack, offset, id), number);
    }

    pub(super) fn copy(&self, pack: usize, offset: u64, id: &[u8; 32]) -> Option<Number> {
        self.copies.get(&(pack, offset, *id)).copied()
    }

    /// The findings that concern a place.
    pub(super) fn at(&self, pack: usize, offset: u64, id: &[u8; 32]) -> Vec<Number> {
        let taints = self.taints.get(&pack).into_iter().flatten();
        taints
            .filter(|taint| taint.range.contains(&offset))
            .map(|taint| taint.number)
            .chain(self.copy(pack, offset, id))
            .collect()
    }

    /// Tells whether a place cannot be relied on.
    pub(super) fn harmed(&self, pack: usize, offset: u64, id: &[u8; 32]) -> bool {
        let harm = |number: &Number| {
            let finding = self.findings.get(*number);
            finding.is_some_and(|finding| finding.severity == Severity::Harm)
        };
        self.at(pack, offset, id).iter().any(harm)
    }

    /// Tells whether anything is wrong with any pack.
    pub(super) fn is_clean(&self) -> bool {
        self.taints.is_empty() && self.copies.is_empty()
    }
}
