//! The model against the real kernel: the same calls and accesses at random, the same answers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]
mod by_ledger;

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
};

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use segvm_os::{
    Kernel, KernelError, Mappable, ModelKernel, ModelPage, PageRange, Query, RealKernel, Watch,
};

const BASE: usize = 0x5c00_0011_0000;
const PAGES: usize = 12;

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

/// Byte `i` is `i % 251`.
fn painted(len: usize) -> Painted {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
    file.write_all(&bytes).unwrap();
    Painted(file)
}

/// Pages from the first to the second, both included, in either order.
type Span = (usize, usize);

#[derive(Clone, Debug)]
enum Step {
    Commit(Span),
    Fence(Span),
    /// Populated at once: which neighbours a fault brings in is the real kernel's own affair.
    Map(Span),
    Populate(Span),
    Register(Span),
    Unregister(Span),
    Arm(Span),
    Install(usize),
    Scan(Query, Span),
    Copy(Span),
    Write(usize, u8),
    Read(usize),
    CloseWatch,
}

fn step() -> impl Strategy<Value = Step> {
    let span = || (0..PAGES, 0..PAGES);
    let query = prop::sample::select(vec![
        Query::Touched,
        Query::Huge,
        Query::Private,
        Query::ArmAll,
        Query::Written,
        Query::WrittenRearm,
    ]);
    prop_oneof![
        2 => span().prop_map(Step::Commit),
        1 => span().prop_map(Step::Fence),
        2 => span().prop_map(Step::Map),
        1 => span().prop_map(Step::Populate),
        4 => span().prop_map(Step::Register),
        1 => span().prop_map(Step::Unregister),
        3 => span().prop_map(Step::Arm),
        1 => (0..PAGES).prop_map(Step::Install),
        8 => (query, span()).prop_map(|(query, span)| Step::Scan(query, span)),
        1 => span().prop_map(Step::Copy),
        6 => (0..PAGES, any::<u8>()).prop_map(|(page, byte)| Step::Write(page, byte)),
        2 => (0..PAGES).prop_map(Step::Read),
        1 => Just(Step::CloseWatch),
    ]
}

/// What a call answered, in a form that both kernels share.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Errno(Option<i32>),
    Short { at: usize, copied: usize },
    Found(Vec<PageRange>),
    Bytes(Vec<u8>),
}

fn answer(result: Result<(), KernelError>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(KernelError::Call { source, .. }) => Answer::Errno(source.raw_os_error()),
        Err(KernelError::ShortCopy { at, copied, .. }) => Answer::Short { at, copied },
        Err(other) => panic!("{other}"),
    }
}

fn range(kernel: &dyn Kernel, span: Span) -> PageRange {
    let (first, last) = (span.0.min(span.1), span.0.max(span.1));
    let size = kernel.page_size().bytes();
    PageRange::new(
        kernel.page_size(),
        BASE + first * size,
        (last - first + 1) * size,
    )
    .unwrap()
}

/// One side: a kernel, its watch, and how its program touches memory.
struct Side<'k> {
    kernel: &'k dyn Kernel,
    watch: Box<dyn Watch>,
    read: &'k dyn Fn(usize) -> u8,
    write: &'k dyn Fn(usize, u8),
}

impl Side<'_> {
    fn take(&mut self, step: &Step, file: &Painted) -> Answer {
        let (kernel, watch) = (self.kernel, &*self.watch);
        let size = kernel.page_size().bytes();
        let whole = |span| range(kernel, span);
        match *step {
            // SAFETY: the test reserved all of it, and refers to none of it but by volatile accesses.
            Step::Commit(span) => answer(unsafe { kernel.commit(whole(span)) }),
            // SAFETY: as above.
            Step::Fence(span) => answer(unsafe { kernel.fence(whole(span)) }),
            Step::Map(span) => {
                let offset = (span.0 * size) as u64;
                // SAFETY: as above; nobody changes the file.
                let mapped = unsafe { kernel.map_file(whole(span), file, offset) };
                answer(mapped.and_then(|()| kernel.populate_read(whole(span))))
            }
            Step::Populate(span) => answer(kernel.populate_read(whole(span))),
            // SAFETY: as above.
            Step::Register(span) => answer(unsafe { watch.register(whole(span)) }),
            // SAFETY: as above.
            Step::Unregister(span) => answer(unsafe { watch.unregister(whole(span)) }),
            // SAFETY: as above.
            Step::Arm(span) => answer(unsafe { watch.arm(whole(span)) }),
            Step::Install(page) => {
                // SAFETY: as above.
                answer(unsafe { watch.install(BASE + page * size, &vec![77; size]) })
            }
            Step::Scan(query, span) => {
                let mut out = Vec::new();
                match kernel.scan(whole(span), query, &mut out) {
                    Ok(()) => Answer::Found(out),
                    failed => answer(failed),
                }
            }
            Step::Copy(span) => {
                let mut out = vec![0; whole(span).len()];
                match kernel.copy_racing(&[whole(span)], &mut out) {
                    Ok(()) => Answer::Bytes(out),
                    failed => answer(failed),
                }
            }
            Step::Write(page, byte) => {
                (self.write)(BASE + page * size + 5, byte);
                Answer::Done
            }
            Step::Read(page) => Answer::Bytes(vec![(self.read)(BASE + page * size + 5)]),
            Step::CloseWatch => {
                self.watch = kernel.watch().unwrap();
                Answer::Done
            }
        }
    }
}

fn compare(steps: &[Step]) {
    let real = RealKernel::new().unwrap();
    let model = ModelKernel::with_page_size(real.page_size());
    let size = real.page_size().bytes();
    let file = painted(2 * PAGES * size);

    let all = range(&real, (0, PAGES - 1));
    real.reserve(all).unwrap();
    model.reserve(all).unwrap();
    let model_read = |at| {
        let mut byte = [0];
        model.read(at, &mut byte).unwrap();
        byte[0]
    };
    let _released = Released(&real, all);
    let mut twins = [
        Side {
            kernel: &real,
            watch: real.watch().unwrap(),
            // SAFETY: only where the model says that the page is committed or mapped.
            read: &|at| unsafe { std::ptr::with_exposed_provenance::<u8>(at).read_volatile() },
            write: &|at, byte| {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(at);
                // SAFETY: as above; nothing is read-only here.
                unsafe { to.write_volatile(byte) };
            },
        },
        Side {
            kernel: &model,
            watch: model.watch().unwrap(),
            read: &model_read,
            write: &|at, byte| model.write(at, &[byte]).unwrap(),
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        if let Step::Write(page, _) | Step::Read(page) = step
            && model.page(BASE + page * size) == ModelPage::Reserved
        {
            continue;
        }
        let [real, model] = &mut twins;
        assert_eq!(
            real.take(step, &file),
            model.take(step, &file),
            "real and model differ at step {number} of {steps:?}"
        );
    }
}

/// Gives the range back when the steps are over, or one has failed and proptest tries others.
struct Released<'k>(&'k RealKernel, PageRange);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        // SAFETY: reserved by `compare`, which does not use it any more.
        unsafe { self.0.release(self.1) }.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/twins.regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_model_answers_as_the_kernel(steps in prop::collection::vec(step(), 1..40)) {
        compare(&steps);
    }
}
