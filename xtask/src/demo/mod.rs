//! `cargo xtask demo`: the story on real input, in six measured lines.
//!
//! The program is `examples/codesearch`, the input the sources of the crates that cargo fetched. Everything printed was
//! measured in this run.
//!
//! | room | for |
//! |---|---|
//! | `watch` | the program as a process that prints events, and its death |

mod watch;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::step::{self, Failure};
use watch::{End, Event, Go, Program, on_disk};

/// Rare enough to be searched for, common enough to be in many crates.
const TERM: &str = "unsafe";

/// A resume takes a millisecond, so one alone may meet a busy machine.
const SEARCHES: usize = 5;

/// The kill is shown in a file at least this big: smaller ones are done before a signal arrives.
const WORTH_A_KILL: u64 = 48 << 10;

/// Where a row's second line begins.
const MORE: &str = "                    ";

/// Runs the demo.
pub(crate) fn demo(arguments: &[String]) -> Result<(), Failure> {
    let target = step::root().join(step::target_dir());
    let store = target.join("demo");
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let input = match words.as_slice() {
        [] => fetched_sources()?,
        ["--input", directory] => PathBuf::from(directory),
        ["--clean"] => return clean(&store),
        _ => return Err(Failure::usage("demo takes --input DIR or --clean")),
    };
    if !input.is_dir() {
        return Err(Failure::usage(format!(
            "there is no directory {}: name another by --input DIR",
            input.display()
        )));
    }
    println!("Building examples/codesearch in release: a minute or two the first time.");
    step::run(
        "build",
        &mut step::cargo(["build", "--release", "--package", "codesearch"]),
        "read the compiler's words above; a C compiler is needed too (Debian: apt install build-essential)",
    )?;
    let program = Program {
        binary: target.join("release/codesearch"),
        store,
    };
    let input = std::path::absolute(&input).unwrap_or(input);
    let Some(input) = input.to_str() else {
        return Err(Failure::usage(
            "the input's path is not UTF-8: name another by --input DIR",
        ));
    };
    tell(&program, input)
}

/// The six lines.
fn tell(program: &Program, input: &str) -> Result<(), Failure> {
    println!("Input: {input}\nData:  {}\n", program.store.display());
    let first = indexing(program, input)?;
    if let Some(death) = &first.death {
        row(2, "kill -9", &death.told());
        let second = indexing_on(program, input)?;
        row(3, "resumed", &resumed(&second, Some(death.lost(&second))));
    } else {
        row(
            2,
            "kill -9",
            "not shown: too little was left to index; `cargo xtask demo --clean`, then again, shows it",
        );
        row(3, "resumed", &resumed(&first, None));
    }
    row(4, "a new process", &answers(program, input)?);
    let branch = format!("demo-{}", std::process::id());
    row(5, "a second image", &second_image(program, &branch)?);
    row(6, "an older commit", &older(program)?);
    println!(
        "\nThree commands to try:\n  \
         export SEGVM_HOME={} PATH=$PATH:{}\n  \
         codesearch search atomic ordering\n  \
         codesearch log | head\n  \
         codesearch --image {branch} search {TERM}\n\n\
         The data lies in {} ({} MiB); `cargo xtask demo --clean` removes it.",
        program.store.display(),
        program.binary.parent().unwrap_or(Path::new(".")).display(),
        program.store.display(),
        on_disk(&program.store) >> 20,
    );
    Ok(())
}

