//! `cargo xtask demo`: the story on real input, in six measured lines.
//!
//! The program is `examples/codesearch`, the input the sources of the crates that cargo fetched. Everything printed was
//! measured in this run.
//!
//! | room | for |
//! |---|---|
//! | `indexing` | lines 1 to 3: a run that is killed, and the one that goes on |
//! | `watch` | the program as a process that prints events, and its death |

mod indexing;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::step::{self, Failure};
use indexing::{indexing, indexing_on, resumed};
use watch::{Event, Program, on_disk};

/// Rare enough to be searched for, common enough to be in many crates.
const TERM: &str = "unsafe";

/// A resume takes a millisecond, so one alone may meet a busy machine.
const SEARCHES: usize = 5;

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
