//! An index of source trees whose whole state is one typed root: kill it at any time, run it again, it goes on.
//!
//! | room | for |
//! |---|---|
//! | `index` | the state, and how a file gets into it |
//! | `walk` | which files there are |
//! | `report` | what is told while it works |
//! | `rivals` | the same answer without segvm: rebuilt, and from a saved file |

mod index;
mod report;
mod rivals;
mod walk;

use std::{io, path::Path, process::ExitCode, time::Instant};

use index::Index;
use report::{Voice, say};
use segvm::{Automatic, Error, Session};

const USAGE: &str = "\
Indexes source trees in an image that survives kill -9, and searches it.

  codesearch index DIR       index what is new or changed below DIR (goes on where it was killed)
  codesearch search TERM...  files that have all the words, newest state
  codesearch search --at REF TERM...
                             the same at an older checkpoint (-1: the one before, or a commit's first digits)
  codesearch log             the checkpoints
  codesearch branch NAME     a second image that starts at the newest checkpoint
  codesearch stats           what is in the index
  codesearch compare DIR TERM
                             the same search by rebuilding the index, and by loading a saved one

  --image NAME               another image than `codesearch`
  --events                   a word and name=value pairs a line instead of sentences, for scripts

Images are in $SEGVM_HOME, else ~/.local/share/segvm.
";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let image = match arguments.iter().position(|argument| argument == "--image") {
        Some(at) if at + 1 < arguments.len() => {
            arguments.remove(at);
            arguments.remove(at)
        }
        _ => "codesearch".to_owned(),
    };
    let voice = match arguments.iter().position(|argument| argument == "--events") {
        Some(at) => {
            arguments.remove(at);
            Voice::Events
        }
        None => Voice::People,
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["index", directory] => index_tree(voice, &image, directory.as_ref()),
        ["search", "--at", reference, terms @ ..] if !terms.is_empty() => {
            search(voice, &image, Some(reference), terms)
        }
        ["search", terms @ ..] if !terms.is_empty() => search(voice, &image, None, terms),
        ["log"] => log(&image),
        ["branch", name] => branch(voice, &image, name),
        ["stats"] => stats(&image),
        ["compare", directory, term] => {
            rivals::compare(voice, directory.as_ref(), term).map_err(Error::from)
        }
        ["help" | "--help" | "-h"] => {
            say(format_args!("{}", USAGE.trim_end())).map_err(Error::from)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough: `codesearch log | head`.
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codesearch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn index_tree(voice: Voice, image: &str, directory: &Path) -> Result<(), Error> {
    let begun = Instant::now();
    let session = Session::open(image)?;
    let index = session.root::<Index>("index")?;
    let before = index.read().files.len();
    report::resumed(voice, &session, begun.elapsed(), before)?;
    let progress = report::Progress::new(voice);
    let told = progress.clone();
    session.automatic(
        Automatic::every(report::INTERVAL)
            .or_after_bytes(64 << 20)
            .on_done(move |done| told.checkpoint(done)),
    )?;
    let files = walk::source_files(directory)?;
    progress.begin(files.len(), files.iter().map(|file| file.size).sum());
    let mut seen = 0_u64;
    let mut added = 0_u64;
    let mut bytes = 0_u64;
    for file in files {
        seen += 1;
        if index.read().has(&file) {
            continue;
        }
        progress.file(&file.path, file.size, added, bytes);
        let Ok(content) = std::fs::read(&file.path) else {
            continue;
        };
        // One guard a file: a checkpoint has all of it or nothing.
        index.write().as_mut().add(&file, &content);
        progress.file_done();
        added += 1;
        bytes += content.len() as u64;
    }
    progress.end();
    drop(index);
    let saved = session.suspend()?;
    let took = begun.elapsed();
    let done = report::Done {
        seen,
        added,
        bytes,
        took,
    };
    Ok(report::indexed(voice, done, &saved)?)
}

fn search(voice: Voice, image: &str, at: Option<&str>, terms: &[&str]) -> Result<(), Error> {
    let begun = Instant::now();
    let session = Session::open(image)?;
    if let Some(reference) = at {
        session.restore(reference)?;
    }
    let index = session.root::<Index>("index")?;
    let resumed = begun.elapsed();
    let searching = Instant::now();
    let guard = index.read();
    let found = guard.search(terms);
    let times = [resumed, searching.elapsed()];
    Ok(report::found(
        voice,
        &guard,
        &found,
        terms,
        times,
        session.log()?.len(),
    )?)
}

fn log(image: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    for record in session.log()? {
        say(format_args!(
            "{:>6}  {:.12}  generation {}",
            record.seq, record.commit_id, record.commit.generation
        ))?;
    }
    Ok(())
}

fn branch(voice: Voice, image: &str, name: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    let begun = Instant::now();
    let commit = session.branch(name)?;
    let took = begun.elapsed();
    Ok(match voice {
        Voice::Events => say(format_args!(
            "branched commit={commit:.12} us={}",
            took.as_micros()
        )),
        Voice::People => say(format_args!(
            "image `{name}` begins at commit {commit:.12}, made in {:.1} ms",
            report::ms(took)
        )),
    }?)
}

fn stats(image: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    let index = session.root::<Index>("index")?;
    let guard = index.read();
    Ok(say(format_args!(
        "{} files, {} different words, {} postings",
        guard.live(),
        guard.postings.len(),
        guard.entries
    ))?)
}
