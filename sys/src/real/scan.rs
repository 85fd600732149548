//! `PAGEMAP_SCAN`: which pages match, and arming them in the same step. Linux 6.7.
//!
//! The kernel walks the page tables and fills a vector of regions; when the vector is full it stops, says where
//! (`walk_end`), and is asked to go on. That word cannot be taken as it is: the kernel collects 512 regions at a time,
//! and once it has collected more than that, `walk_end` stays where the last batch began though the walk went on to the
//! end (Linux 6.18). What was reported has been walked, too, so a scan goes on at whichever lies further. Going on at
//! `walk_end` alone reports pages twice, out of order.
//!
//! Where it fails in the middle, pages may be armed that were never reported:
//! hence the rule on [`Query`] that an error makes the whole range dirty.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use linux_raw_sys::general::{
    PAGE_IS_FILE, PAGE_IS_HUGE, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PAGE_IS_WRITTEN,
    PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING, page_region, pm_scan_arg,
};
use parking_lot::Mutex;
use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode},
};

use super::failed;
use crate::{
    kernel::{KernelError, Query},
    page::{PageRange, PageSize, push_run},
};

const FILE: u64 = PAGE_IS_FILE as u64;
const HUGE: u64 = PAGE_IS_HUGE as u64;
const WRITTEN: u64 = PAGE_IS_WRITTEN as u64;
const MAPPED: u64 = (PAGE_IS_PRESENT | PAGE_IS_SWAPPED) as u64;
const REARM: u64 = (PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC) as u64;
const WATCHED_ONLY: u64 = PM_SCAN_CHECK_WPASYNC as u64;

/// Regions a vector holds: 96 KiB. Scattered single pages of a whole GiB fill it 64 times.
const VECTOR_LEN: usize = 4096;

/// Vectors kept for the next scan; more than this many scans at a time allocate.
const VECTORS_KEPT: usize = 8;

/// Regions asked for within one region: huge pages of one kind follow each other.
const FEW: usize = 16;

const NOTHING: page_region = page_region {
    start: 0,
    end: 0,
    categories: 0,
};

type Vector = Box<[page_region]>;

/// The pagemap of this process, and vectors to scan into.
#[derive(Debug)]
pub(super) struct Scanner {
    pagemap: Result<File, Errno>,
    /// Handed out and taken back, so that a scan in a pause allocates nothing. A leaf in the order of locks; not held
    /// during a scan.
    spare: Mutex<Vec<Vector>>,
}

impl Scanner {
    pub(super) fn open() -> Self {
        let pagemap = File::open("/proc/self/pagemap");
        Self {
            pagemap: pagemap.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            spare: Mutex::new(vec![new_vector()]),
        }
    }

    pub(super) fn scan(
        &self,
        page: PageSize,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        let pagemap = self.pagemap.as_ref().map_err(|errno| unavailable(*errno))?;
        let spare = self.spare.lock().pop();
        let mut vector = spare.unwrap_or_else(new_vector);

        // A run may be merged into the last one that is there, so both are needed to undo.
        let (before, last) = (out.len(), out.last().copied());
        let result = walk(pagemap.as_fd(), page, range, query, &mut vector, out);
        if result.is_err() {
            out.truncate(before);
            if let (Some(now), Some(then)) = (out.last_mut(), last) {
                *now = then;
            }
        }

        let mut spare = self.spare.lock();
        if spare.len() < VECTORS_KEPT {
            spare.push(vector);
        }
        result
    }
}

fn new_vector() -> Vector {
    vec![NOTHING; VECTOR_LEN].into_boxed_slice()
}

fn unavailable(errno: Errno) -> KernelError {
    KernelError::Unavailable {
        feature: "PAGEMAP_SCAN",
        remedy: "Linux 6.7 or newer, with /proc mounted and /proc/self/pagemap readable by this user",
        source: errno.into(),
    }
}

