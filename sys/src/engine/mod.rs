//! Ways of finding out what was written, and the choice between them.
//!
//! An engine is a [`Kernel`]: the same queries, answered by other means, so that there is one algorithm for checkpoints and
//! one conformance suite. docs/design/engines.md has the reasons.
//!
//! | room | for |
//! |---|---|
//! | `ledger` | two bits a page, changed by whoever lets a write through |
//! | `handlers` | waiting until everybody has finished who does |
//! | `fault` | that it is let through, in the signal handler |
//! | `attendant` | the same where userfaultfd protects, in a thread |
//! | `arming` | which of the two protects what |
//! | `kernel` | the [`Kernel`] that answers from the ledger |
//! | `watch` | its [`Watch`](crate::Watch) |
//! | `books` | which ranges are watched, mapped from files, held writable or frozen |
//! | `spans` | values on ranges |
//! | `entries` | what a page is, where the kernel has no `PAGEMAP_SCAN` |
//! | `pipe` | copies where `process_vm_readv` is forbidden |
mod arming;
mod attendant;
mod books;
mod entries;
mod fault;
mod handlers;
mod kernel;
mod ledger;
mod pipe;
mod spans;
mod watch;

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    kernel::{Kernel, KernelError},
    real::RealKernel,
};

pub(crate) use self::fault::let_through;
use self::kernel::LedgerKernel;

/// A way of finding out which pages were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// The kernel notes it (userfaultfd's `WP_ASYNC` and `PAGEMAP_SCAN`): no code of ours runs when memory is written.
    WpAsync,
    /// Anonymous memory is write-protected by userfaultfd, and a thread notes what is written (Linux 5.7); what is mapped from
    /// files is as by [`Mprotect`](Self::Mprotect).
    ///
    /// System calls that write into anonymous memory wait for the thread, where the descriptor is told of their faults (a
    /// privilege, [`Features::kernel_faults`](crate::Features)); where it is not, and in what is mapped from files, they answer
    /// `EFAULT` unless [`Kernel::begin_kernel_write`] was said before.
    WpSync,
    /// Pages are write-protected, a handler of SIGSEGV notes it. Any kernel.
    ///
    /// System calls that write into a segment answer `EFAULT`, unless [`Kernel::begin_kernel_write`] was said before.
    Mprotect,
}

impl Engine {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::WpAsync, Self::WpSync, Self::Mprotect];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WpAsync => "wp-async",
            Self::WpSync => "wp-sync",
            Self::Mprotect => "mprotect",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no engine of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine `{name}`: the engines are wp-async, wp-sync and mprotect")]
pub struct UnknownEngine {
    /// What was written.
    pub name: String,
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == name);
        found.ok_or_else(|| UnknownEngine {
            name: name.to_owned(),
        })
    }
}

/// What an engine is not to use although the machine has it: for trying here what happens on others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// `PAGEMAP_SCAN`.
    pub pagemap_scan: bool,
    /// `process_vm_readv`.
    pub process_vm_readv: bool,
    /// `UFFD_FEATURE_WP_UNPOPULATED`, which Linux has since 6.4.
    pub wp_unpopulated: bool,
    /// A userfaultfd that is told of system calls' faults.
    pub kernel_faults: bool,
}

/// Makes the kernel that tracks by this engine.
///
/// - **Errors**: [`KernelError::Unavailable`] with the remedy, where the machine lacks what it needs.
pub fn open_engine(engine: Engine) -> Result<Arc<dyn Kernel>, KernelError> {
    open_engine_without(engine, Without::default())
}

/// As [`open_engine`], on a machine that lacks more than this one.
pub fn open_engine_without(
    engine: Engine,
    without: Without,
) -> Result<Arc<dyn Kernel>, KernelError> {
    Ok(match engine {
        Engine::WpAsync => {
            let kernel = RealKernel::new()?;
            kernel.watch().map(drop)?;
            Arc::new(kernel)
        }
        Engine::WpSync => Arc::new(LedgerKernel::by_userfaultfd(without)?),
        Engine::Mprotect => Arc::new(LedgerKernel::by_protection(without)?),
    })
}

/// Makes the kernel of the best engine that works here, and tells which it is.
///
/// - **Errors**: that of the last one, where none does.
pub fn best_engine() -> Result<(Engine, Arc<dyn Kernel>), KernelError> {
    let [best @ .., last] = Engine::ALL;
    let found = best
        .into_iter()
        .find_map(|engine| Some((engine, open_engine(engine).ok()?)));
    found.map_or_else(|| Ok((last, open_engine(last)?)), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_names_and_others_are_refused() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        let refused = "wp".parse::<Engine>().unwrap_err().to_string();
        for engine in Engine::ALL {
            assert!(refused.contains(engine.name()), "{refused}");
        }
    }

    #[test]
    fn the_best_is_what_the_machine_has() {
        let (best, kernel) = best_engine().unwrap();
        assert_eq!(
            best == Engine::WpAsync,
            crate::probe().wp_async.is_available()
        );
        kernel.watch().map(drop).unwrap();
    }
}
