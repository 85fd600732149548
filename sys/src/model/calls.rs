//! [`Kernel`] on the model.

use std::io;

use rustix::io::Errno;

use super::{
    backing::Backing,
    faults::ModelCall,
    kernel::ModelKernel,
    memory::{Access, Memory},
    watch::ModelWatch,
};
use crate::{
    kernel::{Kernel, KernelError, Mappable, Query, Watch},
    page::{PageRange, PageSize, push_run},
};

pub(super) fn failed(
    call: &'static str,
    range: PageRange,
    source: impl Into<io::Error>,
) -> KernelError {
    KernelError::Call {
        call,
        range,
        source: source.into(),
    }
}

impl ModelKernel {
    /// Counts a call, and fails it where that was planned.
    pub(super) fn enter(
        &self,
        call: ModelCall,
        name: &'static str,
        range: PageRange,
    ) -> Result<(), KernelError> {
        match self.state().faults.count(call) {
            Some(errno) => Err(failed(name, range, errno)),
            None => Ok(()),
        }
    }
}

/// The promise that every unsafe method asks for.
pub(super) fn promised(memory: &Memory, range: PageRange) {
    assert!(
        memory.all(range, |_any| true),
        "broken promise: not every page of {range} is reserved"
    );
}

/// The promise of those that work on committed memory alone.
fn committed(memory: &Memory, range: PageRange) {
    assert!(
        memory.all(range, |region| {
            region.access == Access::ReadWrite && region.backing.is_none()
        }),
        "broken promise: not all of {range} is committed memory"
    );
}

/// An empty range: where a call is on no memory in particular.
fn nowhere(page: PageSize, at: usize) -> PageRange {
    let nowhere = PageRange::covering(page, page.floor(at), 0);
    nowhere.unwrap_or_else(|| unreachable!("rounding down does not overflow"))
}

impl Kernel for ModelKernel {
    fn page_size(&self) -> PageSize {
        self.state().memory.page_size()
    }

