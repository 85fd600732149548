//! Rules on reserving, committing, mapping and copying.

use segvm_os::{KernelError, Query};

use crate::subject::*;

pub(crate) fn a_taken_range_is_refused_and_a_released_one_is_free(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = reserved(s, 8);
    let across = pages(k, base, 6, 4);
    match k.reserve(across) {
        Err(KernelError::Taken { range, holder }) => {
            assert_eq!(range, across);
            let holder = holder.expect("the one in the way is named");
            assert!(holder.starts_with(&format!("{base:x}-")), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    k.reserve(pages(k, base, 8, 2)).unwrap();
    // SAFETY: reserved above, never referenced.
    unsafe { k.release(range) }.unwrap();
    k.reserve(pages(k, base, 0, 4)).unwrap();
    assert!(matches!(
        k.reserve(pages(k, base, 3, 2)),
        Err(KernelError::Taken { .. })
    ));
}

pub(crate) fn committed_memory_is_zero_and_private_once_written(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = committed(s, 8);
    let size = k.page_size().bytes();
    assert_eq!(found(k, range, Query::Touched), [0_usize; 0]);
    s.write(base + 3 * size + 7, &[9]);
    assert_eq!(
        (s.read(base + 3 * size + 7), s.read(base + 3 * size)),
        (9, 0)
    );
    assert_eq!(found(k, range, Query::Private), [3]);
    // SAFETY: committed above.
    unsafe { k.fill(base + 5 * size - 1, &[1, 2]) }.unwrap();
    assert_eq!(found(k, range, Query::Private), [3, 4, 5]);
    // Reading a hole shows zero, and is reported: the zero page can be what a page with content became.
    assert_eq!(s.read(base), 0);
    assert_eq!(found(k, range, Query::Private), [0, 3, 4, 5]);
    // SAFETY: what was there is not needed.
    unsafe { k.commit(pages(k, base, 3, 2)) }.unwrap();
    assert_eq!(found(k, range, Query::Private), [0, 5]);
    assert_eq!(s.read(base + 3 * size + 7), 0);
}

pub(crate) fn a_fence_frees_and_shuts(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = committed(s, 4);
    s.write(base, &[1]);
    // SAFETY: not referenced.
    unsafe { k.fence(range) }.unwrap();
    assert_eq!(found(k, range, Query::Touched), [0_usize; 0]);
    let mut out = vec![0; range.len()];
    assert_eq!(errno(k.copy_racing(&[range], &mut out)), libc::EFAULT);
    assert!(matches!(k.reserve(range), Err(KernelError::Taken { .. })));
    assert_eq!(errno(k.populate_read(range)), libc::EINVAL);
}

pub(crate) fn a_mapped_file_is_clean_until_written(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = mapped(s, 8);
    let bytes = paint(range.len());
    assert_eq!(s.read(base + 2 * size + 5), bytes[2 * size + 5]);
    assert!(found(k, range, Query::Touched).contains(&2));
    assert_eq!(found(k, range, Query::Private), [0_usize; 0]);
    k.populate_read(range).unwrap();
    assert_eq!(found(k, range, Query::Touched), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found(k, range, Query::Private), [0_usize; 0]);
    s.write(base + 6 * size, &[bytes[6 * size].wrapping_add(1)]);
    assert_eq!(found(k, range, Query::Private), [6]);
    assert_eq!(s.read(base + 6 * size + 1), bytes[6 * size + 1]);
}

pub(crate) fn a_file_is_mapped_from_an_aligned_offset_and_over_what_was_there(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 4);
    s.write(base + size, &[77]);
    let file = painted(6 * size);
    let bytes = paint(6 * size);
    let middle = pages(k, base, 1, 2);
    // SAFETY: the range is this test's; nobody writes to the temporary file.
    assert_eq!(errno(unsafe { k.map_file(middle, &file, 7) }), libc::EINVAL);
    assert_eq!(s.read(base + size), 77);
    // SAFETY: as above.
    unsafe { k.map_file(middle, &file, 3 * size as u64) }.unwrap();
    assert_eq!(s.read(base + size), bytes[3 * size]);
    assert_eq!(found(k, range, Query::Private), [0_usize; 0]);
    // SAFETY: as above.
    unsafe { k.map_file(middle, &file, 5 * size as u64) }.unwrap();
    let mut out = vec![0; 2 * size];
    match k.copy_racing(&[middle], &mut out) {
        Err(KernelError::ShortCopy { at, copied, .. }) => {
            assert_eq!(
                (at, copied),
                (base + 2 * size, size),
                "beyond the file's end"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(out[..size], bytes[5 * size..]);
}

pub(crate) fn read_only_pages_keep_their_state(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    for (base, range) in [mapped(s, 4), committed(s, 4)] {
        k.populate_read(range).unwrap();
        s.write(base, &[1]);
        let watch = watching(s, range);
        // SAFETY: the range is this test's.
        unsafe { watch.arm(range) }.unwrap();
        let mut private = found(k, range, Query::Private);
        // SAFETY: nobody writes meanwhile.
        unsafe { k.set_writable(pages(k, base, 0, 2), false) }.unwrap();
        assert_eq!(s.read(base), 1);
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        // SAFETY: the range is this test's.
        unsafe { k.set_writable(range, true) }.unwrap();
        s.write(base + size, &[3]);
        assert_eq!(found(k, range, Query::WrittenRearm), [1]);
        private.extend((!private.contains(&1)).then_some(1));
        private.sort_unstable();
        assert_eq!(found(k, range, Query::Private), private);
    }
}

/// What is armed while it is read-only is armed afterwards.
pub(crate) fn read_only_pages_are_armed_as_others(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    for (base, range) in [mapped(s, 4), committed(s, 4)] {
        k.populate_read(range).unwrap();
        let watch = watching(s, range);
        // SAFETY: nobody writes meanwhile.
        unsafe { k.set_writable(pages(k, base, 0, 3), false) }.unwrap();
        // SAFETY: the range is this test's.
        unsafe { watch.arm(range) }.unwrap();
        // SAFETY: the range is this test's.
        unsafe { k.set_writable(range, true) }.unwrap();
        assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
        s.write(base + 2 * size, &[3]);
        s.write(base + 3 * size, &[3]);
        assert_eq!(found(k, range, Query::WrittenRearm), [2, 3]);
        s.write(base + 2 * size, &[4]);
        assert_eq!(found(k, range, Query::WrittenRearm), [2]);
    }
}

pub(crate) fn copies_are_exact_and_name_the_page_they_stop_at(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = mapped(s, 8);
    s.write(base + 4 * size, &[250; 10]);
    let ranges = [
        pages(k, base, 6, 1),
        pages(k, base, 0, 0),
        pages(k, base, 3, 2),
    ];
    let mut expected = paint(range.len());
    expected[4 * size..4 * size + 10].fill(250);
    let expected = [&expected[6 * size..7 * size], &expected[3 * size..5 * size]].concat();
    let mut out = vec![0; 3 * size];
    k.copy_racing(&ranges, &mut out).unwrap();
    assert_eq!(out, expected);
    out.fill(0);
    // SAFETY: readable, and nobody writes.
    unsafe { k.copy_quiet(&ranges, &mut out) }.unwrap();
    assert_eq!(out, expected);

    // SAFETY: not referenced.
    unsafe { k.fence(pages(k, base, 4, 1)) }.unwrap();
    match k.copy_racing(&ranges, &mut out) {
        Err(KernelError::ShortCopy {
            at,
            copied,
            wanted,
            source,
        }) => {
            assert_eq!((at, copied, wanted), (base + 4 * size, 2 * size, 3 * size));
            assert_eq!(source.raw_os_error(), Some(libc::EFAULT));
        }
        other => panic!("{other:?}"),
    }
    k.copy_racing(&[], &mut []).unwrap();
}

pub(crate) fn discarded_memory_is_zero_and_unarmed(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 8);
    let watch = watching(s, range);
    for page in 0..6 {
        s.write(base + page * size, &[9]);
    }
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    s.write(base + 4 * size, &[8]);
    // Pages that were written and armed, written since, and armed without ever being there.
    // SAFETY: committed above, nothing refers to it.
    unsafe { k.discard(pages(k, base, 3, 4)) }.unwrap();
    // The last one was only armed.
    let touched: &[usize] = if s.arming_fills_holes() {
        &[0, 1, 2, 7]
    } else {
        &[0, 1, 2]
    };
    assert_eq!(found(k, range, Query::Touched), touched);
    assert_eq!(found(k, range, Query::Written), [3, 4, 5, 6]);
    assert_eq!((s.read(base + 2 * size), s.read(base + 3 * size)), (9, 0));
    // It is registered as before.
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    s.write(base + 5 * size, &[7]);
    assert_eq!(found(k, range, Query::Written), [5]);
}

pub(crate) fn secluded_memory_stays_so_until_it_is_made_anew(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 8);
    let middle = pages(k, base, 2, 4);
    assert!(!s.is_secluded(base + 2 * size));
    // SAFETY: committed above; no child is made.
    unsafe { k.seclude(middle) }.unwrap();
    let all = || (0..8).map(|page| s.is_secluded(base + page * size));
    let expected = |from, to| (0..8).map(move |page| (from..to).contains(&page));
    assert!(all().eq(expected(2, 6)));
    let watch = watching(s, range);
    s.write(base + 3 * size, &[1]);
    // SAFETY: nothing refers to it.
    unsafe { k.discard(middle) }.unwrap();
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    assert!(all().eq(expected(2, 6)));
    // SAFETY: nothing refers to it.
    unsafe { k.commit(pages(k, base, 4, 4)) }.unwrap();
    assert!(all().eq(expected(2, 4)));
}

pub(crate) fn empty_ranges_are_nothing_to_do(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = reserved(s, 1);
    let watch = k.watch().unwrap();
    let none = pages(k, base, 0, 0);
    k.reserve(none).unwrap();
    k.populate_read(none).unwrap();
    for query in [
        Query::Touched,
        Query::Private,
        Query::ArmAll,
        Query::Written,
    ] {
        assert_eq!(found(k, none, query), [0_usize; 0]);
    }
    // SAFETY: no page is in it.
    unsafe { watch.register(none) }.unwrap();
    // SAFETY: no page is in it.
    unsafe { watch.arm(none) }.unwrap();
    // SAFETY: no page is in it.
    unsafe { k.commit(none) }.unwrap();
    // SAFETY: no page is in it.
    unsafe { k.discard(none) }.unwrap();
    // SAFETY: no page is in it.
    unsafe { k.seclude(none) }.unwrap();
    // SAFETY: no page is in it.
    unsafe { k.release(none) }.unwrap();
    assert!(matches!(k.reserve(range), Err(KernelError::Taken { .. })));
}
