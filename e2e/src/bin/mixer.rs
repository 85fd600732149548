//! A program that is killed while it does everything: `mixer run|steal SEED` migrates, steps, checkpoints, branches, tags and restores
//! for ever, and says what is promised; `mixer check IMAGE[@REF]` says what it found; `mixer gc` collects.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{ExitCode, id},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use segvm::{
    CheckpointError, Error, Migration, OpenError, Root, Segment, Session, SessionOptions,
    persist::Persist,
};
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
        ["run", seed] => run_either(SessionOptions::new(), seed),
        ["steal", seed] => run_either(SessionOptions::new().steal(), seed),
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

/// The count once more, in a type that changes from one version of the program to the other, and back.
trait Version: Persist {
    fn set(this: Self::Mut<'_>, steps: u64);
    fn steps(&self) -> u64;
}

#[derive(Persist)]
#[repr(C)]
struct Even {
    steps: u64,
}

#[derive(Persist)]
#[repr(C)]
struct Odd {
    nothing: u64,
    steps: u64,
}

impl Version for Even {
    fn set(this: Self::Mut<'_>, steps: u64) {
        *this.steps = steps;
    }

    fn steps(&self) -> u64 {
        self.steps
    }
}

impl Version for Odd {
    fn set(this: Self::Mut<'_>, steps: u64) {
        *this.nothing = 0;
        *this.steps = steps;
    }

    fn steps(&self) -> u64 {
        self.steps
    }
}

fn run_either(options: SessionOptions, seed: &str) -> Result<(), Error> {
    let seed = seed.parse().unwrap_or_default();
    if seed % 2 == 0 {
        run::<Odd, Even>(options, seed)
    } else {
        run::<Even, Odd>(options, seed)
    }
}

fn step<V: Version>(session: &Session, memory: &Segment, version: &Root<V>) -> Result<u64, Error> {
    let count = session.root::<u64>("count")?;
    let n = *count.read() + 1;
    let failed = |error| Error::Checkpoint(CheckpointError::Gate(error));
    // The page and the count are one change: a checkpoint has both or neither.
    let _pass = session.enter().map_err(failed)?;
    memory
        .write(page_of(n) * PAGE, &content_of(n))
        .map_err(failed)?;
    *count.write() = n;
    // From what it was: what a migration makes wrong stays wrong.
    let steps = version.read().steps() + 1;
    V::set(version.write().as_mut(), steps);
    Ok(n)
}

fn run<Old: Version, New: Version>(options: SessionOptions, seed: u64) -> Result<(), Error> {
    let mut rng = Rng::of(seed);
    let migrated = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&migrated);
    let to_new = Migration::from::<Old, New>("version", move |old, new| {
        New::set(new, old.steps());
        told.store(true, Ordering::Relaxed);
    });
    let session = options.migration(to_new).open(IMAGE)?;
    let memory = session.segment("memory", PAGES * PAGE)?;
    let version = session.root::<New>("version")?;
    say(if migrated.load(Ordering::Relaxed) {
        "migrated"
    } else {
        "begun"
    })?;
    let mut tags = Vec::new();
    for round in 0.. {
        let mut n = 0;
        for _ in 0..1 + rng.below(7) {
            n = step(&session, &memory, &version)?;
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
    let steps = match session.root::<Even>("version") {
        Ok(even) => even.read().steps(),
        Err(_other_version) => session.root::<Odd>("version")?.read().steps(),
    };
    if steps != count {
        return Err(other(format!(
            "{count} steps, but the version counts {steps}"
        )));
    }
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
