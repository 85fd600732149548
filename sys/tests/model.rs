//! What the model adds to a kernel: failures on demand, a program that writes during a copy, broken promises found.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]
use std::io;

use segvm_os::{
    Kernel, KernelError, ModelCall, ModelFault, ModelKernel, ModelPage, PageRange, PageSize, Query,
};

const BASE: usize = 0x7000_0000;
const PAGE: usize = 4096;

fn pages(first: usize, len: usize) -> PageRange {
    PageRange::new(PageSize::MIN, BASE + first * PAGE, len * PAGE).unwrap()
}

fn committed(len: usize) -> (ModelKernel, PageRange) {
    let kernel = ModelKernel::new();
    let range = pages(0, len);
    kernel.reserve(range).unwrap();
    // SAFETY: reserved just now.
    unsafe { kernel.commit(range) }.unwrap();
    (kernel, range)
}

fn errno(result: Result<(), KernelError>) -> Option<i32> {
    match result {
        Ok(()) => None,
        Err(KernelError::Call { source, .. } | KernelError::ShortCopy { source, .. }) => {
            source.raw_os_error()
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn calls_fail_as_planned_and_change_nothing() {
    let kernel = ModelKernel::new();
    kernel.fail_nth(2, libc::ENOMEM);
    kernel.fail_nth_of(ModelCall::Commit, 2, libc::EAGAIN);
    kernel.reserve(pages(0, 4)).unwrap();
    assert_eq!(errno(kernel.reserve(pages(4, 4))), Some(libc::ENOMEM));
    kernel.reserve(pages(4, 4)).unwrap();
    // SAFETY: reserved above.
    unsafe { kernel.commit(pages(0, 2)) }.unwrap();
    // SAFETY: reserved above.
    let second = unsafe { kernel.commit(pages(2, 2)) };
    assert_eq!(errno(second), Some(libc::EAGAIN));
    assert_eq!(kernel.page(BASE + 2 * PAGE), ModelPage::Reserved);
    assert_eq!(kernel.calls(), 5);
    kernel.fail_nth(1, libc::EIO);
    kernel.stop_failing();
    kernel.populate_read(pages(0, 2)).unwrap();
}

#[test]
fn a_failing_scan_has_armed_half_and_reports_nothing() {
    let (kernel, range) = committed(8);
    let watch = kernel.watch().unwrap();
    // SAFETY: reserved above.
    unsafe { watch.register(range) }.unwrap();
    for page in 0..8 {
        kernel.write(BASE + page * PAGE, &[1]).unwrap();
    }
    kernel.fail_nth_of(ModelCall::Scan, 1, libc::EFAULT);
    let mut out = vec![pages(100, 1)];
    let failed = kernel.scan(range, Query::WrittenRearm, &mut out);
    assert_eq!(errno(failed), Some(libc::EFAULT));
    assert_eq!(out, [pages(100, 1)]);
    assert!(kernel.is_armed(BASE + 3 * PAGE) && !kernel.is_armed(BASE + 4 * PAGE));
    out.clear();
    kernel.scan(range, Query::WrittenRearm, &mut out).unwrap();
    assert_eq!(out, [pages(4, 4)], "the first half is lost from sight");
}

#[test]
fn the_program_writes_while_a_copy_is_under_way() {
    let (kernel, range) = committed(4);
    kernel.on_copy(move |kernel, page| {
        // Behind the copy and ahead of it.
        kernel.write(BASE, &[7]).unwrap();
        kernel.write(BASE + 3 * PAGE, &[8]).unwrap();
        assert!(range.contains(page));
    });
    let mut out = vec![0; range.len()];
    kernel
        .copy_racing(&[pages(1, 3)], &mut out[PAGE..])
        .unwrap();
    assert_eq!((out[0], out[3 * PAGE]), (0, 8));
    kernel.copy_racing(&[range], &mut out).unwrap();
    assert_eq!((out[0], out[3 * PAGE]), (7, 8));
}

#[test]
fn a_copy_and_a_watch_fail_on_demand() {
    let (kernel, range) = committed(1);
    kernel.fail_nth_of(ModelCall::CopyRacing, 1, libc::EFAULT);
    kernel.fail_nth_of(ModelCall::OpenWatch, 1, libc::EPERM);
    let mut out = vec![0; PAGE];
    let short = kernel.copy_racing(&[range], &mut out);
    assert!(matches!(
        short,
        Err(KernelError::ShortCopy {
            at: BASE,
            copied: 0,
            ..
        })
    ));
    let watch = kernel.watch().map(drop);
    match watch {
        Err(KernelError::Unavailable { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
    kernel.copy_racing(&[range], &mut out).unwrap();
    kernel.watch().unwrap();
}

#[test]
fn wrong_accesses_are_the_signals_they_would_be() {
    let (kernel, range) = committed(2);
    let beyond = range.end();
    assert_eq!(
        kernel.write(beyond - 1, &[1, 2]),
        Err(ModelFault::Segv { at: beyond })
    );
    assert_eq!(kernel.page(beyond - 1), ModelPage::Private);
    // SAFETY: reserved above; nobody writes.
    unsafe { kernel.set_writable(range, false) }.unwrap();
    assert_eq!(kernel.write(BASE, &[1]), Err(ModelFault::Segv { at: BASE }));
    kernel.read(BASE, &mut [0]).unwrap();
    // SAFETY: reserved above.
    unsafe { kernel.fence(range) }.unwrap();
    assert_eq!(
        kernel.read(BASE + 9, &mut [0]),
        Err(ModelFault::Segv { at: BASE + 9 })
    );
}

#[test]
#[should_panic(expected = "broken promise")]
fn mapping_over_what_was_never_reserved_is_found() {
    let (kernel, _) = committed(2);
    // SAFETY: broken on purpose; the model has no memory to corrupt.
    let _ = unsafe { kernel.commit(pages(1, 2)) };
}

#[test]
#[should_panic(expected = "broken promise")]
fn copying_quietly_what_cannot_be_read_is_found() {
    let (kernel, range) = committed(2);
    // SAFETY: reserved above.
    unsafe { kernel.fence(range) }.unwrap();
    // SAFETY: broken on purpose; the model has no memory to fault on.
    let _ = unsafe { kernel.copy_quiet(&[range], &mut vec![0; 2 * PAGE]) };
}

#[test]
fn pages_of_other_sizes() {
    let page = PageSize::new(1 << 16).unwrap();
    let kernel = ModelKernel::with_page_size(page);
    let range = PageRange::new(page, 1 << 30, 4 << 16).unwrap();
    kernel.reserve(range).unwrap();
    // SAFETY: reserved just now.
    unsafe { kernel.commit(range) }.unwrap();
    kernel.write((1 << 30) + (2 << 16) - 1, &[1, 2]).unwrap();
    let mut out = Vec::new();
    kernel.scan(range, Query::Private, &mut out).unwrap();
    assert_eq!(
        out,
        [PageRange::new(page, (1 << 30) + (1 << 16), 2 << 16).unwrap()]
    );
}
