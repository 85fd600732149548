//! System calls that write into a segment, announced.

use std::{fmt, sync::Arc};

use segvm_os::{Kernel, PageRange};

use super::handle::Segment;
use crate::{
    gate::{Kind, Pass},
    session::OpenError,
};

/// Leave for system calls to write into part of a segment: a pass of the gate, and until it is dropped no page of the part is
/// protected from writing.
#[must_use = "dropping it ends the leave"]
pub struct KernelWrite<'s> {
    kernel: Arc<dyn Kernel>,
    pages: PageRange,
    /// Left after the announcement was taken back: a checkpoint's instant never comes in between.
    pass: Pass<'s>,
}

impl Drop for KernelWrite<'_> {
    fn drop(&mut self) {
        self.kernel.end_kernel_write(self.pages);
    }
}

impl fmt::Debug for KernelWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelWrite({}, {:?})", self.pages, self.pass)
    }
}

impl Segment {
    /// Says that system calls are going to write `len` bytes from `offset` on (`read`, `recv`, `getrandom`, I/O past the page
    /// tables), until what is returned is dropped. It is a pass of the gate too.
    ///
    /// By the engine `mprotect` a system call that was not announced may answer `EFAULT`, wherever a page has not been written
    /// since the last checkpoint; by `wp-sync` too, in what a resume mapped, and everywhere for a process without the privilege
    /// to have system calls wait; by `wp-async` only the pass matters. A program that says it works by every engine.
    ///
    /// - **Cost**: by `mprotect` and `wp-sync` the pages count as written, also where the call writes nothing.
    /// - **Blocks**: as a write does, while a checkpoint copies its residue or a restore runs.
    /// - **Panics**: if the bytes do not lie within the segment's length, as slice indexing does.
    pub fn will_write(&self, offset: usize, len: usize) -> Result<KernelWrite<'_>, OpenError> {
        let gate = &self.core.gate;
        let pass = gate.enter(Kind::Write, gate.label(&self.shared.name))?;
        self.check(offset, len);
        let kernel = Arc::clone(&self.core.world.kernel);
        let pages = self.shared.part(offset, len);
        kernel.begin_kernel_write(pages)?;
        Ok(KernelWrite {
            kernel,
            pages,
            pass,
        })
    }
}
