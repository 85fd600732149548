//! Sets of pages as ascending, merged lists of runs.

use segvm_os::{PageRange, PageSize, push_run};

/// Bytes in a set.
pub(crate) fn pages_in(runs: &[PageRange]) -> usize {
    runs.iter().map(|run| run.len()).sum()
}

fn between(start: usize, end: usize) -> Option<PageRange> {
    // Ends come from page ranges of one page size, so they are multiples of the smallest one.
    PageRange::new(PageSize::MIN, start, end.checked_sub(start)?)
}

/// The union; neither side need be merged, and `b` need not be sorted.
pub(crate) fn merge(a: &[PageRange], b: &[PageRange]) -> Vec<PageRange> {
    let mut all: Vec<PageRange> = a
        .iter()
        .chain(b)
        .copied()
        .filter(|run| !run.is_empty())
        .collect();
    // Both sides are sorted as a rule: the sort then only merges two runs.
    all.sort();
    let mut out: Vec<PageRange> = Vec::with_capacity(all.len());
    for run in all {
        let seen = out.last().map_or(0, |last| last.end());
        if let Some(new) = between(run.start().max(seen), run.end())
            && !new.is_empty()
        {
            push_run(&mut out, new);
        }
    }
    out
}

/// What both sets have.
pub(crate) fn intersect(a: &[PageRange], b: &[PageRange]) -> Vec<PageRange> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut out = Vec::new();
    while let (Some(&&x), Some(&&y)) = (a.peek(), b.peek()) {
        if let Some(both) = x.intersect(y) {
            push_run(&mut out, both);
        }
        if x.end() < y.end() {
            a.next()
        } else {
            b.next()
        };
    }
    out
}

/// What `a` has and `b` has not.
pub(crate) fn subtract(a: &[PageRange], b: &[PageRange]) -> Vec<PageRange> {
    let mut out = Vec::new();
    let mut b = b.iter().peekable();
    for run in a {
        let mut at = run.start();
        while let Some(&&hole) = b.peek() {
            if hole.end() <= at {
                b.next();
                continue;
            }
            if hole.start() >= run.end() {
                break;
            }
            if let Some(piece) = between(at, hole.start().max(at)) {
                push_run(&mut out, piece);
            }
            at = hole.end();
            if hole.end() > run.end() {
                break;
            }
            b.next();
        }
        if at < run.end()
            && let Some(piece) = between(at, run.end())
        {
            push_run(&mut out, piece);
        }
    }
    out
}

/// The run widened to whole windows of `window` bytes, a power of two.
pub(crate) fn widen(run: PageRange, window: usize, page: PageSize) -> Option<PageRange> {
    let start = run.start() & !(window - 1);
    let end = run.end().checked_next_multiple_of(window)?;
    PageRange::new(page, start, end - start)
}

/// Closes the smallest gaps of a merged set, up to `widest` bytes, until at most `most` runs are left.
pub(crate) fn bridge(
    runs: &[PageRange],
    most: usize,
    widest: usize,
    page: PageSize,
) -> Vec<PageRange> {
    let mut gaps: Vec<(usize, usize)> = runs
        .iter()
        .zip(runs.iter().skip(1))
        .map(|(left, right)| (right.start() - left.end(), left.end()))
        .collect();
    gaps.sort_unstable();
    let close = runs.len().saturating_sub(most.max(1));
    let bridges: Vec<_> = gaps
        .iter()
        .take(close)
        .filter(|&&(len, _)| len <= widest)
        .filter_map(|&(len, start)| PageRange::new(page, start, len))
        .collect();
    merge(runs, &bridges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn runs_of(set: &BTreeSet<usize>) -> Vec<PageRange> {
        let mut out = Vec::new();
        for &page in set {
            push_run(
                &mut out,
                PageRange::new(PageSize::MIN, page << 12, 1 << 12).unwrap(),
            );
        }
        out
    }

    fn set() -> impl Strategy<Value = BTreeSet<usize>> {
        proptest::collection::btree_set(0_usize..64, 0..40)
    }

    proptest! {
        #[test]
        fn runs_agree_with_sets_of_pages(a in set(), b in set(), most in 1_usize..8) {
            let (x, y) = (runs_of(&a), runs_of(&b));
            prop_assert_eq!(merge(&x, &y), runs_of(&(&a | &b)));
            prop_assert_eq!(intersect(&x, &y), runs_of(&(&a & &b)));
            prop_assert_eq!(subtract(&x, &y), runs_of(&(&a - &b)));
            prop_assert_eq!(pages_in(&x), a.len() << 12);
            let bridged = bridge(&x, most, usize::MAX, PageSize::MIN);
            prop_assert!(bridged.len() <= most);
            prop_assert_eq!(intersect(&bridged, &x), x.clone());
            prop_assert_eq!(bridge(&x, most, 0, PageSize::MIN), x);
        }
    }
}
