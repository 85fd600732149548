//! How far long work has come.

use std::{io::IsTerminal as _, time::Instant};

use super::Output;

/// A line on stderr that is written over, where stderr is a terminal.
#[derive(Debug)]
pub(crate) struct Meter {
    shown: bool,
    /// When it was written last: a terminal is slower than the work.
    last: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(out: &Output) -> Self {
        Self {
            shown: std::io::stderr().is_terminal() && !out.is_json(),
            last: None,
        }
    }

    /// Shows what `text` says, unless it would be too soon after the last.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> Option<String>) {
        let recent = |last: Instant| last.elapsed().as_millis() < 100;
        if !self.shown || self.last.is_some_and(recent) {
            return;
        }
        self.last = Some(Instant::now());
        if let Some(text) = text() {
            eprint!("\r\x1b[K{text}");
        }
    }

    /// Takes the line away, before something else is said.
    pub(crate) fn clear(&self) {
        if self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
