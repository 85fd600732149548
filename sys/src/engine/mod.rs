//! Ways of finding out what was written, and the choice between them.
//!
//! An engine is a [`Kernel`]: the same queries, answered by other means, so that there is one algorithm for checkpoints and
//! one conformance suite. docs/design/engines.md has the reasons.
//!
//! | room | for |
//! |---|---|
//! | `ledger` | two bits a page, changed by whoever lets a write through |
//! | `fault` | that it is let through, in the signal handler |
//! | `kernel` | the [`Kernel`] that answers from the ledger |
//! | `books` | which ranges are watched, mapped from files, held writable or frozen |
//! | `spans` | values on ranges |
//! | `entries` | what a page is, where the kernel has no `PAGEMAP_SCAN` |
//! | `pipe` | copies where `process_vm_readv` is forbidden |
mod books;
mod entries;
mod fault;
mod kernel;
mod ledger;
mod pipe;
mod spans;

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
    /// Pages are write-protected, a handler of SIGSEGV notes it. Any kernel.
    ///
    /// System calls that write into a segment answer `EFAULT`, unless [`Kernel::begin_kernel_write`] was said before.
    Mprotect,
}

impl Engine {
    /// All of them, best first.
    pub const ALL: [Self; 2] = [Self::WpAsync, Self::Mprotect];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WpAsync => "wp-async",
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
#[error("there is no engine `{name}`: the engines are wp-async and mprotect")]
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
        Engine::Mprotect => Arc::new(LedgerKernel::new(without)?),
    })
}

/// Makes the kernel of the best engine that works here, and tells which it is.
///
/// - **Errors**: that of the last one, where none does.
pub fn best_engine() -> Result<(Engine, Arc<dyn Kernel>), KernelError> {
    open_engine(Engine::WpAsync)
        .map(|kernel| (Engine::WpAsync, kernel))
        .or_else(|_missing| Ok((Engine::Mprotect, open_engine(Engine::Mprotect)?)))
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
