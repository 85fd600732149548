//! `/proc/self/pagemap` read as a file: which pages are there, and which are private. Linux 4.2 for everybody.
//!
//! Eight bytes a page; what they say of frames is hidden from the unprivileged, what is needed here is not. Slower than
//! `PAGEMAP_SCAN` by the whole range's length, and the same answers, except that it cannot tell huge pages apart.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{
    kernel::{KernelError, Query},
    page::{PageRange, PageSize, push_run},
};

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;

const ENTRY: usize = size_of::<u64>();

/// Bytes read at a time: 8 MiB of memory.
const BUFFER: usize = 16 << 10;

/// The pagemap of this process.
#[derive(Debug)]
pub(super) struct Entries {
    file: io::Result<File>,
}

impl Entries {
    pub(super) fn open() -> Self {
        Self {
            file: File::open("/proc/self/pagemap"),
        }
    }

    /// Answers [`Query::Touched`] and [`Query::Private`].
    pub(super) fn scan(
        &self,
        page: PageSize,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        let file = self.file.as_ref().map_err(|error| KernelError::Unavailable {
            feature: "/proc/self/pagemap",
            remedy: "Linux 4.2 or newer, with /proc mounted and /proc/self/pagemap readable by this user",
            source: error
                .raw_os_error()
                .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
        })?;
        let failed = |source| KernelError::Call {
            call: "read(/proc/self/pagemap)",
            range,
            source,
        };
        let mut buffer = vec![0; BUFFER];
        let mut found = Vec::new();
        for window in range.windows(BUFFER / ENTRY * page.bytes()) {
            let len = window.len() / page.bytes() * ENTRY;
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            let from = (window.start() / page.bytes() * ENTRY) as u64;
            file.read_exact_at(bytes, from).map_err(failed)?;
            let (entries, _none) = bytes.as_chunks::<ENTRY>();
            for (n, entry) in entries.iter().enumerate() {
                #[expect(clippy::host_endian_bytes, reason = "numbers of this machine's kernel")]
                let entry = u64::from_ne_bytes(*entry);
                if wanted(query, entry)
                    && let Some(run) =
                        PageRange::new(page, window.start() + n * page.bytes(), page.bytes())
                {
                    push_run(&mut found, run);
                }
            }
        }
        for run in found {
            push_run(out, run);
        }
        Ok(())
    }
}

fn wanted(query: Query, entry: u64) -> bool {
    let there = entry & (PRESENT | SWAPPED) != 0;
    match query {
        Query::Touched => there,
        _ => there && entry & FILE == 0,
    }
}
