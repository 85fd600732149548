//! The command `segvm`: what a store holds, and what can be done with it from outside the programs.
//!
//! It reads blocks and never maps an image, so it needs no address and no kernel feature. Everything it knows comes
//! through `home` and `blockcache`; what it changes goes through the same leases and locks as a session's changes.
//!
//! | room | for |
//! |---|---|
//! | `args` | what can be said on the command line |
//! | `exit` | exit codes: one for each class of failure |
//! | `failure` | why not: the thing, the cause, the remedy |
//! | `local` | the store on this machine, and how an image in it is reached |
//! | `output` | tables and JSON, sizes and ages, colours |
//! | `cmd` | one file a verb |

#![forbid(unsafe_code)]

mod args;
mod cmd;
mod exit;
mod failure;
mod local;
mod output;

use std::{io, process::ExitCode};

use clap::Parser as _;

use crate::{args::Args, failure::Failure, output::Output};

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = Output::new(args.json, args.color);
    let done = cmd::run(&args, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match done {
        Ok(code) => code.into(),
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // What was found before the failure is worth seeing; that it cannot be shown is not the news.
            let _shown = out.flush();
            out.failure(&failure);
            failure.code().into()
        }
    }
}
