//! What people and programs read: tables or JSON on stdout, notes and failures on stderr.

mod meter;
mod table;
mod text;

use std::{
    error::Error as _,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
};

use serde_json::{Value, json};

pub(crate) use self::{
    meter::Meter,
    table::{Align, Table},
    text::{age, bytes, count, counted, is_obeyed, printable},
};
use crate::{args::ColorWhen, failure::Failure};

/// How something is lit on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    color: bool,
    /// Whether stderr takes colours and progress.
    stderr: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool, color: ColorWhen) -> Self {
        let wanted = |terminal: bool| match color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            // https://no-color.org
            ColorWhen::Auto => {
                terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        Self {
            json,
            color: wanted(io::stdout().is_terminal()),
            stderr: wanted(io::stderr().is_terminal()),
            stdout: BufWriter::new(io::stdout()),
        }
    }

    /// Tells whether JSON was asked for.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one JSON value, and a line's end.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{value:#}")?)
    }

    /// Writes a line for people.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{}", text.as_ref())?)
    }

    /// Where bytes go that are the result.
    pub(crate) const fn bytes(&mut self) -> &mut impl io::Write {
        &mut self.stdout
    }

    /// Writes a table, its heads lit.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        for (at, line) in table.lines().into_iter().enumerate() {
            let line = if at == 0 {
                self.paint(Paint::Bold, &line)
            } else {
                line
            };
            self.line(line)?;
        }
        Ok(())
    }

    /// `text`, lit where stdout takes colours.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color, paint, text)
    }

    /// Says something that is not the result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{}", painted(self.stderr, Paint::Dim, text));
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }

    /// Says why it did not work, with every cause and the remedy.
    pub(crate) fn failure(&self, failure: &Failure) {
        let (message, remedy) = (failure.to_string(), failure.remedy());
        let mut causes: Vec<String> = Vec::new();
        let mut cause = failure.source();
        while let Some(error) = cause {
            let text = error.to_string();
            let said = |earlier: &String| earlier.contains(&text);
            if !message.contains(&text) && !causes.iter().any(said) {
                causes.push(text);
            }
            cause = error.source();
        }
        if self.json {
            let code = failure.code();
            let error = json!({
                "error": message,
                "causes": causes,
                "remedy": remedy,
                "class": code.name(),
                "exit": code.number(),
            });
            eprintln!("{error}");
            return;
        }
        eprintln!("{} {message}", painted(self.stderr, Paint::Bad, "error:"));
        for cause in causes {
            eprintln!("  because {cause}");
        }
        if let Some(remedy) = remedy {
            eprintln!("{} {remedy}", painted(self.stderr, Paint::Bold, "try:"));
        }
    }
}

fn painted(color: bool, paint: Paint, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Bold => "1",
        Paint::Dim => "2",
        Paint::Good => "32",
        Paint::Warn => "33",
        Paint::Bad => "1;31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
