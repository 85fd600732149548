//! One command of a longer run: said before, timed after, and named with its remedy when it fails.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line made no sense.
    Usage(String),
    /// A step's command could not be started, or said no.
    Step {
        step: String,
        command: String,
        outcome: String,
        remedy: String,
    },
    /// One of our own checks found something.
    Check {
        step: String,
        wrong: String,
        remedy: String,
    },
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// 2 for a wrong command line, 1 for a step that failed.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Step { .. } | Self::Check { .. } => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "{text}; `cargo xtask help` lists the commands"),
            Self::Step {
                step,
                command,
                outcome,
                remedy,
            } => write!(
                f,
                "step `{step}` failed ({outcome})\n  command: {command}\n  remedy:  {remedy}"
            ),
            Self::Check {
                step,
                wrong,
                remedy,
            } => write!(f, "step `{step}` failed:\n{wrong}\n  remedy:  {remedy}"),
        }
    }
}

/// What became of one step.
#[derive(Debug)]
enum Outcome {
    Passed(Duration),
    Failed(Failure),
    Skipped(String),
}

/// Runs steps one after the other, goes on after a failure, and sums up at the end.
///
/// Going on is deliberate: one run then tells everything that is wrong with a change.
#[derive(Debug, Default)]
pub(crate) struct Run {
    outcomes: Vec<(String, Outcome)>,
}

impl Run {
    /// Runs a command as the step called `name`; `remedy` is what to do where it fails.
    pub(crate) fn step(&mut self, name: &str, command: &mut Command, remedy: &str) {
        println!("==> {name}: {}", shown(command));
        let begun = Instant::now();
        let outcome = match run(name, command, remedy) {
            Ok(()) => Outcome::Passed(begun.elapsed()),
            Err(failure) => {
                println!("==> {name}: FAILED");
                Outcome::Failed(failure)
            }
        };
        self.outcomes.push((name.to_owned(), outcome));
    }

    /// Runs a check of our own; its error is what is wrong, a line each.
    pub(crate) fn check(
        &mut self,
        name: &str,
        remedy: &str,
        check: impl FnOnce() -> Result<(), String>,
    ) {
        println!("==> {name}");
        let begun = Instant::now();
        let outcome = match check() {
            Ok(()) => Outcome::Passed(begun.elapsed()),
            Err(wrong) => {
                println!("{wrong}\n==> {name}: FAILED");
                Outcome::Failed(Failure::Check {
                    step: name.to_owned(),
                    wrong,
                    remedy: remedy.to_owned(),
                })
            }
        };
        self.outcomes.push((name.to_owned(), outcome));
    }

    /// Notes a step that this machine cannot run, and what would make it run.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("==> {name}: skipped: {reason}");
        self.outcomes
            .push((name.to_owned(), Outcome::Skipped(reason.to_owned())));
    }

    /// Prints a line per step and gives the first failure.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        println!();
        let mut first = None;
        for (name, outcome) in self.outcomes {
            match outcome {
                Outcome::Passed(took) => {
                    println!("ok       {name:<24} {:>7.1} s", took.as_secs_f64())
                }
                Outcome::Skipped(reason) => println!("skipped  {name:<24} {reason}"),
                Outcome::Failed(failure) => {
                    println!("FAILED   {name}");
                    first.get_or_insert(failure);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Runs one command with this process's own output.
pub(crate) fn run(step: &str, command: &mut Command, remedy: &str) -> Result<(), Failure> {
    let outcome = match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => format!("not started: {error}"),
    };
    Err(Failure::Step {
        step: step.to_owned(),
        command: shown(command),
        outcome,
        remedy: remedy.to_owned(),
    })
}

/// `cargo` as the caller's toolchain has it, at the workspace's root.
pub(crate) fn cargo<I>(arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root()).args(arguments);
    command
}

/// Tells whether `cargo NAME` exists here.
pub(crate) fn has_subcommand(name: &str) -> bool {
    cargo([name, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // xtask is run through cargo from its own workspace: its manifest's parent is the root.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where builds go: cargo's own rule, so that other tools' output lies beside it.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn shown(command: &Command) -> String {
    let mut text = String::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            text += &format!("{}={:?} ", key.display(), value);
        }
    }
    text += &Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    for argument in command.get_args() {
        text.push(' ');
        text += &argument.to_string_lossy();
    }
    text
}
