//! Everything segvm asks of the kernel, behind typed functions that keep errno.
//!
//! Linux on 64-bit machines only. `unsafe` lives here; each of its files is argued in docs/unsafe.md.
mod aligned_buf;
mod engine;
mod file_map;
mod kernel;
mod model;
mod page;
mod probe;
mod real;
mod sigbus;
mod writeback;

pub use aligned_buf::AlignedBuf;
pub use engine::{Engine, UnknownEngine, Without, best_engine, open_engine, open_engine_without};
pub use file_map::FileMap;
pub use kernel::{Kernel, KernelError, Mappable, Query, Watch};
pub use model::{ModelCall, ModelFault, ModelKernel, ModelPage};
pub use page::{PageRange, PageSize, push_run};
pub use probe::{
    Availability, Features, Overcommit, available_memory, host_name, page_size, probe,
};
pub use real::RealKernel;
pub use sigbus::{FaultKind, FaultWatch, WatchFaultsError, watch_faults};
pub use writeback::begin_writeback;

/// Addresses travel to the kernel as 64-bit numbers and come back as such.
const _: () = assert!(usize::BITS == 64, "segvm needs 64-bit addresses");
