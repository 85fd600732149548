//! Why a side could not be measured.

use std::{io, path::PathBuf};

/// Why a side could not be measured; printed as the row's reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A file could not be used.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call on memory or processes failed.
    #[error("{call}: {source}")]
    Kernel {
        /// Which call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A helper process went away or answered nonsense.
    #[error("the process {name:?} answered {answer:?}")]
    Peer {
        /// Its name on the command line.
        name: String,
        /// What it said, empty if it ended.
        answer: String,
    },
    /// The command `segvm` did not do what a row needs.
    #[error("{path} {arguments}: {why} (`cargo build -p segvm-cli` makes it, in the same profile)")]
    Command {
        /// Where it should be.
        path: PathBuf,
        /// What it was told.
        arguments: String,
        /// What it or the system said.
        why: String,
    },
    /// The rows' file is wrong.
    #[error("rows.toml: {0}")]
    Rows(String),
    /// Our own side said no.
    #[error(transparent)]
    Ours(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl BenchError {
    /// For `map_err` on a file operation.
    pub fn file<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source: source.into(),
        }
    }

    /// For `map_err` on a system call.
    pub fn kernel<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel {
            call,
            source: source.into(),
        }
    }
}
