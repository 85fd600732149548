//! `cargo xtask fuzz`: libFuzzer on a stable toolchain, a short run of every target.

use std::fs;

use crate::step::{Failure, Run, cargo, root, run, target_dir};

/// What `cargo fuzz` would pass on nightly, through flags that stable accepts: coverage counters for
/// libFuzzer, no address sanitizer (the decoders have no `unsafe` to find fault with).
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// Runs each target for so many seconds; finds land in fuzz/artifacts/TARGET/.
pub(crate) fn fuzz(arguments: &[String]) -> Result<(), Failure> {
    let seconds = match arguments.first() {
        None => 20,
        Some(text) => text
            .parse::<u32>()
            .map_err(|_not_a_number| Failure::usage(format!("{text:?} is no number of seconds")))?,
    };
    let known = targets()?;
    let chosen = match arguments.get(1) {
        None => known,
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => {
            return Err(Failure::usage(format!(
                "no fuzz target {name:?} (there are {})",
                known.join(", ")
            )));
        }
    };
    // A target triple keeps build scripts and macros out of the instrumented build.
    let triple = host()?;
    let target_dir = target_dir().join("fuzz");
    let manifest = root().join("fuzz/Cargo.toml");
    run(
        "build the fuzz targets",
        cargo(["build", "--release", "--features", "libfuzzer", "--bins"])
            .arg("--manifest-path")
            .arg(manifest)
            .args(["--target", &triple])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("RUSTFLAGS", COVERAGE),
        "libFuzzer is C++: `apt install g++` where the compiler is missing",
    )?;
    let mut steps = Run::default();
    for name in chosen {
        let corpus = root().join("fuzz/corpus").join(&name);
        let grown = target_dir.join("corpus").join(&name);
        let finds = root().join("fuzz/artifacts").join(&name);
        for dir in [&corpus, &grown, &finds] {
            fs::create_dir_all(dir).map_err(|error| Failure::Step {
                step: format!("fuzz {name}"),
                command: format!("mkdir -p {}", dir.display()),
                outcome: error.to_string(),
                remedy: "make the place writable".to_owned(),
            })?;
        }
        // New inputs go to the first directory: what is worth keeping is committed by hand.
        steps.step(
            &format!("fuzz {name}"),
            std::process::Command::new(target_dir.join(&triple).join("release").join(&name))
                .arg(&grown)
                .arg(&corpus)
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-artifact_prefix={}/", finds.display()))
                .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=0", "-verbosity=0"]),
            "copy the input it names to fuzz/corpus/TARGET/: the plain test replays it from then on",
        );
    }
    steps.finish()
}

/// The targets, sorted: one file each in fuzz/fuzz_targets.
fn targets() -> Result<Vec<String>, Failure> {
    let dir = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", dir.display())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            is_source.then(|| Some(path.file_stem()?.to_string_lossy().into_owned()))?
        })
        .collect();
    names.sort();
    Ok(names)
}

/// The triple of this machine, as rustc says it.
fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let failure = |outcome: String| Failure::Step {
        step: "ask rustc for the host".to_owned(),
        command: "rustc -vV".to_owned(),
        outcome,
        remedy: "put rustc on the PATH".to_owned(),
    };
    let output = std::process::Command::new(rustc)
        .arg("-vV")
        .output()
        .map_err(|error| failure(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| failure("no line `host:` in its answer".to_owned()))
}
