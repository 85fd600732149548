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

use std::{path::PathBuf, process::ExitCode, time::Instant};

use index::Index;
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

The image is called `codesearch` (--image NAME for another) in $SEGVM_HOME, else ~/.local/share/segvm.
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
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["index", directory] => index_tree(&image, directory.into()),
        ["search", "--at", reference, terms @ ..] if !terms.is_empty() => {
            search(&image, Some(reference), terms)
        }
        ["search", terms @ ..] if !terms.is_empty() => search(&image, None, terms),
        ["log"] => log(&image),
        ["branch", name] => branch(&image, name),
        ["stats"] => stats(&image),
        ["compare", directory, term] => {
            rivals::compare(directory.as_ref(), term).map_err(Error::from)
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codesearch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn index_tree(image: &str, directory: PathBuf) -> Result<(), Error> {
    let begun = Instant::now();
    let session = Session::open(image)?;
    let index = session.root::<Index>("index")?;
    let before = index.read().files.len();
    report::resumed(&session, begun.elapsed(), before);
    let progress = report::Progress::new();
    let told = progress.clone();
    session.automatic(
        Automatic::every(report::INTERVAL)
            .or_after_bytes(64 << 20)
            .on_done(move |done| told.checkpoint(done)),
    )?;
    let mut seen = 0_u64;
    let mut added = 0_u64;
    let mut bytes = 0_u64;
    for file in walk::source_files(&directory)? {
        seen += 1;
        if index.read().has(&file) {
            continue;
        }
        let Ok(content) = std::fs::read(&file.path) else {
            continue;
        };
        // One guard a file: a checkpoint has all of it or nothing.
        index.write().as_mut().add(&file, &content);
        added += 1;
        bytes += content.len() as u64;
        progress.file(&file.path, seen, bytes);
    }
    drop(index);
    let saved = session.suspend()?;
    report::indexed(seen, added, bytes, begun.elapsed(), &saved);
    Ok(())
}

fn search(image: &str, at: Option<&str>, terms: &[&str]) -> Result<(), Error> {
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
    report::found(&guard, &found, terms, resumed, searching.elapsed());
    Ok(())
}

fn log(image: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    for record in session.log()? {
        println!(
            "{:>6}  {:.12}  generation {}",
            record.seq, record.commit_id, record.commit.generation
        );
    }
    Ok(())
}

fn branch(image: &str, name: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    let begun = Instant::now();
    let commit = session.branch(name)?;
    println!(
        "image `{name}` begins at commit {commit:.12}, made in {:.1} ms",
        report::ms(begun.elapsed())
    );
    Ok(())
}

fn stats(image: &str) -> Result<(), Error> {
    let session = Session::open(image)?;
    let index = session.root::<Index>("index")?;
    let guard = index.read();
    println!(
        "{} files, {} different words, {} postings",
        guard.live(),
        guard.postings.len(),
        guard.entries
    );
    Ok(())
}
