//! The indexed program as the demo sees it: a process that prints events, a word and `name=value` pairs a line.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::step::Failure;

const REMEDY: &str =
    "see the message above; `cargo xtask demo --clean` forgets what earlier runs left";

/// One line of a program that was started with `--events`.
#[derive(Clone, Debug)]
pub(super) struct Event(String);

impl Event {
    pub(super) fn is(&self, word: &str) -> bool {
        self.0.split(' ').next() == Some(word)
    }

    /// The rest of the line after `path=`: the last value, which may have spaces.
    pub(super) fn path(&self) -> &str {
        self.0.split_once(" path=").map_or("", |(_, path)| path)
    }

    /// A number; 0 where there is none of that name.
    pub(super) fn number(&self, name: &str) -> u64 {
        let pairs = self.0.split(' ').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name);
        let value = values.next().and_then(|(_, value)| value.parse().ok());
        value.unwrap_or(0)
    }

    /// A number of microseconds.
    pub(super) fn time(&self, name: &str) -> Duration {
        Duration::from_micros(self.number(name))
    }
}

/// The built program, the store that it uses, and what it is to be called in errors.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) binary: PathBuf,
    pub(super) store: PathBuf,
}

impl Program {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--events")
            .args(arguments)
            .env("SEGVM_HOME", &self.store)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end and gives its events.
    pub(super) fn run(&self, step: &str, arguments: &[&str]) -> Result<Vec<Event>, Failure> {
        let mut events = Vec::new();
        self.watch(step, arguments, |event| {
            events.push(event.clone());
            Go::On
        })?;
        Ok(events)
    }

    /// Runs it and shows each event to `see`, which may have it killed.
    pub(super) fn watch(
        &self,
        step: &str,
        arguments: &[&str],
        mut see: impl FnMut(&Event) -> Go,
    ) -> Result<End, Failure> {
        let mut command = self.command(arguments);
        let failed = |outcome: String| Failure::Step {
            step: step.to_owned(),
            command: format!(
                "SEGVM_HOME={} {} {}",
                self.store.display(),
                self.binary.display(),
                arguments.join(" ")
            ),
            outcome,
            remedy: REMEDY.to_owned(),
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("not started: {error}")))?;
        let mut killed = None;
        if let Some(stdout) = child.stdout.take() {
            // After a kill the pipe still has what was printed before: it is read to its end.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Go::Kill = see(&Event(line))
                    && killed.is_none()
                {
                    killed = Some(kill(&mut child).map_err(|error| failed(error.to_string()))?);
                }
            }
        }
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // What was not UTF-8 is not worth a second failure.
            let _partly_read = stderr.read_to_string(&mut words);
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        match killed {
            Some(at) => Ok(End::Killed(at)),
            None if status.success() => Ok(End::Itself),
            None => Err(failed(format!("{status}: {}", words.trim()))),
        }
    }
}

/// What is to become of a watched program.
#[derive(Debug)]
pub(super) enum Go {
    On,
    Kill,
}

/// How a watched program ended.
#[derive(Debug)]
pub(super) enum End {
    Itself,
    /// By SIGKILL, sent at that time since 1970.
    Killed(Duration),
}

/// `kill -9`.
fn kill(child: &mut Child) -> std::io::Result<Duration> {
    child.kill()?;
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default())
}

/// Bytes of disk that the files below a directory take, as `du` counts.
pub(super) fn on_disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => on_disk(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_gone) => 0,
        })
        .sum()
}
