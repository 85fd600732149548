//! The programs of the guide and of the README, made by build.rs; and the pages themselves.

use std::process::{ExitCode, Termination};

/// A program that a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The page's file.
    pub page: &'static str,
    /// What the page calls it.
    pub name: &'static str,
    /// Its `main`.
    pub run: fn() -> ExitCode,
}

fn code(end: impl Termination) -> ExitCode {
    end.report()
}

include!(concat!(env!("OUT_DIR"), "/programs.rs"));