    fn reserve(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Reserve, "mmap", range)?;
        let memory = &mut self.state().memory;
        if let Some(holder) = memory.overlap(range) {
            let holder = Some(format!("{:x}-{:x} (model)", holder.start(), holder.end()));
            return Err(KernelError::Taken { range, holder });
        }
        memory.map(range, Access::None, None);
        Ok(())
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Release, "munmap", range)?;
        let memory = &mut self.state().memory;
        promised(memory, range);
        memory.unmap(range);
        Ok(())
    }

    unsafe fn commit(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Commit, "mmap", range)?;
        let memory = &mut self.state().memory;
        promised(memory, range);
        memory.map(range, Access::ReadWrite, None);
        Ok(())
    }

    unsafe fn fence(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Fence, "mmap", range)?;
        let memory = &mut self.state().memory;
        promised(memory, range);
        memory.map(range, Access::None, None);
        Ok(())
    }

    unsafe fn map_file(
        &self,
        range: PageRange,
        file: &dyn Mappable,
        offset: u64,
    ) -> Result<(), KernelError> {
        self.enter(ModelCall::MapFile, "mmap", range)?;
        let page = self.page_size();
        if !offset.is_multiple_of(page.bytes() as u64) {
            return Err(failed("mmap", range, Errno::INVAL));
        }
        // Before the lock: the file may be a double that asks this kernel.
        let backing =
            Backing::read(file, offset, range).map_err(|error| failed("mmap", range, error))?;
        let memory = &mut self.state().memory;
        promised(memory, range);
        memory.map(range, Access::ReadWrite, Some(backing));
        Ok(())
    }

    unsafe fn fill(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        let page = self.page_size();
        let range = PageRange::covering(page, at, bytes.len());
        let range = range.unwrap_or_else(|| nowhere(page, at));
        self.enter(ModelCall::Fill, "fill", range)?;
        if let Err(fault) = self.write(at, bytes) {
            panic!("broken promise: filling memory that is not committed: {fault}");
        }
        Ok(())
    }

    fn populate_read(&self, range: PageRange) -> Result<(), KernelError> {
        let call = "madvise(MADV_POPULATE_READ)";
        self.enter(ModelCall::PopulateRead, call, range)?;
        let memory = &mut self.state().memory;
        for at in memory.page_starts(range) {
            // As the kernel does: what came before is in.
            match memory.region(at).map(|region| region.access) {
                None => return Err(failed(call, range, Errno::NOMEM)),
                Some(Access::None) => return Err(failed(call, range, Errno::INVAL)),
                Some(Access::Read | Access::ReadWrite) => {}
            }
            let one = memory.read(at, &mut [0]);
            one.map_err(|_fault| failed(call, range, Errno::FAULT))?;
        }
        Ok(())
    }

    unsafe fn set_writable(&self, range: PageRange, writable: bool) -> Result<(), KernelError> {
        self.enter(ModelCall::SetWritable, "mprotect", range)?;
        let memory = &mut self.state().memory;
        promised(memory, range);
        memory.change(range, |region| {
            region.access = if writable {
                Access::ReadWrite
            } else {
                Access::Read
            };
        });
        Ok(())
    }

    unsafe fn discard(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Discard, "madvise(MADV_DONTNEED)", range)?;
        let memory = &mut self.state().memory;
        committed(memory, range);
        memory.free(range);
        Ok(())
    }

    unsafe fn seclude(&self, range: PageRange) -> Result<(), KernelError> {
        self.enter(ModelCall::Seclude, "madvise(MADV_DONTFORK)", range)?;
        let memory = &mut self.state().memory;
        committed(memory, range);
        memory.change(range, |region| region.secluded = true);
        Ok(())
    }

    fn watch(&self) -> Result<Box<dyn Watch>, KernelError> {
        let state = &mut *self.state();
        if let Some(errno) = state.faults.count(ModelCall::OpenWatch) {
            return Err(KernelError::Unavailable {
                feature: "userfaultfd",
                remedy: "a model that was not told to fail",
                source: errno.into(),
            });
        }
        state.watches += 1;
        state.watching += 1;
        Ok(Box::new(ModelWatch::new(self.clone(), state.watches)))
    }

    fn scan(
        &self,
        range: PageRange,
        query: Query,
        out: &mut Vec<PageRange>,
    ) -> Result<(), KernelError> {
        let call = "ioctl(PAGEMAP_SCAN)";
        let planned = self.state().faults.count(ModelCall::Scan);
        let memory = &mut self.state().memory;
        let page = memory.page_size();
        let pages = range.len() / page.bytes();
        // A planned failure strikes in the middle: what was walked before it stays armed, unreported.
        let fails_at = planned.map(|errno| (range.start() + pages / 2 * page.bytes(), errno));

        let mut found = Vec::new();
        for at in memory.page_starts(range) {
            if let Some((middle, errno)) = fails_at
                && at >= middle
            {
                return Err(failed(call, range, errno));
            }
            let Some(region) = memory.region(at) else {
                continue;
            };
            let rearms = matches!(query, Query::ArmAll | Query::WrittenRearm);
            if (rearms || query == Query::Written) && region.watch.is_none() {
                return Err(failed(call, range, Errno::PERM));
            }
            let reported = memory.matches(at, query);
            if reported && let Some(run) = PageRange::covering(page, at, 1) {
                push_run(&mut found, run);
            }
            if query == Query::ArmAll || (query == Query::WrittenRearm && reported) {
                memory.arm(at);
            }
        }
        if let Some((_, errno)) = fails_at {
            return Err(failed(call, range, errno));
        }
        for run in found {
            push_run(out, run);
        }
        Ok(())
    }

    fn copy_racing(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        let planned = self.state().faults.count(ModelCall::CopyRacing);
        let wanted = out.len();
        check_len(ranges, wanted);
        let page = self.page_size();
        let mut copied = 0;
        for range in ranges {
            for piece in range.windows(page.bytes()) {
                let short = |at, errno: Errno| KernelError::ShortCopy {
                    at,
                    copied,
                    wanted,
                    source: errno.into(),
                };
                if let Some(errno) = planned {
                    return Err(short(piece.start(), errno));
                }
                self.run_hook(piece);
                let into = out.get_mut(copied..copied + piece.len());
                self.read(piece.start(), into.unwrap_or_default())
                    .map_err(|fault| short(fault.at(), Errno::FAULT))?;
                copied += piece.len();
            }
        }
        Ok(())
    }

    unsafe fn copy_quiet(&self, ranges: &[PageRange], out: &mut [u8]) -> Result<(), KernelError> {
        let first = ranges.first().copied();
        let first = first.unwrap_or_else(|| nowhere(self.page_size(), 0));
        self.enter(ModelCall::CopyQuiet, "copy", first)?;
        check_len(ranges, out.len());
        let mut rest = out;
        for range in ranges {
            let (now, after) = rest.split_at_mut(range.len());
            rest = after;
            self.run_quiet_hook(*range);
            if let Err(fault) = self.read(range.start(), now) {
                panic!("broken promise: copying memory that cannot be read: {fault}");
            }
        }
        Ok(())
    }
}

fn check_len(ranges: &[PageRange], len: usize) {
    let wanted: usize = ranges.iter().map(|range| range.len()).sum();
    assert_eq!(len, wanted, "the buffer is not as long as the ranges");
}
