//! What the rules are tried on, and how they set it up.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use segvm_os::{
    Engine, Kernel, KernelError, Mappable, ModelKernel, PageRange, Query, Watch, Without,
    open_engine_without,
};

/// A kernel under test, and a program that uses its memory.
pub(crate) trait Subject {
    fn kernel(&self) -> &dyn Kernel;
    fn write(&self, at: usize, bytes: &[u8]);
    fn read(&self, at: usize) -> u8;
    /// Whether core dumps and forked children have nothing of the page.
    fn is_secluded(&self, at: usize) -> bool;

    /// Has a system call write to memory; it must succeed.
    fn kernel_writes(&self, at: usize, bytes: &[u8]) {
        self.write(at, bytes);
    }

    /// Whether the page table keeps track of what is armed, with what that brings: marks on absent pages, scans that fail
    /// half-way, the installing of pages.
    fn in_page_table(&self) -> bool {
        true
    }

    /// Whether arming leaves something in the page table where anonymous memory had no page: a mark, or a page of zeros.
    fn arming_fills_holes(&self) -> bool {
        true
    }
}

/// A kernel that really is one, by any engine.
pub(crate) struct Real(pub(crate) Arc<dyn Kernel>, pub(crate) Engine);

impl Real {
    pub(crate) fn with(engine: Engine, without: Without) -> Self {
        Self(open_engine_without(engine, without).unwrap(), engine)
    }
}

impl Subject for Real {
    fn kernel(&self) -> &dyn Kernel {
        &*self.0
    }

    fn in_page_table(&self) -> bool {
        self.1 == Engine::WpAsync
    }

    fn arming_fills_holes(&self) -> bool {
        self.1 != Engine::Mprotect
    }

    fn kernel_writes(&self, at: usize, bytes: &[u8]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let into = std::ptr::with_exposed_provenance_mut(at);
        // SAFETY: the tests give memory that they committed or mapped, of which no reference exists.
        let done = unsafe { libc::pread(file.as_fd().as_raw_fd(), into, bytes.len(), 0) };
        let error = io::Error::last_os_error();
        assert_eq!(usize::try_from(done), Ok(bytes.len()), "{error}");
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

    fn is_secluded(&self, at: usize) -> bool {
        let flags = vm_flags(at);
        let (dump, fork) = (flags.contains(" dd"), flags.contains(" dc"));
        assert_eq!(dump, fork, "{flags}");
        dump
    }
}

pub(crate) struct Model(pub(crate) ModelKernel);

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

    fn is_secluded(&self, at: usize) -> bool {
        self.0.is_secluded(at)
    }
}

/// What the kernel says about the mapping at an address.
fn vm_flags(at: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in maps.lines() {
        let span = line.split(' ').next().and_then(|span| span.split_once('-'));
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        if let Some((Some(start), Some(end))) = span.map(|(a, b)| (number(a), number(b))) {
            here = (start..end).contains(&at);
        }
        if here && line.starts_with("VmFlags:") {
            return line.to_owned();
        }
    }
    panic!("nothing is mapped at {at:#x}")
}

#[derive(Debug)]
pub(crate) struct Painted(File);

impl Mappable for Painted {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Byte `i` is `i % 251`, so that no page looks like another.
pub(crate) fn painted(len: usize) -> Painted {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&paint(len)).unwrap();
    Painted(file)
}

pub(crate) fn paint(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// A place that no other test uses, with room for 64 pages.
pub(crate) fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    0x5900_0000_0000 + NEXT.fetch_add(1, Ordering::Relaxed) * 0x1000_0000 + 0x11_0000
}

/// `len` pages from page `start` of the place at `base`.
pub(crate) fn pages(kernel: &dyn Kernel, base: usize, start: usize, len: usize) -> PageRange {
    let page = kernel.page_size();
    PageRange::new(page, base + start * page.bytes(), len * page.bytes()).unwrap()
}

/// Which of the pages of a range a query reports.
pub(crate) fn found(kernel: &dyn Kernel, range: PageRange, query: Query) -> Vec<usize> {
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

pub(crate) fn errno(result: Result<(), KernelError>) -> i32 {
    match result.unwrap_err() {
        KernelError::Call { source, .. } | KernelError::ShortCopy { source, .. } => {
            source.raw_os_error().unwrap()
        }
        other => panic!("{other}"),
    }
}

pub(crate) fn reserved(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let base = place();
    let range = pages(subject.kernel(), base, 0, len);
    subject.kernel().reserve(range).unwrap();
    (base, range)
}

pub(crate) fn committed(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let (base, range) = reserved(subject, len);
    // SAFETY: reserved just now.
    unsafe { subject.kernel().commit(range) }.unwrap();
    (base, range)
}

pub(crate) fn mapped(subject: &dyn Subject, len: usize) -> (usize, PageRange) {
    let (base, range) = reserved(subject, len);
    // SAFETY: reserved just now; nobody writes to the temporary file.
    unsafe { subject.kernel().map_file(range, &painted(range.len()), 0) }.unwrap();
    (base, range)
}

pub(crate) fn watching(subject: &dyn Subject, range: PageRange) -> Box<dyn Watch> {
    let watch = subject.kernel().watch().unwrap();
    // SAFETY: the range is this test's.
    unsafe { watch.register(range) }.unwrap();
    watch
}

pub(crate) fn scan(k: &dyn Kernel, range: PageRange, query: Query) -> Result<(), KernelError> {
    k.scan(range, query, &mut Vec::new())
}
