//! `cargo xtask bench`: builds the benchmarks as they ship, then lets them speak for themselves.

use crate::step::{Failure, cargo, run};

/// Passes its arguments to the benches' own command line, which knows suites, rows and tables.
pub(crate) fn bench(arguments: &[String]) -> Result<(), Failure> {
    run(
        "build the benchmarks",
        // The command, too: some rows measure it.
        &mut cargo([
            "build",
            "--quiet",
            "--release",
            "-p",
            "segvm-benches",
            "-p",
            "segvm-cli",
        ]),
        "the workspace must build: `cargo xtask lint` says why it does not",
    )?;
    run(
        "bench",
        cargo(["run", "--quiet", "--release", "-p", "segvm-benches", "--"]).args(arguments),
        "the line above names the row and the cause; `cargo xtask bench --list` lists rows",
    )
}
