//! The project's own commands: `cargo xtask help` lists them.
//!
//! Needs nothing but cargo and std, so that a fresh machine builds it in a second.

mod bench;
mod demo;
mod fuzz;
mod step;
mod test;
mod unsafe_list;

use std::process::ExitCode;

const HELP: &str = "\
The project's own commands, run as `cargo xtask COMMAND`:

  demo [--input DIR]       indexes source code, is killed, resumes, searches, and says how long each took;
                           DIR instead of the sources that cargo fetched. A second run goes on
      --clean              removes what earlier runs left in target/demo
  test [--all]             everything a change must pass: format, clippy, tests, doc tests, rustdoc,
                           the list of unsafe code, dependency policy, saved fuzz inputs. --all adds the long soaks
  lint                     the parts of `test` that run no test: format, clippy, rustdoc, unsafe list, policy
  bench [SUITE] [OPTIONS]  measures both sides of every row (default suite: core), prints a table and
                           updates docs/measurements.md
      --json               one JSON array instead of the table
      --engine mprotect    the same rows with that engine forced, as a suite of its own (core-mprotect)
      --rows PATTERN       only rows whose name contains PATTERN (several, separated by commas)
      --scale 1/N          smaller data: a quick look, which leaves docs/measurements.md alone
      --list               names the rows and their targets, measures nothing
  fuzz [SECONDS] [TARGET]  runs every fuzz target (or one) for SECONDS each (default 20)
  help                     this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map_or("help", String::as_str) {
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        "demo" => demo::demo(rest),
        "test" => test::test(rest),
        "lint" => test::lint(rest),
        "bench" => bench::bench(rest),
        "fuzz" => fuzz::fuzz(rest),
        other => Err(step::Failure::usage(format!("no command named {other:?}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            failure.exit_code()
        }
    }
}
