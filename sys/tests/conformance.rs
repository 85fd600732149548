//! One suite for every [`Kernel`]: the real one and the model obey it alike.
//!
//! Ranges are smaller than a huge page and not aligned to one. What only the real kernel does (fault-around, forked
//! children) is allowed for, or tested in `real.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]
use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    sync::atomic::{AtomicUsize, Ordering},
};

use segvm_os::{Kernel, KernelError, Mappable, ModelKernel, PageRange, Query, RealKernel, Watch};

/// A kernel under test, and a program that uses its memory.
trait Subject {
    fn kernel(&self) -> &dyn Kernel;
    fn write(&self, at: usize, bytes: &[u8]);
    fn read(&self, at: usize) -> u8;
}

struct Real(RealKernel);

impl Subject for Real {
    fn kernel(&self) -> &dyn Kernel {
        &self.0
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(at + i);
            // SAFETY: the tests write only to memory that they committed or mapped and that is writable.
            unsafe { to.write_volatile(*byte) };
        }
    }

    fn read(&self, at: usize) -> u8 {
        let from = std::ptr::with_exposed_provenance::<u8>(at);
        // SAFETY: the tests read only memory that they committed or mapped.
        unsafe { from.read_volatile() }
    }
}

struct Model(ModelKernel);

impl Subject for Model {
    fn kernel(&self) -> &dyn Kernel {
        &self.0
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.write(at, bytes).unwrap();
    }

    fn read(&self, at: usize) -> u8 {
        let mut byte = [0];
        self.0.read(at, &mut byte).unwrap();
        byte[0]
    }
}

#[derive(Debug)]
struct Painted(File);

impl Mappable for Painted {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Byte `i` is `i % 251`, so that no page looks like another.
fn painted(len: usize) -> Painted {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&paint(len)).unwrap();
    Painted(file)
}

fn paint(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// A place that no other test uses, with room for 64 pages.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    0x5900_0000_0000 + NEXT.fetch_add(1, Ordering::Relaxed) * 0x1000_0000 + 0x11_0000
}

/// `len` pages from page `start` of the place at `base`.
fn pages(kernel: &dyn Kernel, base: usize, start: usize, len: usize) -> PageRange {
    let page = kernel.page_size();
    PageRange::new(page, base + start * page.bytes(), len * page.bytes()).unwrap()
}

/// Which of the pages of a range a query reports.
fn found(kernel: &dyn Kernel, range: PageRange, query: Query) -> Vec<usize> {
    let mut runs = Vec::new();
    kernel.scan(range, query, &mut runs).unwrap();
    for pair in runs.windows(2) {
        assert!(
            pair[0].end() < pair[1].start(),
            "ascending and merged: {runs:?}"
        );
    }
    let size = kernel.page_size().bytes();
    let each = runs
        .iter()
        .flat_map(|run| (run.start()..run.end()).step_by(size));
    each.map(|at| (at - range.start()) / size).collect()
}

fn errno(result: Result<(), KernelError>) -> i32 {
    match result.unwrap_err() {
        KernelError::Call { source, .. } | KernelError::ShortCopy { source, .. } => {
            source.raw_os_error().unwrap()
        }
        other => panic!("{other}"),
    }
}

fn reserved(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let base = place();
    let range = pages(subject.kernel(), base, 0, len);
    subject.kernel().reserve(range).unwrap();
    (base, range)
}

fn committed(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let (base, range) = reserved(subject, len);
    // SAFETY: reserved just now.
    unsafe { subject.kernel().commit(range) }.unwrap();
    (base, range)
}

fn mapped(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let (base, range) = reserved(subject, len);
    // SAFETY: reserved just now; nobody writes to the temporary file.
    unsafe { subject.kernel().map_file(range, &painted(range.len()), 0) }.unwrap();
    (base, range)
}

fn watching(subject: &dyn Subject, range: PageRange) -> Box<dyn Watch> {
    let watch = subject.kernel().watch().unwrap();
    // SAFETY: the range is this test's.
    unsafe { watch.register(range) }.unwrap();
    watch
}

