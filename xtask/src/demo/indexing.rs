//! Lines 1 to 3: an indexing run that is killed in the middle of a file, and the one that goes on.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use super::{
    MORE, ms, row, seconds, short,
    watch::{End, Event, Go, Program},
};
use crate::step::Failure;

/// The kill is shown in a file at least this big: smaller ones are done before a signal arrives.
const WORTH_A_KILL: u64 = 48 << 10;

/// What an indexing run told.
#[derive(Debug, Default)]
pub(super) struct Indexing {
    /// Of the state that it began with.
    resumed: Option<Event>,
    found: u64,
    found_bytes: u64,
    files: u64,
    bytes: u64,
    /// Of each checkpoint that it made by itself.
    pauses: Vec<Duration>,
    checkpoint: Option<Event>,
    /// The file that it is in the middle of.
    current: Option<Event>,
    suspended: Option<Event>,
    pub(super) death: Option<Death>,
}

impl Indexing {
    fn see(&mut self, event: &Event) {
        if event.is("resumed") {
            self.resumed = Some(event.clone());
        } else if event.is("found") {
            self.found = event.number("files");
            self.found_bytes = event.number("bytes");
        } else if event.is("checkpoint") {
            self.pauses.push(event.time("pause_us"));
            self.checkpoint = Some(event.clone());
        } else if event.is("file") {
            self.current = Some(event.clone());
        } else if event.is("indexed") {
            self.files += 1;
            self.bytes += self.current.take().map_or(0, |file| file.number("size"));
        } else if event.is("suspended") {
            self.suspended = Some(event.clone());
        }
    }

    fn had(&self) -> u64 {
        self.resumed
            .as_ref()
            .map_or(0, |event| event.number("files"))
    }

    /// A good deal is done and safe, and the file at hand is a big one; or the end is near.
    fn ripe(&self) -> bool {
        let size = self.current.as_ref().map_or(0, |file| file.number("size"));
        let left = self.found.saturating_sub(self.had() + self.files);
        self.current.is_some()
            && match self.pauses.len() {
                0 => false,
                1 | 2 => left < self.found / 4,
                _ => size >= WORTH_A_KILL && left < self.found / 3 * 2 || left < self.found / 4,
            }
    }

    /// For a line that is written over.
    fn progress(&self) -> String {
        let checkpoint = self.checkpoint.as_ref().map_or_else(String::new, |event| {
            format!(
                "checkpoint {}, paused {}; ",
                event.number("number"),
                ms(event.time("pause_us")),
            )
        });
        let done = self.had() + self.files;
        format!("{checkpoint}{done} of {} files", self.found)
    }

    /// For the line that stays.
    fn summary(&self, took: Duration) -> String {
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        let middle = pauses.get(pauses.len() / 2).copied().unwrap_or_default();
        let worst = pauses.last().copied().unwrap_or_default();
        format!(
            "{} in {} (pauses: median {}, worst {})",
            self.progress(),
            seconds(took),
            ms(middle),
            ms(worst)
        )
    }
}

/// Line 1, and the kill where there is enough left to index.
pub(super) fn indexing(program: &Program, input: &str) -> Result<Indexing, Failure> {
    let begun = Instant::now();
    let (mut run, end) = watched(program, input, "indexing", true)?;
    if let End::Killed(at) = end {
        run.death = Some(Death {
            at,
            had: run.had() + run.files,
            last: run.checkpoint.clone(),
            file: run.current.as_ref().map(|file| file.path().to_owned()),
        });
    }
    if run.found == 0 {
        return Err(Failure::usage(format!(
            "no source files below {input}: name a directory by --input DIR"
        )));
    }
    if run.files == 0 && run.death.is_none() {
        let text = format!(
            "nothing new: all {} files are in the index of an earlier run",
            run.found
        );
        row(1, "indexing", &text);
    } else {
        let text = run.summary(begun.elapsed());
        row(1, "indexing", &text);
    }
    Ok(run)
}

/// The run after the kill, to the end.
pub(super) fn indexing_on(program: &Program, input: &str) -> Result<Indexing, Failure> {
    Ok(watched(program, input, "resuming", false)?.0)
}

fn watched(
    program: &Program,
    input: &str,
    step: &str,
    kill: bool,
) -> Result<(Indexing, End), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let mut shown = Instant::now();
    let mut run = Indexing::default();
    let end = program.watch(step, &["index", input], |event| {
        run.see(event);
        if terminal && shown.elapsed() > Duration::from_millis(50) {
            shown = Instant::now();
            print!("\r\x1b[K   {step:<16} {}", run.progress());
            // The line is a courtesy.
            let _shown_later = std::io::stdout().flush();
        }
        if kill && run.ripe() { Go::Kill } else { Go::On }
    });
    if terminal {
        print!("\r\x1b[K");
    }
    Ok((run, end?))
}

/// What was known when the process was killed.
#[derive(Debug)]
pub(super) struct Death {
    /// Since 1970.
    at: Duration,
    /// Files that were in its memory.
    had: u64,
    /// The newest checkpoint that it had promised.
    last: Option<Event>,
    /// The file that it was in the middle of.
    file: Option<String>,
}

impl Death {
    pub(super) fn told(&self) -> String {
        match &self.file {
            Some(file) => format!("in the middle of {}", short(file)),
            None => "between two files".to_owned(),
        }
    }

    /// Work lost, at most: what a checkpoint holds is at least as new as its beginning.
    pub(super) fn lost(&self, after: &Indexing) -> String {
        let begun = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |last| last.time("begun_us"));
        format!(
            "at most {} of work lost ({} files)",
            seconds(self.at.saturating_sub(begun)),
            self.had.saturating_sub(after.had()),
        )
    }
}

/// Line 3.
pub(super) fn resumed(run: &Indexing, lost: Option<String>) -> String {
    let Some(event) = &run.resumed else {
        return "the program did not say".to_owned();
    };
    let mut text = format!(
        "{} MiB in {} with {}",
        event.number("bytes") >> 20,
        ms(event.time("us")),
        lost.as_deref().unwrap_or("nothing lost"),
    );
    if run.files > 0 {
        let took = run.suspended.as_ref().map(|event| event.time("us"));
        text += &format!(
            "\n{MORE}went on to the end: {} files more in {}",
            run.files,
            seconds(took.unwrap_or_default())
        );
    }
    text
}
