//! What is told while it works, and at the end.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use segvm::{CheckpointError, Saved, Session};

use crate::index::Index;

/// How much work a kill can cost.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// Milliseconds, for people.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Tells what the last run left.
pub(crate) fn resumed(session: &Session, took: Duration, files: usize) {
    match session.head() {
        Some(commit) => {
            println!(
                "resumed {files} files at commit {commit:.12} in {:.1} ms",
                ms(took)
            );
        }
        None => println!("a new index"),
    }
}

/// Progress on the terminal: a line that is written over, or a line for each checkpoint in a log.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    begun: Instant,
    terminal: bool,
    checkpoints: Arc<AtomicU64>,
    /// Of the last checkpoint, in microseconds.
    paused: Arc<AtomicU64>,
    shown: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            checkpoints: Arc::default(),
            paused: Arc::default(),
            shown: Arc::default(),
        }
    }

    /// Called on the session's thread after each automatic checkpoint.
    pub(crate) fn checkpoint(&self, done: &Result<Saved, CheckpointError>) {
        match done {
            Ok(saved) if saved.changed => {
                let pause = u64::try_from(saved.pause.as_micros()).unwrap_or(u64::MAX);
                self.paused.store(pause, Ordering::Relaxed);
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
                if !self.terminal {
                    println!(
                        "checkpoint {}, paused {:.1} ms",
                        saved.sequence,
                        ms(saved.pause)
                    );
                }
            }
            Ok(_unchanged) => {}
            Err(error) => eprintln!("\na checkpoint failed: {error}"),
        }
    }

    /// Called for each file.
    pub(crate) fn file(&self, path: &str, seen: u64, bytes: u64) {
        let tenths = u64::try_from(self.begun.elapsed().as_millis() / 100).unwrap_or(u64::MAX);
        if !self.terminal || self.shown.swap(tenths, Ordering::Relaxed) == tenths {
            return;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        print!(
            "\r\x1b[K{seen} files, {} MiB, checkpoint {}, paused {:.1} ms  {name:.40}",
            bytes >> 20,
            self.checkpoints.load(Ordering::Relaxed),
            self.paused.load(Ordering::Relaxed) as f64 / 1e3,
        );
        let _shown_later = std::io::stdout().flush();
    }
}

/// Tells what an indexing run did.
pub(crate) fn indexed(seen: u64, added: u64, bytes: u64, took: Duration, saved: &Saved) {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
    println!(
        "{seen} files seen, {added} new or changed ({:.1} MiB) indexed in {:.1} s; suspended in {:.1} ms",
        bytes as f64 / f64::from(1 << 20),
        took.as_secs_f64(),
        ms(saved.took),
    );
}

/// Prints the files found, twenty at most.
pub(crate) fn found(index: &Index, found: &[u32], terms: &[&str], resumed: Duration, searched: Duration) {
    for &number in found.iter().take(20) {
        if let Some(file) = index.files.get(number as usize) {
            println!("{}", file.path.as_str());
        }
    }
    if found.len() > 20 {
        println!("... and {} more", found.len() - 20);
    }
    println!(
        "{} files have {}; resumed in {:.2} ms, searched in {:.3} ms",
        found.len(),
        terms.join(" and "),
        ms(resumed),
        ms(searched),
    );
}
