//! A program that is killed while it does everything: `mixer run|steal SEED` steps, checkpoints, branches, tags and restores for
//! ever, and says what is promised; `mixer check IMAGE[@REF]` says what it found; `mixer gc` collects.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{ExitCode, id},
    sync::Arc,
};

use segvm::{CheckpointError, Error, OpenError, Segment, Session, SessionOptions};
use segvm_blockcache::{
    Alone, StoreError,
    disk::{Disk, RealDisk},
    gc::{Mode, Options, collect},
};
use segvm_e2e::{PAGE, PAGES, Rng, content_of, last_writer, page_of};
use segvm_home::{DirHome, Roots};

const IMAGE: &str = "mixed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["run", seed] => run(SessionOptions::new(), seed),
        ["steal", seed] => run(SessionOptions::new().steal(), seed),
        ["check", image] => check(image),
        ["gc"] => gc(),
        _ => {
            eprintln!("mixer run SEED | steal SEED | check IMAGE[@REF] | gc");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mixer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Said at once, as the next instant may be the last.
fn say(text: &str) -> Result<(), Error> {
    println!("{text}");
    Ok(std::io::stdout().flush()?)
}

fn other(text: String) -> Error {
    Error::Io(std::io::Error::other(text))
}

fn step(session: &Session, memory: &Segment) -> Result<u64, Error> {
    let count = session.root::<u64>("count")?;
    let n = *count.read() + 1;
    let failed = |error| Error::Checkpoint(CheckpointError::Gate(error));
    // The page and the count are one change: a checkpoint has both or neither.
    let _pass = session.enter().map_err(failed)?;
    memory
        .write(page_of(n) * PAGE, &content_of(n))
        .map_err(failed)?;
    *count.write() = n;
    Ok(n)
}

fn run(options: SessionOptions, seed: &str) -> Result<(), Error> {
    let mut rng = Rng::of(seed.parse().unwrap_or_default());
    let session = options.open(IMAGE)?;
    let memory = session.segment("memory", PAGES * PAGE)?;
    say("begun")?;
    let mut tags = Vec::new();
    for round in 0.. {
        let mut n = 0;
        for _ in 0..1 + rng.below(7) {
            n = step(&session, &memory)?;
        }
        let saved = match session.checkpoint() {
            Ok(saved) => saved,
            Err(CheckpointError::Orphaned { .. }) => {
                let name = format!("rescued-{}", id());
                session.branch_here(&name)?;
                say(&format!("made {name} {n}"))?;
                return session.suspend().map(drop).map_err(Error::from);
            }
            Err(error) => return Err(error.into()),
        };
        say(&format!("durable {} {n}", saved.sequence))?;
        let name = format!("{}-{round}", id());
        match rng.below(6) {
            0 => match session.branch(&format!("branch-{name}")) {
                Ok(_) => say(&format!("made branch-{name} {n}"))?,
                // Who was stolen from may live, with a pack that nobody else may complete.
                Err(OpenError::Unsealed { .. }) => {}
                Err(error) => return Err(error.into()),
            },
            1 => {
                session.tag(&format!("tag-{name}"))?;
                tags.push(format!("tag-{name}"));
                say(&format!("made {IMAGE}@tag-{name} {n}"))?;
            }
            2 if !tags.is_empty() => {
                let at = usize::try_from(rng.below(tags.len() as u64)).unwrap_or_default();
                if let Some(tag) = tags.get(at) {
                    session.restore(tag)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens as a reader: nothing is changed by the look.
fn check(image: &str) -> Result<(), Error> {
    let session = SessionOptions::new().reader().open(image)?;
    let memory = session.segment("memory", PAGES * PAGE)?;
    let count = *session.root::<u64>("count")?.read();
    let mut page = vec![0; PAGE];
    for at in 0..PAGES {
        memory
            .read(at * PAGE, &mut page)
            .map_err(|error| Error::Checkpoint(CheckpointError::Gate(error)))?;
        let wanted = last_writer(at, count).map_or_else(|| vec![0; PAGE], content_of);
        if page != wanted {
            return Err(other(format!("page {at} is not what {count} steps leave")));
        }
    }
    println!("found {} {count}", session.log()?.len());
    Ok(())
}

/// Frees what nobody needs, as `segvm gc` does.
fn gc() -> Result<(), Error> {
    let root = std::env::var_os("SEGVM_HOME").map(PathBuf::from);
    let root = root.ok_or_else(|| other("SEGVM_HOME is not set".to_owned()))?;
    let freed = collect_at(&root)?;
    println!("freed {freed}");
    Ok(())
}

fn collect_at(root: &Path) -> Result<u64, Error> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let alone = match Alone::open(Arc::clone(&disk), root) {
        Err(StoreError::InUse { .. }) => return Ok(0),
        opened => opened.map_err(OpenError::from)?,
    };
    let home = DirHome::open(disk, root.to_owned());
    let roots = Roots::of(&home).map_err(|error| other(error.to_string()))?;
    let options = Options {
        mode: Mode::Collect,
        ..Options::default()
    };
    let report = collect(&alone, &roots.trees, &roots.marks, options, &mut |_| ());
    Ok(report.map_err(|error| other(error.to_string()))?.freed())
}
