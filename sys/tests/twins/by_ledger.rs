//! Engines that keep a ledger against the plainest model of what they promise: of each page, what it holds, whether it is
//! private, who watches it, and whether it was written since it was armed.
//!
//! What was written has to be told exactly. What is private may be too much in anonymous memory (arming may bring zeros in), and
//! never too little.

use std::{collections::BTreeSet, os::fd::AsRawFd, sync::Arc};

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use segvm_os::{
    Engine, Kernel, KernelError, PageRange, Query, Watch, Without, open_engine_without, probe,
};

use super::{PAGES, Painted, Span, painted};

/// Where the first test's pages are; each has its own, since tests may share a process.
const BASE: usize = 0x5c00_1011_0000;
const APART: usize = 1 << 30;

#[derive(Clone, Debug)]
enum Step {
    Commit(Span),
    Fence(Span),
    Map(Span),
    Discard(Span),
    Register(Span),
    Unregister(Span),
    Arm(Span),
    Scan(Query, Span),
    Copy(Span),
    Write(usize, u8),
    Freeze(Span),
    Thaw(Span),
    Announce(Span),
    EndAnnounced,
    /// A system call that writes one byte.
    KernelWrites(usize, u8),
    CloseWatch,
}

fn step() -> impl Strategy<Value = Step> {
    let span = || (0..PAGES, 0..PAGES);
    let query = prop::sample::select(vec![
        Query::Private,
        Query::ArmAll,
        Query::Written,
        Query::WrittenRearm,
    ]);
    prop_oneof![
        2 => span().prop_map(Step::Commit),
        1 => span().prop_map(Step::Fence),
        2 => span().prop_map(Step::Map),
        1 => span().prop_map(Step::Discard),
        6 => span().prop_map(Step::Register),
        1 => span().prop_map(Step::Unregister),
        4 => span().prop_map(Step::Arm),
        8 => (query, span()).prop_map(|(query, span)| Step::Scan(query, span)),
        1 => span().prop_map(Step::Copy),
        8 => (0..PAGES, any::<u8>()).prop_map(|(page, byte)| Step::Write(page, byte)),
        1 => span().prop_map(Step::Freeze),
        2 => span().prop_map(Step::Thaw),
        1 => span().prop_map(Step::Announce),
        1 => Just(Step::EndAnnounced),
        3 => (0..PAGES, any::<u8>()).prop_map(|(page, byte)| Step::KernelWrites(page, byte)),
        1 => Just(Step::CloseWatch),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Backing {
    Reserved,
    Zeros,
    File,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    backing: Backing,
    /// What its sixth byte is.
    byte: u8,
    /// Written since it was made.
    private: bool,
    watched: bool,
    /// Armed, and not written since.
    armed: bool,
    frozen: bool,
}

const RESERVED: Page = Page {
    backing: Backing::Reserved,
    byte: 0,
    private: false,
    watched: false,
    armed: false,
    frozen: false,
};

/// The sixth byte of page `page` of the file.
fn of_file(page: usize, size: usize) -> u8 {
    u8::try_from((page * size + 5) % 251).unwrap()
}

struct Twin {
    base: usize,
    kernel: Arc<dyn Kernel>,
    watch: Box<dyn Watch>,
    pages: [Page; PAGES],
    announced: Vec<Span>,
    file: Painted,
    /// System calls wait for the protection of anonymous memory to be lifted.
    calls_wait: bool,
}

fn pages_of(span: Span) -> std::ops::RangeInclusive<usize> {
    span.0.min(span.1)..=span.0.max(span.1)
}

fn errno(error: &KernelError) -> Option<i32> {
    match error {
        KernelError::Call { source, .. } => source.raw_os_error(),
        other => panic!("{other}"),
    }
}

impl Twin {
    fn size(&self) -> usize {
        self.kernel.page_size().bytes()
    }

    fn range(&self, span: Span) -> PageRange {
        let (first, len) = (*pages_of(span).start(), pages_of(span).count());
        let size = self.size();
        PageRange::new(
            self.kernel.page_size(),
            self.base + first * size,
            len * size,
        )
        .unwrap()
    }

    fn at(&self, page: usize) -> usize {
        self.base + page * self.size() + 5
    }

    fn can_be_accessed(&self, span: Span) -> bool {
        pages_of(span).all(|page| self.pages[page].backing != Backing::Reserved)
    }

    fn is_held(&self, page: usize) -> bool {
        self.announced
            .iter()
            .any(|span| pages_of(*span).contains(&page))
    }

    fn replace(&mut self, span: Span, backing: Backing) {
        let size = self.size();
        for (n, page) in pages_of(span).enumerate() {
            let byte = if backing == Backing::File {
                of_file(n, size)
            } else {
                0
            };
            self.pages[page] = Page {
                backing,
                byte,
                ..RESERVED
            };
        }
    }

    fn note_write(&mut self, page: usize, byte: u8) {
        let page = &mut self.pages[page];
        (page.byte, page.private, page.armed) = (byte, true, false);
    }

    fn arm(&mut self, pages: impl IntoIterator<Item = usize>) {
        for page in pages {
            self.pages[page].armed = !self.is_held(page);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Commit(span) => {
                // SAFETY: the test reserved all of it, and refers to none of it but by volatile accesses.
                unsafe { self.kernel.commit(self.range(span)) }.unwrap();
                self.replace(span, Backing::Zeros);
            }
            Step::Fence(span) => {
                // SAFETY: as above.
                unsafe { self.kernel.fence(self.range(span)) }.unwrap();
                self.replace(span, Backing::Reserved);
            }
            Step::Map(span) => {
                // SAFETY: as above; nobody changes the file.
                unsafe { self.kernel.map_file(self.range(span), &self.file, 0) }.unwrap();
                self.replace(span, Backing::File);
            }
            Step::Discard(span) => {
                if pages_of(span).all(|page| self.pages[page].backing == Backing::Zeros) {
                    // SAFETY: as above.
                    unsafe { self.kernel.discard(self.range(span)) }.unwrap();
                    for page in pages_of(span) {
                        let page = &mut self.pages[page];
                        (page.byte, page.private, page.armed) = (0, false, false);
                    }
                }
            }
            Step::Register(span) => {
                // Nothing is known of what cannot be accessed.
                if self.can_be_accessed(span) {
                    // SAFETY: as above.
                    unsafe { self.watch.register(self.range(span)) }.unwrap();
                    pages_of(span).for_each(|page| self.pages[page].watched = true);
                }
            }
            Step::Unregister(span) => {
                // SAFETY: as above.
                unsafe { self.watch.unregister(self.range(span)) }.unwrap();
                for page in pages_of(span) {
                    (self.pages[page].watched, self.pages[page].armed) = (false, false);
                }
            }
            Step::Arm(span) => {
                // SAFETY: as above.
                let armed = unsafe { self.watch.arm(self.range(span)) };
                if pages_of(span).all(|page| self.pages[page].watched) {
                    armed.unwrap();
                    self.arm(pages_of(span));
                } else {
                    assert_eq!(errno(&armed.unwrap_err()), Some(libc::ENOENT));
                }
            }
            Step::Scan(query, span) => self.scan(query, span),
            Step::Copy(span) => {
                if self.can_be_accessed(span) {
                    let size = self.size();
                    let mut out = vec![0; self.range(span).len()];
                    self.kernel
                        .copy_racing(&[self.range(span)], &mut out)
                        .unwrap();
                    let found = out.chunks(size).map(|page| page[5]);
                    assert!(found.eq(pages_of(span).map(|page| self.pages[page].byte)));
                }
            }
            Step::Write(page, byte) => {
                if self.pages[page].backing != Backing::Reserved && !self.pages[page].frozen {
                    let to = std::ptr::with_exposed_provenance_mut::<u8>(self.at(page));
                    // SAFETY: committed or mapped, says the model.
                    unsafe { to.write_volatile(byte) };
                    self.note_write(page, byte);
                }
            }
            Step::Freeze(span) | Step::Thaw(span) => {
                let freeze = matches!(step, Step::Freeze(_));
                if self.can_be_accessed(span) {
                    // SAFETY: the test writes to nothing that is frozen.
                    unsafe { self.kernel.set_writable(self.range(span), !freeze) }.unwrap();
                    pages_of(span).for_each(|page| self.pages[page].frozen = freeze);
                }
            }
            Step::Announce(span) => {
                self.kernel.begin_kernel_write(self.range(span)).unwrap();
                self.announced.push(span);
                pages_of(span).for_each(|page| self.pages[page].armed = false);
            }
            Step::EndAnnounced => {
                if let Some(span) = self.announced.pop() {
                    self.kernel.end_kernel_write(self.range(span));
                }
            }
            Step::KernelWrites(page, byte) => self.kernel_writes(page, byte),
            Step::CloseWatch => {
                self.watch = self.kernel.watch().unwrap();
                for page in &mut self.pages {
                    (page.watched, page.armed) = (false, false);
                }
            }
        }
    }

    fn scan(&mut self, query: Query, span: Span) {
        let mut out = Vec::new();
        let answer = self.kernel.scan(self.range(span), query, &mut out);
        let watched = pages_of(span).all(|page| self.pages[page].watched);
        if query != Query::Private && !watched {
            assert_eq!(errno(&answer.unwrap_err()), Some(libc::EPERM));
            return;
        }
        answer.unwrap();
        let size = self.size();
        let each = |run: &PageRange| (run.start()..run.end()).step_by(size);
        let found: BTreeSet<usize> = out
            .iter()
            .flat_map(each)
            .map(|at| (at - self.base) / size)
            .collect();
        match query {
            Query::Written | Query::WrittenRearm => {
                let written = pages_of(span).filter(|page| !self.pages[*page].armed);
                assert!(found.iter().copied().eq(written), "{query:?}: {found:?}");
            }
            _ => {
                for page in pages_of(span) {
                    let is = &self.pages[page];
                    assert!(
                        !is.private || found.contains(&page),
                        "{query:?} leaves out {page}"
                    );
                    let held = query == Query::ArmAll && self.is_held(page);
                    let more = found.contains(&page) && !is.private && !held;
                    assert!(
                        !more || is.backing == Backing::Zeros,
                        "{query:?} tells of {page}"
                    );
                }
            }
        }
        match query {
            Query::WrittenRearm => self.arm(found),
            Query::ArmAll => self.arm(pages_of(span)),
            _ => {}
        }
    }

    fn kernel_writes(&mut self, page: usize, byte: u8) {
        let is = self.pages[page];
        if is.backing == Backing::Reserved || is.frozen {
            return;
        }
        let (from, to) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&to, &[byte]).unwrap();
        let into = std::ptr::with_exposed_provenance_mut(self.at(page));
        // SAFETY: committed or mapped, says the model; no reference to it exists.
        let done = unsafe { libc::read(from.as_raw_fd(), into, 1) };
        let waits = self.calls_wait && is.backing == Backing::Zeros;
        if is.armed && !waits {
            assert_eq!(done, -1, "let through without anybody to note it");
        } else if self.is_held(page) || !is.watched || waits {
            assert_eq!(done, 1);
        }
        // Otherwise either: what counts as written may be protected still, after a discard for example.
        if done == 1 {
            self.note_write(page, byte);
        }
    }
}

fn compare(place: usize, engine: Engine, without: Without, steps: &[Step]) {
    let kernel = open_engine_without(engine, without).unwrap();
    let size = kernel.page_size().bytes();
    let mut twin = Twin {
        base: BASE + place * APART,
        watch: kernel.watch().unwrap(),
        pages: [RESERVED; PAGES],
        announced: Vec::new(),
        file: painted(PAGES * size),
        calls_wait: engine == Engine::WpSync
            && !without.kernel_faults
            && probe().kernel_faults.is_available(),
        kernel,
    };
    let all = twin.range((0, PAGES - 1));
    twin.kernel.reserve(all).unwrap();
    let _released = Released(Arc::clone(&twin.kernel), all);
    for step in steps {
        twin.take(step);
    }
}

/// Gives the range back when the steps are over, or one has failed and proptest tries others.
struct Released(Arc<dyn Kernel>, PageRange);

impl Drop for Released {
    fn drop(&mut self) {
        // SAFETY: reserved by `compare`, which does not use it any more.
        unsafe { self.0.release(self.1) }.unwrap();
    }
}

const OLD: Without = Without {
    pagemap_scan: true,
    process_vm_readv: true,
    wp_unpopulated: true,
    kernel_faults: true,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/twins_by_ledger.regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn wp_sync_keeps_its_promises(steps in prop::collection::vec(step(), 1..60)) {
        compare(0, Engine::WpSync, Without::default(), &steps);
    }

    #[test]
    fn wp_sync_keeps_them_on_an_old_kernel(steps in prop::collection::vec(step(), 1..60)) {
        compare(1, Engine::WpSync, OLD, &steps);
    }

    #[test]
    fn mprotect_keeps_its_promises(steps in prop::collection::vec(step(), 1..60)) {
        compare(2, Engine::Mprotect, Without::default(), &steps);
    }

    #[test]
    fn mprotect_keeps_them_on_an_old_kernel(steps in prop::collection::vec(step(), 1..60)) {
        compare(3, Engine::Mprotect, OLD, &steps);
    }
}