fn a_taken_range_is_refused_and_a_released_one_is_free(s: &dyn Subject) {
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

fn committed_memory_is_zero_and_private_once_written(s: &dyn Subject) {
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

fn a_fence_frees_and_shuts(s: &dyn Subject) {
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

fn a_mapped_file_is_clean_until_written(s: &dyn Subject) {
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

fn a_file_is_mapped_from_an_aligned_offset_and_over_what_was_there(s: &dyn Subject) {
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

fn written_pages_are_found_and_armed_again(s: &dyn Subject) {
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

fn what_was_never_armed_counts_as_written(s: &dyn Subject) {
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

fn holes_that_were_never_armed_count_as_written(s: &dyn Subject) {
    let k = s.kernel();
    let (_, range) = committed(s, 8);
    let _watch = watching(s, range);
    assert_eq!(found(k, range, Query::Written), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found(k, range, Query::Touched), [0_usize; 0]);
}

fn both_ways_from_cold_to_warm_tell_what_was_private(s: &dyn Subject) {
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
fn a_page_armed_while_absent_is_taken_for_private_until_it_comes(s: &dyn Subject) {
    let k = s.kernel();
    let (base, range) = mapped(s, 4);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    for query in [Query::Touched, Query::Private, Query::ArmAll] {
        assert_eq!(found(k, range, query), [0, 1, 2, 3]);
    }
    assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
    let _ = s.read(base);
    assert_eq!(found(k, pages(k, base, 0, 1), Query::Private), [0_usize; 0]);
    k.populate_read(range).unwrap();
    assert_eq!(found(k, range, Query::Private), [0_usize; 0]);
}

fn unregistering_disarms_and_forgets(s: &dyn Subject) {
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

fn scan(k: &dyn Kernel, range: PageRange, query: Query) -> Result<(), KernelError> {
    k.scan(range, query, &mut Vec::new())
}

fn dropping_a_watch_disarms(s: &dyn Subject) {
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

fn a_scan_that_fails_reports_nothing_and_may_have_armed(s: &dyn Subject) {
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
    assert_eq!(
        found(k, half, Query::Written),
        [0_usize; 0],
        "armed by the scan that failed"
    );
}

fn replacing_a_mapping_ends_its_registration(s: &dyn Subject) {
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

fn installed_pages_are_armed_and_only_where_none_was(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = committed(s, 8);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(pages(k, base, 0, 4)) }.unwrap();
    let bytes = paint(2 * size);
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

fn read_only_pages_keep_their_state(s: &dyn Subject) {
    let k = s.kernel();
    let size = k.page_size().bytes();
    let (base, range) = mapped(s, 4);
    k.populate_read(range).unwrap();
    s.write(base, &[1]);
    let watch = watching(s, range);
    // SAFETY: the range is this test's.
    unsafe { watch.arm(range) }.unwrap();
    // SAFETY: nobody writes meanwhile.
    unsafe { k.set_writable(pages(k, base, 0, 2), false) }.unwrap();
    assert_eq!(s.read(base), 1);
    assert_eq!(found(k, range, Query::Written), [0_usize; 0]);
    // SAFETY: the range is this test's.
    unsafe { k.set_writable(range, true) }.unwrap();
    s.write(base + size, &[3]);
    assert_eq!(found(k, range, Query::WrittenRearm), [1]);
    assert_eq!(found(k, range, Query::Private), [0, 1]);
}

fn copies_are_exact_and_name_the_page_they_stop_at(s: &dyn Subject) {
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

fn empty_ranges_are_nothing_to_do(s: &dyn Subject) {
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
    unsafe { k.release(none) }.unwrap();
    assert!(matches!(k.reserve(range), Err(KernelError::Taken { .. })));
}

macro_rules! suite {
    ($($rule:ident,)*) => {
        mod real {
            use super::*;
            $(#[test] fn $rule() { super::$rule(&Real(RealKernel::new().unwrap())); })*
        }
        mod model {
            use super::*;
            $(#[test] fn $rule() { super::$rule(&Model(ModelKernel::new())); })*
        }
    };
}

suite! {
    a_taken_range_is_refused_and_a_released_one_is_free,
    committed_memory_is_zero_and_private_once_written,
    a_fence_frees_and_shuts,
    a_mapped_file_is_clean_until_written,
    a_file_is_mapped_from_an_aligned_offset_and_over_what_was_there,
    written_pages_are_found_and_armed_again,
    what_was_never_armed_counts_as_written,
    holes_that_were_never_armed_count_as_written,
    both_ways_from_cold_to_warm_tell_what_was_private,
    a_page_armed_while_absent_is_taken_for_private_until_it_comes,
    unregistering_disarms_and_forgets,
    dropping_a_watch_disarms,
    a_scan_that_fails_reports_nothing_and_may_have_armed,
    replacing_a_mapping_ends_its_registration,
    installed_pages_are_armed_and_only_where_none_was,
    read_only_pages_keep_their_state,
    copies_are_exact_and_name_the_page_they_stop_at,
    empty_ranges_are_nothing_to_do,
}
