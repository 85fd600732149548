//! Rules on watching, arming and finding what was written.

use segvm_os::{KernelError, Query};

use crate::subject::*;

pub(crate) fn written_pages_are_found_and_armed_again(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    for (base, range) in [committed(s, 8), mapped(s, 8)] {
        let watch = watching(s, range);
        // SAFETY: the range is this test's.
        unsafe { watch.arm(range) }.unwrap();
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        s.write(base + size, &[1]);
        s.write(base + 2 * size, &[1]);
        s.write(base + 7 * size, &[1]);
        assert_eq!(found(k, range, Query::Written), [1, 2, 7]);
        assert_eq!(found(k, range, Query::WrittenRearm), [1, 2, 7]);
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        s.write(base + 2 * size, &[2]);
        assert_eq!(found(k, pages(k, base, 2, 1), Query::WrittenRearm), [0]);
        assert_eq!(found(k, range, Query::WrittenRearm), [0_usize; 0]);
        // Reading an armed page, populated or not, is no write.
        let _ = s.read(base + 4 * size);
        k.populate_read(range).unwrap();
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        s.write(base + 4 * size, &[2]);
        assert_eq!(found(k, range, Query::WrittenRearm), [4]);
    }
}

pub(crate) fn what_was_never_armed_counts_as_written(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = mapped(s, 8);
    k.populate_read(range).unwrap();
    s.write(base + 3 * size, &[1]);
    let _watch = watching(s, range);
    assert_eq!(found(k, range, Query::Written), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found(k, range, Query::Private), [3]);
    assert_eq!(
        found(k, range, Query::WrittenRearm),
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(found(k, range, Query::WrittenRearm), [0_usize; 0]);
}

pub(crate) fn holes_that_were_never_armed_count_as_written(s: &dyn Subject) {
    let k = s.kernel();
    let (_, range) = committed(s, 8);
    let _watch = watching(s, range);
    assert_eq!(found(k, range, Query::Written), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found(k, range, Query::Touched), [0_usize; 0]);
}

pub(crate) fn both_ways_from_cold_to_warm_tell_what_was_private(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    for by_scan in [true, false] {
        let (base, range) = mapped(s, 8);
        s.write(base + 2 * size, &[1]);
        let watch = watching(s, range);
        let private = if by_scan {
            found(k, range, Query::ArmAll)
        } else {
            k.populate_read(range).unwrap();
            // SAFETY: the range is this test's.
            unsafe { watch.arm(range) }.unwrap();
            found(k, range, Query::Private)
        };
        assert_eq!(private, [2]);
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        s.write(base + 2 * size, &[2]);
        s.write(base + 5 * size, &[2]);
        assert_eq!(found(k, range, Query::WrittenRearm), [2, 5]);
        k.populate_read(range).unwrap();
        assert_eq!(found(k, range, Query::ArmAll), [2, 5]);
    }
}

/// The kernel keeps a marker where it arms a page that is not there, and a marker looks like a swapped page.
pub(crate) fn a_page_armed_while_absent_is_taken_for_private_until_it_comes(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = mapped(s, 4);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    let marked: &[usize] = if s.in_page_table() {
        &[0, 1, 2, 3]
    } else {
        &[]
    };
    for query in [Query::Touched, Query::Private, Query::ArmAll] {
        assert_eq!(found(k, range, query), marked);
    }
    assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
    let _ = s.read(base);
    assert_eq!(found(k, pages(k, base, 0, 1), Query::Private), [0_usize; 0]);
    k.populate_read(range).unwrap();
    assert_eq!(found(k, range, Query::Private), [0_usize; 0]);
}

pub(crate) fn unregistering_disarms_and_forgets(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = mapped(s, 4);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    s.write(base + size, &[1]);
    // SAFETY: the range is this test's.
    unsafe { watch.unregister(range) }.unwrap();
    assert_eq!(errno(scan(k, range, Query::Written)), libc::EPERM);
    assert_eq!(found(k, range, Query::Private), [1]);
    // SAFETY: the range is this test's.
    assert_eq!(errno(unsafe { watch.arm(range) }), libc::ENOENT);
    // SAFETY: the range is this test's.
    unsafe { watch.register(range) }.unwrap();
    // SAFETY: again, which changes nothing.
    unsafe { watch.register(range) }.unwrap();
    assert!(found(k, range, Query::Written).contains(&1));
}

pub(crate) fn dropping_a_watch_disarms(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = mapped(s, 4);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    let second = k.watch().unwrap();
    // SAFETY: the range is this test's.
    assert_eq!(errno(unsafe { second.register(range) }), libc::EBUSY);
    drop(watch);
    assert_eq!(errno(scan(k, range, Query::WrittenRearm)), libc::EPERM);
    s.write(base, &[1]);
    assert_eq!(found(k, range, Query::Private), [0]);
    // SAFETY: the range is this test's.
    unsafe { second.register(range) }.unwrap();
}

pub(crate) fn a_scan_that_fails_reports_nothing_and_may_have_armed(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 8);
    for i in 0..8 {
        s.write(base + i * size, &[1]);
    }
    let half = pages(k, base, 0, 4);
    let _watch = watching(s, half);
    // The last run before touches what would be found, and must not grow.
    let (other, _) = committed(s, 1);
    let before = vec![pages(k, other, 0, 1), pages(k, base - size, 0, 1)];
    let mut out = before.clone();
    let result = k.scan(range, Query::WrittenRearm, &mut out);
    assert_eq!(errno(result), libc::EPERM);
    assert_eq!(out, before);
    if s.in_page_table() {
        assert_eq!(
            found(k, half, Query::Written),
            [0_usize; 0],
            "armed by the scan that failed"
        );
    }
}

