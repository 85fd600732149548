//! Names what a fault on one of our ranges means, before the process dies of it.
//!
//! A read error of the disk under a mapped pack arrives as SIGBUS, a stale pointer into a closed session as SIGSEGV.
//! Both kill; neither says why. [`watch_faults`] says it: one line on stderr, for addresses in watched ranges only.
//! Then whoever handled the signal before us does so again: a debugger's or crash reporter's handler still runs, and
//! the default still dumps core. The same handler lets writes through to pages that an engine has protected
//! (`crate::engine`): those are no faults, and nobody else hears of them.
//!
//! - `table`: which ranges, and the words for them, in a static table without locks.
//! - `handler`: what runs in the signal.
//! - `maps`: which file is mapped where the fault was.
mod handler;
mod maps;
mod table;

pub(crate) use handler::install;
pub use table::{FaultKind, FaultWatch, WatchFaultsError, watch_faults};
