//! The [`Kernel`](crate::Kernel) kept in plain maps: the same states of a page, no system call.
//!
//! For everything above this crate to be tested in: deterministic, able to fail on demand, and strict. Where a broken
//! promise of an `unsafe` method would corrupt memory for real (mapping over what was never reserved, using pages
//! after their release), the model panics and says which promise. Addresses are just numbers here: the program is
//! played by [`ModelKernel::read`] and [`ModelKernel::write`].
//!
//! What it leaves out: fault-around (a read brings in one page, where the kernel may bring in its neighbours, too),
//! huge pages, swap, and files that change while mapped (their bytes are read when they are mapped).
mod backing;
mod calls;
mod faults;
mod kernel;
mod memory;
mod watch;

pub use faults::ModelCall;
pub use kernel::ModelKernel;
pub use memory::{ModelFault, ModelPage};
