//! Address space: claimed, given back, made usable, fenced off.
//!
//! Reserved means mapped without access (`PROT_NONE`), so that nothing else is placed there, and without a charge
//! against the commit limit. Everything else replaces the reservation in place by `MAP_FIXED`, which is atomic: no
//! instant at which another mapping could slip in.

use std::{fs, ptr};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
};

use super::{failed, mapping::leave_out_of_dumps};
use crate::{kernel::KernelError, page::PageRange};

pub(super) fn reserve(range: PageRange) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: FIXED_NOREPLACE makes a new mapping or none; no memory that exists is touched.
    let got = match unsafe { mmap_anonymous(at, range.len(), ProtFlags::empty(), flags) } {
        Ok(got) => got,
        Err(Errno::EXIST) => return Err(taken(range)),
        Err(errno) => return Err(failed("mmap", range, errno)),
    };
    if got == at {
        // SAFETY: this very mapping was made above, and has no bytes.
        return unsafe { leave_out_of_dumps(range) };
    }
    // Before Linux 4.17 the flag is unknown, and the address a mere hint.
    // SAFETY: this very mapping was made above, and nobody knows of it.
    let undone = unsafe { munmap(got, range.len()) };
    undone.map_err(|errno| failed("munmap", range, errno))?;
    Err(taken(range))
}

fn taken(range: PageRange) -> KernelError {
    let holder = fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| holder(&maps, range).map(str::to_owned));
    KernelError::Taken { range, holder }
}

/// Finds the first line of `/proc/self/maps` that has a page in common with `range`.
fn holder(maps: &str, range: PageRange) -> Option<&str> {
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    maps.lines().find(|line| {
        line.split_once(' ')
            .and_then(|(span, _)| span.split_once('-'))
            .and_then(|(start, end)| Some((number(start)?, number(end)?)))
            .is_some_and(|(start, end)| start < range.end() && end > range.start())
    })
}

/// # Safety
/// As [`Kernel::release`](crate::Kernel::release).
pub(super) unsafe fn release(range: PageRange) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: the caller reserved these pages and lets go of every pointer into them.
    let done = unsafe { munmap(at, range.len()) };
    done.map_err(|errno| failed("munmap", range, errno))
}

/// # Safety
/// As [`Kernel::commit`](crate::Kernel::commit).
pub(super) unsafe fn commit(range: PageRange) -> Result<(), KernelError> {
    // SAFETY: the caller's promise is the callee's.
    unsafe { replace(range, ProtFlags::READ | ProtFlags::WRITE) }
}

/// # Safety
/// As [`Kernel::fence`](crate::Kernel::fence).
pub(super) unsafe fn fence(range: PageRange) -> Result<(), KernelError> {
    // SAFETY: the caller's promise is the callee's.
    unsafe { replace(range, ProtFlags::empty()) }?;
    // SAFETY: fresh memory of the caller's that nobody can read or write.
    unsafe { leave_out_of_dumps(range) }
}

/// Puts fresh anonymous memory where the range is.
///
/// # Safety
/// The caller reserved every page of the range, and what lies there is not needed or referenced any more.
unsafe fn replace(range: PageRange, access: ProtFlags) -> Result<(), KernelError> {
    if range.is_empty() {
        return Ok(());
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    let at = ptr::with_exposed_provenance_mut(range.start());
    // SAFETY: MAP_FIXED replaces exactly these pages, which the caller owns and no longer needs.
    let done = unsafe { mmap_anonymous(at, range.len(), access, flags) };
    done.map(|_same| ())
        .map_err(|errno| failed("mmap", range, errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PageSize;

    #[test]
    fn the_line_in_the_way_is_found() {
        let maps = "1000-3000 r--p 00000000 00:00 0 /a\n5000-6000 rw-p 00000000 00:00 0 /b c\n";
        let at = |start, len| PageRange::new(PageSize::MIN, start, len).unwrap();
        assert_eq!(holder(maps, at(0x3000, 0x2000)), None);
        let line = holder(maps, at(0x3000, 0x3000)).unwrap();
        assert!(line.ends_with("/b c"), "{line}");
        assert!(holder(maps, at(0x2000, 0x1000)).unwrap().ends_with("/a"));
    }

    /// The flags that the kernel shows of the page at `at`.
    fn flags(at: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in maps.lines() {
            let span = line.split(' ').next().and_then(|span| span.split_once('-'));
            let number = |hex| usize::from_str_radix(hex, 16).ok();
            if let Some((Some(start), Some(end))) = span.map(|(a, b)| (number(a), number(b))) {
                here = (start..end).contains(&at);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| here) {
                return flags.to_owned();
            }
        }
        panic!("nothing at {at:#x}");
    }

    #[test]
    fn what_is_only_reserved_or_fenced_is_in_no_core_file() {
        let page = PageSize::new(rustix::param::page_size()).unwrap();
        let at = 0x3a70_0000_0000;
        let range = PageRange::new(page, at, 4 * page.bytes()).unwrap();
        let part = PageRange::new(page, at, 2 * page.bytes()).unwrap();
        reserve(range).unwrap();
        assert!(flags(at).contains(" dd"));
        // SAFETY: reserved above, and nobody knows of it.
        unsafe { commit(part) }.unwrap();
        assert!(!flags(at).contains(" dd"));
        assert!(flags(at + 3 * page.bytes()).contains(" dd"));
        // SAFETY: as above.
        unsafe { fence(part) }.unwrap();
        assert!(flags(at).contains(" dd"));
        // SAFETY: as above.
        unsafe { release(range) }.unwrap();
    }
}
