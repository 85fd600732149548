//! What is told while it works, and at the end: sentences for people, or events for a program that watches.
//!
//! Every word goes out through [`say`], so that a reader that has seen enough (`| head`) ends the program quietly.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use segvm::{CheckpointError, Error, Saved, Session};

use crate::index::{File, Index};

/// How much work a kill can cost.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Sentences; progress on a terminal is a line that is written over, elsewhere a line for each checkpoint.
    People,
    /// A word and `name=value` pairs a line (`--events`): what a test or a script reads.
    Events,
}

/// Prints a line.
pub(crate) fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(line)?;
    out.write_all(b"\n")
}

/// Milliseconds, for people.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// MiB, for people.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Tells what the last run left.
pub(crate) fn resumed(
    voice: Voice,
    session: &Session,
    took: Duration,
    files: usize,
) -> Result<(), Error> {
    let log = session.log()?;
    let bytes = log.last().map_or(0, |record| {
        let segments = record.commit.segments.iter();
        segments.map(|segment| segment.len).sum::<u64>()
    });
    match (voice, session.head()) {
        (Voice::Events, _) => say(format_args!(
            "resumed files={files} bytes={bytes} checkpoints={} us={}",
            log.len(),
            took.as_micros()
        ))?,
        (Voice::People, Some(commit)) => say(format_args!(
            "resumed {files} files ({:.0} MiB) at commit {commit:.12} in {:.1} ms",
            mib(bytes),
            ms(took)
        ))?,
        (Voice::People, None) => say(format_args!("a new index"))?,
    }
    Ok(())
}

/// Progress while files are indexed. Nobody's listening is no reason to stop, so errors of printing are dropped here.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    voice: Voice,
    begun: Instant,
    terminal: bool,
    checkpoints: Arc<AtomicU64>,
    /// Of the last checkpoint, in microseconds.
    paused: Arc<AtomicU64>,
    shown: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn new(voice: Voice) -> Self {
        Self {
            voice,
            begun: Instant::now(),
            terminal: voice == Voice::People && io::stdout().is_terminal(),
            checkpoints: Arc::default(),
            paused: Arc::default(),
            shown: Arc::default(),
        }
    }

    /// Called with what there is to do.
    pub(crate) fn begin(&self, files: usize, bytes: u64) {
        if self.voice == Voice::Events {
            let _nobody_listens = say(format_args!("found files={files} bytes={bytes}"));
        }
    }

    /// Called on the session's thread after each automatic checkpoint.
    pub(crate) fn checkpoint(&self, done: &Result<Saved, CheckpointError>) {
        let saved = match done {
            Ok(saved) if saved.changed => saved,
            Ok(_unchanged) => return,
            Err(error) => {
                eprintln!("\na checkpoint failed: {error}");
                return;
            }
        };
        let pause = u64::try_from(saved.pause.as_micros()).unwrap_or(u64::MAX);
        self.paused.store(pause, Ordering::Relaxed);
        self.checkpoints.store(saved.sequence, Ordering::Relaxed);
        let _nobody_listens = match self.voice {
            // What the checkpoint holds is at least as new as its beginning.
            Voice::Events => say(format_args!(
                "checkpoint number={} pause_us={pause} took_us={} begun_us={}",
                saved.sequence,
                saved.took.as_micros(),
                since_1970(SystemTime::now() - saved.took).as_micros(),
            )),
            Voice::People if self.terminal => Ok(()),
            Voice::People => say(format_args!(
                "checkpoint {}, paused {:.1} ms",
                saved.sequence,
                ms(saved.pause)
            )),
        };
    }

    /// Called before a file is indexed, with the number and bytes of those before it.
    pub(crate) fn file(&self, path: &str, size: u64, before: u64, bytes: u64) {
        if self.voice == Voice::Events {
            let _nobody_listens = say(format_args!("file size={size} path={path}"));
            return;
        }
        let tenths = u64::try_from(self.begun.elapsed().as_millis() / 100).unwrap_or(u64::MAX);
        if !self.terminal || self.shown.swap(tenths, Ordering::Relaxed) == tenths {
            return;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        print_over(format_args!(
            "{before} files, {:.1} MiB, checkpoint {}, paused {:.1} ms  {name:.40}",
            mib(bytes),
            self.checkpoints.load(Ordering::Relaxed),
            self.paused.load(Ordering::Relaxed) as f64 / 1e3,
        ));
    }

    /// Called when the file's words are all in memory.
    pub(crate) fn file_done(&self) {
        if self.voice == Voice::Events {
            let _nobody_listens = say(format_args!("indexed"));
        }
    }

    /// Clears the line that is written over.
    pub(crate) fn end(&self) {
        if self.terminal {
            print_over(format_args!(""));
        }
    }
}

/// Writes over the terminal's line.
fn print_over(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _nobody_listens = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What an indexing run did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) seen: u64,
    pub(crate) added: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

/// Tells what an indexing run did.
pub(crate) fn indexed(voice: Voice, done: Done, saved: &Saved) -> io::Result<()> {
    let Done {
        seen,
        added,
        bytes,
        took,
    } = done;
    match voice {
        Voice::Events => say(format_args!(
            "suspended seen={seen} added={added} bytes={bytes} us={} suspend_us={} checkpoints={}",
            took.as_micros(),
            saved.took.as_micros(),
            saved.sequence,
        )),
        Voice::People => say(format_args!(
            "{seen} files seen, {added} new or changed ({:.1} MiB) indexed in {:.1} s; suspended in {:.1} ms",
            mib(bytes),
            took.as_secs_f64(),
            ms(saved.took),
        )),
    }
}

/// Prints the files found: all for a program, twenty at most for people.
pub(crate) fn found(
    voice: Voice,
    index: &Index,
    found: &[u32],
    terms: &[&str],
    [resumed, searched]: [Duration; 2],
    checkpoints: usize,
) -> io::Result<()> {
    let paths = || {
        let files = found
            .iter()
            .filter_map(|&number| index.files.get(number as usize));
        files.map(|file: &File| file.path.as_str())
    };
    match voice {
        Voice::Events => {
            for path in paths() {
                say(format_args!("hit path={path}"))?;
            }
            say(format_args!(
                "found files={} checkpoints={checkpoints} resume_us={} search_us={}",
                found.len(),
                resumed.as_micros(),
                searched.as_micros(),
            ))
        }
        Voice::People => {
            for path in paths().take(20) {
                say(format_args!("{path}"))?;
            }
            if found.len() > 20 {
                say(format_args!("... and {} more", found.len() - 20))?;
            }
            say(format_args!(
                "{} {} {}; resumed in {:.2} ms, searched in {:.3} ms",
                found.len(),
                if found.len() == 1 {
                    "file has"
                } else {
                    "files have"
                },
                terms.join(" and "),
                ms(resumed),
                ms(searched),
            ))
        }
    }
}