fn walk(
    pagemap: BorrowedFd<'_>,
    page: PageSize,
    range: PageRange,
    query: Query,
    vector: &mut [page_region],
    out: &mut Vec<PageRange>,
) -> Result<(), KernelError> {
    let end = range.end() as u64;
    let mut at = range.start() as u64;
    while at < end {
        let mut call = Scan::new(query, at, end, vector);
        // SAFETY: `call` describes a valid PAGEMAP_SCAN whose vector is borrowed for the whole call. Arming changes
        // no byte, and works only on pages registered by a `Watch`, whose caller promised to own them.
        let found = unsafe { ioctl(pagemap, &mut call) };
        let found = found.map_err(|errno| match errno {
            Errno::NOTTY | Errno::NOSYS => unavailable(errno),
            errno => failed("ioctl(PAGEMAP_SCAN)", range, errno),
        })?;
        let mut walked = call.arg.walk_end;
        for region in vector.iter().take(found) {
            walked = walked.max(region.end);
            let run = addresses(page, region).ok_or_else(|| nonsense(range))?;
            if query == Query::Touched && region.categories & HUGE != 0 {
                // Whose it is costs a look at each page it is asked of, so it is asked of huge ones alone.
                let mut few = [NOTHING; FEW];
                walk(pagemap, page, run, Query::Private, &mut few, out)?;
            } else if wanted(query, region.categories) {
                push_run(out, run);
            }
        }
        if walked <= at {
            return Err(nonsense(range));
        }
        at = walked;
    }
    Ok(())
}

/// What the kernel could not filter. [`Query::ArmAll`] must match *every* page, so that none stays unarmed; which of
/// them were private is told by what it returns.
fn wanted(query: Query, categories: u64) -> bool {
    match query {
        Query::ArmAll => categories & FILE == 0 && categories & MAPPED != 0,
        Query::Touched | Query::Huge | Query::Private | Query::Written | Query::WrittenRearm => {
            true
        }
    }
}

fn addresses(page: PageSize, region: &page_region) -> Option<PageRange> {
    let start = usize::try_from(region.start).ok()?;
    let end = usize::try_from(region.end).ok()?;
    PageRange::new(page, start, end.checked_sub(start)?)
}

/// An answer that no kernel should give. An error, because an error makes everything dirty: nothing is lost.
fn nonsense(range: PageRange) -> KernelError {
    KernelError::Call {
        call: "ioctl(PAGEMAP_SCAN)",
        range,
        source: io::ErrorKind::InvalidData.into(),
    }
}

/// One call.
struct Scan<'v> {
    arg: pm_scan_arg,
    /// `arg.vec` points there.
    _vector: &'v mut [page_region],
}

impl<'v> Scan<'v> {
    fn new(query: Query, start: u64, end: u64, vector: &'v mut [page_region]) -> Self {
        // The zero page (PFNZERO) is never excluded: a page with content can become it.
        let (flags, category_inverted, category_mask, category_anyof_mask, return_mask) =
            match query {
                // Without FILE, which reads the descriptor of every page: nothing but the entries is looked at.
                Query::Touched => (0, 0, 0, MAPPED, HUGE),
                Query::Huge => (0, 0, FILE | HUGE, 0, 0),
                Query::Private => (0, FILE, FILE, MAPPED, 0),
                Query::ArmAll => (REARM, 0, 0, 0, FILE | MAPPED),
                // Exactly this mask on both sides is what the kernel has a fast path for.
                Query::Written => (WATCHED_ONLY, 0, WRITTEN, 0, WRITTEN),
                Query::WrittenRearm => (REARM, 0, WRITTEN, 0, WRITTEN),
            };
        let arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags,
            start,
            end,
            walk_end: 0,
            vec: vector.as_mut_ptr().expose_provenance() as u64,
            vec_len: vector.len() as u64,
            max_pages: 0,
            category_inverted,
            category_mask,
            category_anyof_mask,
            return_mask,
        };
        Self {
            arg,
            _vector: vector,
        }
    }
}

// SAFETY: the opcode takes a pm_scan_arg, which `as_ptr` points to for as long as the call lives; the kernel writes
// into it and into the vector that is borrowed with it, and returns the number of regions written.
unsafe impl Ioctl for &mut Scan<'_> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<pm_scan_arg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut libc::c_void {
        (&raw mut self.arg).cast()
    }

    unsafe fn output_from_ptr(
        found: IoctlOutput,
        _: *mut libc::c_void,
    ) -> rustix::io::Result<usize> {
        // Negative results were turned into errors before.
        usize::try_from(found).map_err(|_negative| Errno::INVAL)
    }
}
