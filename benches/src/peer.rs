//! Helper processes: a fork's pause or a resume belongs to a process of its own, not to this crowded one.
//!
//! A peer is this same program, started as `segvm-benches peer NAME ARGUMENTS`. It says a line when it is
//! ready, answers every line it gets with a line of numbers, and ends when its input does.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{error::BenchError, measure::Sample};

/// A helper process, ended and waited for when dropped.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Child,
    /// Always present until drop: closing it is how the peer is told to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer called `name` and waits until it is ready.
    ///
    /// - **Errors**: [`BenchError::Kernel`], [`BenchError::Peer`].
    pub fn start(name: &str, arguments: &[String]) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::kernel("current_exe"))?;
        let mut child = Command::new(program)
            .args(["peer", name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::kernel("spawn"))?;
        let no_pipe = || BenchError::Peer {
            name: name.to_owned(),
            answer: String::new(),
        };
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
        let mut peer = Self {
            name: name.to_owned(),
            child,
            requests,
            answers,
        };
        peer.answer()?;
        Ok(peer)
    }

    /// Asks once.
    ///
    /// - **Blocks**: until the answer is there.
    /// - **Errors**: [`BenchError::Peer`] when the peer ended or talks nonsense.
    pub fn ask(&mut self) -> Result<Sample, BenchError> {
        if let Some(requests) = &mut self.requests {
            requests
                .write_all(b"go\n")
                .map_err(BenchError::kernel("write to a peer"))?;
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<Sample, BenchError> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(BenchError::kernel("read from a peer"))?;
        let numbers: Option<Sample> = line
            .strip_suffix('\n')
            .map(str::split_whitespace)
            .and_then(|words| words.map(|word| word.parse().ok()).collect());
        numbers.ok_or(BenchError::Peer {
            name: self.name.clone(),
            answer: line,
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.requests.take());
        // It ends by itself at the end of its input; nothing is left to do about one that does not exist.
        let _ = self.child.wait();
    }
}

/// Starts a peer, asks it once and lets it end: for what only a fresh process can do.
///
/// - **Errors**: as [`Peer::start`] and [`Peer::ask`].
pub fn once(name: &str, arguments: &[String]) -> Result<Sample, BenchError> {
    Peer::start(name, arguments)?.ask()
}

/// The peer's own loop: says that it is ready, then answers each request with what `sample` gives.
///
/// - **Errors**: the first of `sample`'s, or of the pipes'.
pub fn serve(mut sample: impl FnMut() -> Result<Sample, BenchError>) -> Result<(), BenchError> {
    say(&[])?;
    for line in io::stdin().lock().lines() {
        line.map_err(BenchError::kernel("read a request"))?;
        say(&sample()?)?;
    }
    Ok(())
}

fn say(numbers: &[f64]) -> Result<(), BenchError> {
    let words: Vec<String> = numbers.iter().map(f64::to_string).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", words.join(" "))
        .and_then(|()| out.flush())
        .map_err(BenchError::kernel("answer"))
}
