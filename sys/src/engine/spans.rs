//! Which value holds on which pages: few, disjoint, ascending ranges.

use crate::page::{PageRange, PageSize};

/// A map from disjoint ranges to values.
#[derive(Debug)]
pub(super) struct Spans<T> {
    /// Ascending and disjoint; neighbours are not merged.
    spans: Vec<(PageRange, T)>,
}

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self { spans: Vec::new() }
    }
}

fn between(start: usize, end: usize) -> Option<PageRange> {
    // Ends come from page ranges of one page size, so they are multiples of the smallest one.
    let len = end.checked_sub(start).filter(|len| *len > 0)?;
    PageRange::new(PageSize::MIN, start, len)
}

impl<T: Copy + PartialEq> Spans<T> {
    /// The pieces of `range` that have a value, with it.
    pub(super) fn within(&self, range: PageRange) -> impl Iterator<Item = (PageRange, T)> {
        let first = self
            .spans
            .partition_point(|(span, _)| span.end() <= range.start());
        self.spans
            .iter()
            .skip(first)
            .map_while(move |(span, value)| Some((span.intersect(range)?, *value)))
    }

    /// The pieces of `range` that have none.
    pub(super) fn gaps(&self, range: PageRange) -> Vec<PageRange> {
        let mut at = range.start();
        let mut gaps = Vec::new();
        for (span, _) in self.within(range) {
            gaps.extend(between(at, span.start()));
            at = span.end();
        }
        gaps.extend(between(at, range.end()));
        gaps
    }

    /// Where this value is.
    pub(super) fn of(&self, value: T) -> Vec<PageRange> {
        let spans = self.spans.iter();
        let same = spans.filter(|(_, other)| *other == value);
        same.map(|(span, _)| *span).collect()
    }

    /// Tells whether every page has this value.
    pub(super) fn all(&self, range: PageRange, value: T) -> bool {
        self.gaps(range).is_empty() && self.within(range).all(|(_, other)| other == value)
    }

    /// Takes the values of a range away.
    pub(super) fn cut(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        let first = self
            .spans
            .partition_point(|(span, _)| span.end() <= range.start());
        let last = self
            .spans
            .partition_point(|(span, _)| span.start() < range.end());
        let mut left = Vec::new();
        for (span, value) in self.spans.get(first..last).unwrap_or_default() {
            left.extend(between(span.start(), range.start()).map(|piece| (piece, *value)));
            left.extend(between(range.end(), span.end()).map(|piece| (piece, *value)));
        }
        self.spans.splice(first..last.max(first), left);
    }

    /// Gives every page of a range this value.
    pub(super) fn set(&mut self, range: PageRange, value: T) {
        if range.is_empty() {
            return;
        }
        self.cut(range);
        let mut at = self
            .spans
            .partition_point(|(span, _)| span.end() <= range.start());
        let (mut start, mut end) = (range.start(), range.end());
        // Neighbours of one value become one: a segment that grows by 16 KiB a thousand times is one range.
        if let Some((before, same)) = at.checked_sub(1).and_then(|last| self.spans.get(last))
            && before.end() == start
            && *same == value
        {
            start = before.start();
            at -= 1;
            self.spans.remove(at);
        }
        if let Some((after, same)) = self.spans.get(at)
            && after.start() == end
            && *same == value
        {
            end = after.end();
            self.spans.remove(at);
        }
        if let Some(whole) = between(start, end) {
            self.spans.insert(at, (whole, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn range(start: usize, len: usize) -> PageRange {
        PageRange::new(PageSize::MIN, start << 12, len << 12).unwrap()
    }

    proptest! {
        #[test]
        fn spans_are_a_map_from_pages(
            steps in prop::collection::vec((0..40_usize, 0..20_usize, prop::option::of(0..3_u8)), 1..40),
            ask in (0..50_usize, 0..30_usize),
        ) {
            let mut spans = Spans::default();
            let mut model = BTreeMap::new();
            for (start, len, value) in steps {
                match value {
                    Some(value) => spans.set(range(start, len), value),
                    None => spans.cut(range(start, len)),
                }
                for page in start..start + len {
                    match value {
                        Some(value) => model.insert(page, value),
                        None => model.remove(&page),
                    };
                }
            }
            let asked = range(ask.0, ask.1);
            let each = |piece: PageRange| (piece.start() >> 12)..(piece.end() >> 12);
            let found: Vec<_> = spans
                .within(asked)
                .flat_map(|(piece, value)| each(piece).map(move |page| (page, value)))
                .collect();
            let expected: Vec<_> = model
                .range(ask.0..ask.0 + ask.1)
                .map(|(page, value)| (*page, *value))
                .collect();
            prop_assert_eq!(&found, &expected);
            let gaps: Vec<_> = spans.gaps(asked).into_iter().flat_map(each).collect();
            let missing: Vec<_> = each(asked).filter(|page| !model.contains_key(page)).collect();
            prop_assert_eq!(gaps, missing);
            let same = each(asked).all(|page| model.get(&page) == Some(&1));
            prop_assert_eq!(spans.all(asked, 1), same);
        }
    }
}
