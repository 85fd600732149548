//! What this machine can do, and which knob is missing for what it cannot.

use std::{fmt, fs};

use rustix::system::uname;

use crate::{
    aligned_buf::AlignedBuf,
    kernel::{Kernel as _, KernelError, Query},
    page::{PageRange, PageSize},
    real::{Faults, RealKernel, open_userfaultfd},
};

/// Whether a mechanism works here, found by using it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Availability {
    /// It works.
    Available,
    /// It does not; the error names what would make it.
    Missing(KernelError),
}

impl Availability {
    fn of<T>(tried: Result<T, KernelError>) -> Self {
        match tried {
            Ok(_) => Self::Available,
            Err(error) => Self::Missing(error),
        }
    }

    /// Tells whether it works.
    #[must_use]
    pub fn is_available(&self) -> bool {
        matches!(self, Self::Available)
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("yes"),
            Self::Missing(error) => write!(f, "no: {error}"),
        }
    }
}

/// How the kernel answers when more memory is mapped than there is: `vm.overcommit_memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overcommit {
    /// 0: refuses what is obviously too much; segments are exempt (`MAP_NORESERVE`).
    Heuristic,
    /// 1: never refuses.
    Always,
    /// 2: charges every writable mapping in full, segments too: large reservations then need
    /// `sysctl vm.overcommit_memory=0`.
    Never,
    /// It could not be read.
    Unknown,
}

/// Bytes that programs could take without swapping, as the kernel guesses (`MemAvailable`).
///
/// Memory that is used for cached files counts. A memory cgroup's limit does not: the kernel drops cached files there by
/// itself.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What this machine can do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Features {
    /// As `uname -r` says.
    pub kernel_release: String,
    /// The page size; `None` where it is none that is supported.
    pub page_size: Option<PageSize>,
    /// userfaultfd, at all.
    pub userfaultfd: Availability,
    /// userfaultfd that is told of the faults of system calls too: a privilege since Linux 5.11.
    pub kernel_faults: Availability,
    /// Tracking of writes by the kernel (`UFFD_FEATURE_WP_ASYNC`).
    pub wp_async: Availability,
    /// Asking which pages were written (`PAGEMAP_SCAN`).
    pub pagemap_scan: Availability,
    /// Copying memory while it is written to.
    pub process_vm_readv: Availability,
    /// The most mappings a process may have (`vm.max_map_count`); `None` where it could not be read.
    pub max_maps: Option<u64>,
    /// See [`Overcommit`].
    pub overcommit: Overcommit,
}

/// Finds out what this machine can do by trying it.
///
/// - **Cost**: a dozen system calls; leaves nothing behind.
#[must_use]
pub fn probe() -> Features {
    let kernel = RealKernel::new();
    Features {
        kernel_release: uname().release().to_string_lossy().into_owned(),
        page_size: PageSize::new(rustix::param::page_size()),
        userfaultfd: Availability::of(open_userfaultfd(Faults::OfPrograms)),
        kernel_faults: Availability::of(open_userfaultfd(Faults::OfSystemCallsToo)),
        wp_async: Availability::of(on(&kernel, |kernel| kernel.watch().map(drop))),
        pagemap_scan: Availability::of(on(&kernel, |kernel| {
            on_a_page(kernel, |page| {
                kernel.scan(page, Query::Touched, &mut Vec::new())
            })
        })),
        process_vm_readv: Availability::of(on(&kernel, |kernel| {
            on_a_page(kernel, |page| {
                kernel.copy_racing(&[page], &mut vec![0; page.len()])
            })
        })),
        max_maps: sysctl("vm/max_map_count"),
        overcommit: match sysctl("vm/overcommit_memory") {
            Some(0) => Overcommit::Heuristic,
            Some(1) => Overcommit::Always,
            Some(2) => Overcommit::Never,
            _ => Overcommit::Unknown,
        },
    }
}

fn on(
    kernel: &Result<RealKernel, KernelError>,
    act: impl FnOnce(&RealKernel) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    match kernel {
        Ok(kernel) => act(kernel),
        // Making it fails for one reason only; asked again, it gives the same one.
        Err(_) => RealKernel::new().map(|_kernel| ()),
    }
}

fn on_a_page(
    kernel: &RealKernel,
    act: impl FnOnce(PageRange) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let page = kernel.page_size();
    let unavailable = |source| KernelError::Unavailable {
        feature: "one page of memory",
        remedy: "free some",
        source,
    };
    let buf = AlignedBuf::zeroed(page.bytes()).map_err(unavailable)?;
    match PageRange::new(page, buf.as_ptr().expose_provenance(), buf.len()) {
        Some(range) => act(range),
        None => unreachable!("a mapping begins at a page"),
    }
}

fn sysctl(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

/// The page size of this machine; `None` where it is none that is supported.
#[must_use]
pub fn page_size() -> Option<PageSize> {
    PageSize::new(rustix::param::page_size())
}

/// The name of this machine, as `uname -n` says.
#[must_use]
pub fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_what_the_suite_uses() {
        let features = probe();
        // The conformance suite runs on this machine and needs all of them.
        for it in [
            &features.userfaultfd,
            &features.wp_async,
            &features.pagemap_scan,
            &features.process_vm_readv,
        ] {
            assert!(it.is_available(), "{it}");
        }
        assert_eq!(features.page_size, page_size());
        assert!(features.max_maps.unwrap() >= 1024);
        assert!(features.kernel_release.contains('.') && !host_name().is_empty());
    }
}
