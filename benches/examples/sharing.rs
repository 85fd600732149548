//! Measures what a shared duplicate costs at each resume, by its length: the table in docs/design/sharing.md.
//!
//! `cargo run --release -p segvm-benches --example sharing [MiB] [ROUNDS]`
//!
//! The worst there is: a segment of which every other run is a duplicate. *Shared*, each duplicate is mapped from the pack
//! that had it first, and the runs between from this one. *Stored again*, the segment is one mapping. Both sides open
//! (mmap) and touch every page, in turns, with the files in the page cache and without.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Advice, fadvise};
use segvm_benches::{
    error::BenchError,
    file::{create_warm, write_direct},
    machine::Machine,
    memory::{PAGE, Pages, Plain},
    stat::{Samples, Statistic},
};

const MIB: usize = 1 << 20;

/// Lengths of a run, in KiB.
const RUNS: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];

fn main() -> Result<(), BenchError> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |or| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(or);
    let (len, rounds) = (number(256) / 2 * 2 * MIB, number(7));
    let here = std::env::current_dir().map_err(BenchError::file("find", "."))?;
    let scratch = tempfile::Builder::new()
        .prefix("sharing")
        .tempdir_in(&here)
        .map_err(BenchError::file("make a directory in", here))?;
    let packs = Packs::new(scratch.path(), len)?;
    for (name, value) in Machine::here(scratch.path()).facts {
        println!("{name}: {value}");
    }
    let rate = direct_rate(scratch.path(), rounds)?;
    println!("direct writes, synced: {:.2} GB/s\n", rate / 1e9);
    println!(
        "| run | maps | open: shared / again, us | touch all, cached: shared / again, ms | cold, ms \
         | a shared run at each resume: cached / cold, us | storing it again, once, us | paid back after resumes |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for run in RUNS.map(|kib| kib << 10) {
        row(&packs, run, rounds, rate)?;
    }
    Ok(())
}

/// One line of the table.
fn row(packs: &Packs, run: usize, rounds: usize, rate: f64) -> Result<(), BenchError> {
    let mut cached = Sides::default();
    let mut cold = Sides::default();
    // Pages of the cache are large or small depending on who brought them in: both files by one reader, once for all rounds.
    packs.forget()?;
    packs.read()?;
    for _ in 0..rounds {
        cached.shared.push(packs.live(run, true)?);
        cached.again.push(packs.live(run, false)?);
    }
    for _ in 0..rounds {
        packs.forget()?;
        cold.shared.push(packs.live(run, true)?);
        packs.forget()?;
        cold.again.push(packs.live(run, false)?);
    }
    let runs = (packs.len / run / 2) as f64;
    let more = |sides: &Sides| 1e6 * (total(&sides.shared) - total(&sides.again)) / runs;
    let again = 1e6 * run as f64 / rate;
    println!(
        "| {} KiB | {} | {:.0} / {:.0} | {:.1} / {:.1} | {:.0} / {:.0} | {:.1} / {:.1} | {:.0} | {:.1} |",
        run >> 10,
        packs.len / run,
        1e6 * median(&cached.shared, |life| life.open),
        1e6 * median(&cached.again, |life| life.open),
        1e3 * median(&cached.shared, |life| life.touch),
        1e3 * median(&cached.again, |life| life.touch),
        1e3 * total(&cold.shared),
        1e3 * total(&cold.again),
        more(&cached),
        more(&cold),
        again,
        again / more(&cached),
    );
    Ok(())
}

#[derive(Default)]
struct Sides {
    shared: Vec<Life>,
    again: Vec<Life>,
}

struct Life {
    open: Duration,
    touch: Duration,
}

fn total(lives: &[Life]) -> f64 {
    median(lives, |life| life.open + life.touch)
}

fn median(lives: &[Life], of: impl Fn(&Life) -> Duration) -> f64 {
    let samples = lives.iter().map(|life| of(life).as_secs_f64()).collect();
    let median = Samples::new(samples).of(Statistic::Median);
    median.unwrap_or(f64::NAN)
}

/// Two files of whole segments: of the older one, what is shared is used; of the newer one all, or what is not.
struct Packs {
    older: File,
    newer: File,
    len: usize,
}

impl Packs {
    fn new(scratch: &Path, len: usize) -> Result<Self, BenchError> {
        let make = |name, seed| {
            let path = scratch.join(name);
            create_warm(&path, len, seed)?;
            File::open(&path).map_err(BenchError::file("open", path))
        };
        Ok(Self {
            older: make("older", 1)?,
            newer: make("newer", 1_000_000)?,
            len,
        })
    }

    /// Brings both into the page cache.
    fn read(&self) -> Result<(), BenchError> {
        let mut chunk = vec![0; MIB];
        for file in [&self.older, &self.newer] {
            for at in (0..self.len).step_by(MIB) {
                file.read_exact_at(&mut chunk, at as u64)
                    .map_err(BenchError::file("read", "a pack"))?;
            }
        }
        Ok(())
    }

    fn forget(&self) -> Result<(), BenchError> {
        for file in [&self.older, &self.newer] {
            fadvise(file, 0, None, Advice::DontNeed).map_err(BenchError::kernel("fadvise"))?;
        }
        Ok(())
    }

    /// Maps the segment and touches every page.
    fn live(&self, run: usize, shared: bool) -> Result<Life, BenchError> {
        let mut memory = Plain::new(self.len, Pages::Small)?;
        let begun = Instant::now();
        if shared {
            for (n, at) in (0..self.len).step_by(run).enumerate() {
                // Fresh runs lie one behind the other in their pack, and so do the duplicates in theirs.
                let place = (n / 2 * run) as u64;
                let file = if n % 2 == 0 { &self.newer } else { &self.older };
                memory.show(at, run, file, place)?;
            }
        } else {
            memory.show(0, self.len, &self.newer, 0)?;
        }
        let open = begun.elapsed();
        let view = memory.view();
        let begun = Instant::now();
        let mut sum = 0_u64;
        for page in 0..view.pages() {
            let word = view.word(page * PAGE);
            sum = sum.wrapping_add(word.load(std::sync::atomic::Ordering::Relaxed));
        }
        std::hint::black_box(sum);
        Ok(Life {
            open,
            touch: begun.elapsed(),
        })
    }
}

/// Bytes a second of what storing a run again adds to a checkpoint.
fn direct_rate(scratch: &Path, rounds: usize) -> Result<f64, BenchError> {
    const LEN: usize = 64 * MIB;
    let memory = Plain::filled(LEN, 3)?;
    let path = scratch.join("direct");
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let took = write_direct(&path, memory.view())?;
        std::fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
        rates.push(LEN as f64 / took.as_secs_f64());
    }
    Ok(Samples::new(rates)
        .of(Statistic::Median)
        .unwrap_or(f64::NAN))
}
