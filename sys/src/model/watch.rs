//! [`Watch`] on the model.

use rustix::io::Errno;

use super::{
    calls::{failed, promised},
    faults::ModelCall,
    kernel::ModelKernel,
};
use crate::{
    kernel::{KernelError, Watch},
    page::PageRange,
};

/// One watch of the model; dropping it disarms what it watched.
#[derive(Debug)]
pub(super) struct ModelWatch {
    kernel: ModelKernel,
    number: u64,
}

impl ModelWatch {
    pub(super) fn new(kernel: ModelKernel, number: u64) -> Self {
        Self { kernel, number }
    }
}

impl Drop for ModelWatch {
    fn drop(&mut self) {
        let mut state = self.kernel.state();
        state.memory.close_watch(self.number);
        state.watching -= 1;
    }
}

impl Watch for ModelWatch {
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        let call = "ioctl(UFFDIO_REGISTER)";
        self.kernel.enter(ModelCall::Register, call, range)?;
        let memory = &mut self.kernel.state().memory;
        promised(memory, range);
        let free = |watch: Option<u64>| watch.is_none_or(|number| number == self.number);
        if !memory.all(range, |region| free(region.watch)) {
            return Err(failed(call, range, Errno::BUSY));
        }
        memory.change(range, |region| region.watch = Some(self.number));
        Ok(())
    }

    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        let call = "ioctl(UFFDIO_UNREGISTER)";
        self.kernel.enter(ModelCall::Unregister, call, range)?;
        let memory = &mut self.kernel.state().memory;
        promised(memory, range);
        // Mapped files can be watched by this kind of watch only, so one that is not cannot be unregistered.
        if !memory.all(range, |region| match region.watch {
            Some(number) => number == self.number,
            None => region.backing.is_none(),
        }) {
            return Err(failed(call, range, Errno::INVAL));
        }
        memory.change(range, |region| region.watch = None);
        memory.disarm(range);
        Ok(())
    }

    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError> {
        let call = "ioctl(UFFDIO_WRITEPROTECT)";
        self.kernel.enter(ModelCall::Arm, call, range)?;
        let memory = &mut self.kernel.state().memory;
        promised(memory, range);
        for at in memory.page_starts(range) {
            // As the kernel does: what came before stays armed.
            if memory.region(at).and_then(|region| region.watch) != Some(self.number) {
                return Err(failed(call, range, Errno::NOENT));
            }
            memory.arm(at);
        }
        Ok(())
    }

    unsafe fn install(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        let call = "ioctl(UFFDIO_COPY)";
        let page = self.kernel.state().memory.page_size();
        let range = PageRange::new(page, at, bytes.len());
        #[expect(clippy::expect_used, reason = "a broken promise of the caller's")]
        let range = range.expect("whole pages are installed, at the address of a page");
        self.kernel.enter(ModelCall::Install, call, range)?;
        let memory = &mut self.kernel.state().memory;
        promised(memory, range);
        for (at, bytes) in memory
            .page_starts(range)
            .zip(bytes.chunks_exact(page.bytes()))
        {
            let (watch, file) = match memory.region(at) {
                Some(region) => (region.watch, region.backing.is_some()),
                None => (None, false),
            };
            let problem = if watch != Some(self.number) {
                Some(Errno::NOENT)
            } else if file {
                Some(Errno::INVAL)
            } else {
                (!memory.install(at, bytes)).then_some(Errno::EXIST)
            };
            if let Some(errno) = problem {
                return Err(failed(call, range, errno));
            }
        }
        Ok(())
    }
}
