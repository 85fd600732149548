//! The command `segvm`, as a shell runs it: a process of its own, from its start to its end.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::error::BenchError;

/// What a run said and how long it took.
#[derive(Debug)]
pub struct Ran {
    /// From before the process was made until after it was gone.
    pub took: Duration,
    /// How many lines came out of it.
    pub lines: usize,
}

/// Runs the command on a store.
///
/// - **Errors**: [`BenchError::Command`] where it is not built, or fails.
pub fn segvm(store: &Path, arguments: &[&str]) -> Result<Ran, BenchError> {
    let path = path()?;
    let mut command = Command::new(&path);
    command
        .arg("--store")
        .arg(store)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let begun = Instant::now();
    let output = command.output();
    let took = begun.elapsed();
    let failed = |why: String| BenchError::Command {
        path,
        arguments: arguments.join(" "),
        why,
    };
    match output {
        Ok(output) if output.status.success() => Ok(Ran {
            took,
            lines: output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        }),
        Ok(output) => Err(failed(output.status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Built beside this program, or there is none.
fn path() -> Result<PathBuf, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::kernel("current_exe"))?;
    Ok(program.with_file_name("segvm"))
}
