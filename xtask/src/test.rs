//! `cargo xtask test` and `lint`: what every change must pass.

use crate::{
    step::{Failure, Run, cargo, has_subcommand, root, target_dir},
    unsafe_list,
};

/// Runs every check; `--all` adds the tests marked `#[ignore]`, which are the long soaks.
pub(crate) fn test(arguments: &[String]) -> Result<(), Failure> {
    let soaks = match arguments {
        [] => false,
        [flag] if flag == "--all" => true,
        other => return Err(Failure::usage(format!("test takes [--all], not {other:?}"))),
    };
    let mut run = Run::default();
    lints(&mut run);
    tests(&mut run);
    if soaks {
        long_tests(&mut run);
    }
    saved_inputs(&mut run);
    run.finish()
}

/// Runs the checks that need no test.
pub(crate) fn lint(arguments: &[String]) -> Result<(), Failure> {
    if !arguments.is_empty() {
        return Err(Failure::usage("lint takes no argument"));
    }
    let mut run = Run::default();
    lints(&mut run);
    run.finish()
}

fn lints(run: &mut Run) {
    run.step(
        "format",
        &mut cargo(["fmt", "--all", "--", "--check"]),
        "run `cargo fmt --all`",
    );
    run.step(
        "clippy",
        &mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        "mend what it names; an exception is `#[expect(.., reason = \"..\")]` at the place",
    );
    run.step(
        "clippy, with spans",
        &mut cargo([
            "clippy",
            "--package",
            "segvm",
            "--all-targets",
            "--features",
            "tracing",
            "--",
            "-D",
            "warnings",
        ]),
        "mend what it names: the feature `tracing` is off in the step before",
    );
    run.step(
        "rustdoc",
        cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
        "mend the doc comment it names",
    );
    run.check(
        "list of unsafe code",
        "say in docs/unsafe.md what the file's unsafe code rests on, and which test would notice",
        || unsafe_list::check(&root()),
    );
    policy(run);
}

fn policy(run: &mut Run) {
    const NAME: &str = "dependency policy";
    if !has_subcommand("deny") {
        return run.skip(
            NAME,
            "cargo-deny is not here (`cargo install --locked cargo-deny`)",
        );
    }
    // fuzz/ is a workspace of its own, which the first look does not see.
    for (name, manifest) in [
        (NAME, "Cargo.toml"),
        ("dependency policy, fuzz", "fuzz/Cargo.toml"),
    ] {
        run.step(
            name,
            cargo(["deny", "--manifest-path"])
                .arg(root().join(manifest))
                .args(["check", "licenses", "bans", "sources"]),
            "replace the crate it names, or argue for it in deny.toml",
        );
    }
}

fn tests(run: &mut Run) {
    let remedy = "run the test it names alone: `cargo test -p CRATE NAME -- --nocapture`";
    if has_subcommand("nextest") {
        run.step(
            "tests",
            &mut cargo([
                "nextest",
                "run",
                "--workspace",
                "--no-tests",
                "pass",
                "--no-fail-fast",
            ]),
            remedy,
        );
    } else {
        println!(
            "note: cargo-nextest gives each test its own process; without it tests share one, so they \
             run one at a time (`cargo install --locked cargo-nextest` for more speed)"
        );
        // Signal handlers, forks and fixed addresses belong to the whole process: never two at once.
        run.step(
            "tests",
            &mut cargo([
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--examples",
                "--no-fail-fast",
                "--",
                "--test-threads=1",
            ]),
            remedy,
        );
    }
    run.step(
        "spans",
        &mut cargo([
            "test",
            "--package",
            "segvm",
            "--features",
            "tracing",
            "--test",
            "spans",
        ]),
        "the tree of spans is a promise of docs/guide/operations.md: mend one or the other",
    );
    run.step(
        "doc tests",
        &mut cargo(["test", "--workspace", "--doc"]),
        "the example in that comment no longer holds: mend one or the other",
    );
}

fn long_tests(run: &mut Run) {
    // Whole sessions once more by the engines that are not the best one here.
    for engine in ["wp-sync", "mprotect"] {
        run.step(
            &format!("sessions by the engine {engine}"),
            cargo([
                "test",
                "--package",
                "segvm",
                "--package",
                "segvm-e2e",
                "--tests",
                "--",
                "--test-threads=1",
            ])
            .env("SEGVM_ENGINE", engine),
            "run the test it names alone, with SEGVM_ENGINE set as above",
        );
    }
    run.step(
        "soaks",
        &mut cargo([
            "test",
            "--workspace",
            "--release",
            "--lib",
            "--bins",
            "--tests",
            "--",
            "--ignored",
            "--test-threads=1",
        ]),
        "the seed is in the output: run that test alone with it",
    );
}

/// Feeds every saved fuzz input to its decoder, in a plain test without the fuzzer.
fn saved_inputs(run: &mut Run) {
    let manifest = root().join("fuzz/Cargo.toml");
    if !manifest.exists() {
        return run.skip("saved fuzz inputs", "fuzz/ is not in this tree");
    }
    run.step(
        "saved fuzz inputs",
        cargo(["test", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(target_dir()),
        "the input's path is in the output; `cargo xtask fuzz 1 TARGET` runs it under the fuzzer",
    );
}
