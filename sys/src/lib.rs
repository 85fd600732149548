//! Everything segvm asks of the kernel, behind typed functions that keep errno.
mod kernel;
mod page;

pub use kernel::{Kernel, KernelError, Mappable, Query, Watch};
pub use page::{PageRange, PageSize, push_run};