/// What an indexing run told.
#[derive(Debug, Default)]
struct Indexing {
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
    death: Option<Death>,
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
fn indexing(program: &Program, input: &str) -> Result<Indexing, Failure> {
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
fn indexing_on(program: &Program, input: &str) -> Result<Indexing, Failure> {
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
struct Death {
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
    fn told(&self) -> String {
        match &self.file {
            Some(file) => format!("in the middle of {}", short(file)),
            None => "between two files".to_owned(),
        }
    }

    /// Work lost, at most: what a checkpoint holds is at least as new as its beginning.
    fn lost(&self, after: &Indexing) -> String {
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
fn resumed(run: &Indexing, lost: Option<String>) -> String {
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

/// Line 4.
fn answers(program: &Program, input: &str) -> Result<String, Failure> {
    let mut times = Vec::new();
    let mut files = 0;
    for _ in 0..SEARCHES {
        let found = last(program.run("search", &["search", TERM])?, "found", "search")?;
        files = found.number("files");
        times.push((found.time("resume_us"), found.time("search_us")));
    }
    times.sort_unstable();
    let (resume, search) = times.get(SEARCHES / 2).copied().unwrap_or_default();
    let rivals = program.run("compare", &["compare", input, TERM])?;
    let rebuilt = last(rivals.clone(), "rebuilt", "compare")?;
    let loaded = last(rivals, "loaded", "compare")?;
    let ours = resume + search;
    let agreed = if rebuilt.number("files") == files && loaded.number("files") == files {
        "as in the two below".to_owned()
    } else {
        // Files that went away since they were indexed stay in the index.
        format!("in the index, {} by rebuilding", rebuilt.number("files"))
    };
    Ok(format!(
        "resume {} + search {} = {}: {files} files have `{TERM}`, {agreed}\n{MORE}\
         rebuilding the index: {} ({:.0} x); loading a saved one: {} ({:.0} x)",
        ms(resume),
        ms(search),
        ms(ours),
        ms(rebuilt.time("us")),
        ratio(rebuilt.time("us"), ours),
        ms(loaded.time("us")),
        ratio(loaded.time("us"), ours),
    ))
}

/// Line 5.
fn second_image(program: &Program, branch: &str) -> Result<String, Failure> {
    let before = on_disk(&program.store);
    let event = last(
        program.run("branch", &["branch", branch])?,
        "branched",
        "branch",
    )?;
    let more = on_disk(&program.store).saturating_sub(before);
    Ok(format!(
        "`{branch}` from the newest commit in {}, {} KiB more on disk",
        ms(event.time("us")),
        more >> 10
    ))
}

/// Line 6: as far back as half of the checkpoints, or less far where the answer was the same then.
fn older(program: &Program) -> Result<String, Failure> {
    let now = last(program.run("search", &["search", TERM])?, "found", "search")?;
    let all = now.number("checkpoints").saturating_sub(1);
    if all == 0 {
        return Ok("there is one checkpoint only, so there is no older one".to_owned());
    }
    let mut then = None;
    for back in [all / 2, all * 3 / 4, all] {
        let reference = format!("-{}", back.max(1));
        let arguments = ["search", "--at", &reference, TERM];
        let found = last(
            program.run("search --at", &arguments)?,
            "found",
            "search --at",
        )?;
        let differs = found.number("files") != now.number("files");
        then = Some((reference, found));
        if differs {
            break;
        }
    }
    let Some((reference, found)) = then else {
        return Ok("no older commit was found".to_owned());
    };
    let same = if found.number("files") == now.number("files") {
        " (no older commit that was tried has another answer)"
    } else {
        ""
    };
    Ok(format!(
        "`{TERM}` at {reference} of {all}: {} files, at the newest {}{same}; resume {} + search {}",
        found.number("files"),
        now.number("files"),
        ms(found.time("resume_us")),
        ms(found.time("search_us")),
    ))
}

fn last(events: Vec<Event>, word: &str, step: &str) -> Result<Event, Failure> {
    let found = events.into_iter().rfind(|event| event.is(word));
    found.ok_or_else(|| Failure::Step {
        step: step.to_owned(),
        command: format!("codesearch --events {step}"),
        outcome: format!("it printed no line that begins with `{word}`"),
        remedy: "the demo and examples/codesearch do not fit together: build both from one commit"
            .to_owned(),
    })
}

/// Where cargo unpacks what it fetches.
fn fetched_sources() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    home.map(|home| home.join("registry/src")).ok_or_else(|| {
        Failure::usage("neither CARGO_HOME nor HOME is set: name the input by --input DIR")
    })
}

fn clean(store: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(store) {
        Ok(()) => println!("removed {}", store.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("nothing to remove: there is no {}", store.display());
        }
        Err(error) => {
            return Err(Failure::Step {
                step: "clean".to_owned(),
                command: format!("rm -r {}", store.display()),
                outcome: error.to_string(),
                remedy: "end what uses it, or remove it by hand".to_owned(),
            });
        }
    }
    Ok(())
}

fn row(number: u32, what: &str, told: &str) {
    println!("{number}  {what:<16} {told}");
}

fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn ratio(theirs: Duration, ours: Duration) -> f64 {
    theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9)
}

/// The last three names of a path.
fn short(path: &str) -> String {
    let mut names: Vec<&str> = path.rsplit('/').take(3).collect();
    names.reverse();
    names.join("/")
}