pub(crate) fn replacing_a_mapping_ends_its_registration(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = committed(s, 4);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    let one = pages(k, base, 1, 1);
    // SAFETY: what lay there is not needed.
    unsafe { k.map_file(one, &painted(one.len()), 0) }.unwrap();
    assert_eq!(errno(scan(k, range, Query::Written)), libc::EPERM);
    assert_eq!(found(k, pages(k, base, 2, 2), Query::Written), [0_usize; 0]);
}

pub(crate) fn installed_pages_are_armed_and_only_where_none_was(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 8);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(pages(k, base, 0, 4)) }.unwrap();
    let bytes = paint(2 * size);
    if !s.in_page_table() {
        // SAFETY: the range is this test's.
        let refused = unsafe { watch.install(base, &bytes) };
        assert!(matches!(refused, Err(KernelError::Unavailable { .. })));
        assert_eq!(s.read(base), 0);
        return;
    }
    for first in [0, 5] {
        // SAFETY: the range is this test's.
        unsafe { watch.install(base + first * size, &bytes) }.unwrap();
        assert_eq!(s.read(base + (first + 1) * size + 3), bytes[size + 3]);
        assert_eq!(
            found(k, pages(k, base, first, 2), Query::Written),
            [0_usize; 0]
        );
        s.write(base + first * size, &[200]);
        assert_eq!(found(k, pages(k, base, first, 2), Query::Written), [0]);
    }
    // SAFETY: the range is this test's.
    let again = unsafe { watch.install(base + 4 * size, &bytes) };
    assert_eq!(errno(again), libc::EEXIST);
    assert_eq!(s.read(base + 5 * size), 200, "what was there stayed");

    let (file, range) = mapped(s, 2);
    // SAFETY: the range is this test's.
    assert_eq!(errno(unsafe { watch.install(file, &bytes) }), libc::ENOENT);
    // SAFETY: the range is this test's.
    unsafe { watch.register(range) }.unwrap();
    // SAFETY: the range is this test's.
    assert_eq!(errno(unsafe { watch.install(file, &bytes) }), libc::EINVAL);
}

/// A system call is not let through as the program's own writes are, where pages are protected from both.
pub(crate) fn what_the_kernel_writes_to_is_written_to_and_reported(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    for (base, range) in [committed(s, 8), mapped(s, 8)] {
        let watch = watching(s, range);
        k.populate_read(range).unwrap();
        // SAFETY: the range is this test's.
        unsafe { watch.arm(range) }.unwrap();
        let [three, two] = [pages(k, base, 2, 3), pages(k, base, 4, 2)];
        k.begin_kernel_write(three).unwrap();
        k.begin_kernel_write(two).unwrap();
        // Scans that arm leave it alone.
        for query in [Query::WrittenRearm, Query::ArmAll, Query::WrittenRearm] {
            found(k, range, query);
            s.kernel_writes(base + 2 * size, &vec![7; 3 * size]);
            s.kernel_writes(base + 5 * size, &[9]);
        }
        assert_eq!(found(k, range, Query::Written), [2, 3, 4, 5]);
        k.end_kernel_write(three);
        // What was said twice has two ends.
        found(k, range, Query::WrittenRearm);
        s.kernel_writes(base + 4 * size, &[8]);
        assert_eq!(found(k, pages(k, base, 4, 1), Query::Written), [0]);
        k.end_kernel_write(two);
        // Whatever was said to be written may be reported, what was written must be.
        let reported = found(k, range, Query::WrittenRearm);
        assert!(reported == [4] || reported == [4, 5], "{reported:?}");
        assert_eq!(found(k, range, Query::WrittenRearm), [0_usize; 0]);
        s.write(base + 3 * size, &[1]);
        assert_eq!(found(k, range, Query::WrittenRearm), [3]);
        assert_eq!((s.read(base + 4 * size), s.read(base + 5 * size)), (8, 9));
    }
}
