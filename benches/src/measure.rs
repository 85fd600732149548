//! The two sides of a row, taken in turns.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{error::BenchError, stat::Samples};

/// What a row may know about the run it is part of.
#[derive(Debug)]
pub struct Ctx {
    /// Where the rows' files lie; removed with this value.
    data: TempDir,
    /// Sizes are divided by this; 1 in a run that counts.
    scale: usize,
}

impl Ctx {
    /// Makes the data directory inside `parent`, which should lie on a real file system.
    ///
    /// - **Errors**: [`BenchError::File`].
    pub fn new(parent: &Path, scale: usize) -> Result<Self, BenchError> {
        fs::create_dir_all(parent).map_err(BenchError::file("create", parent))?;
        let data = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(parent)
            .map_err(BenchError::file("create a directory in", parent))?;
        Ok(Self { data, scale })
    }

    /// A path for a row's file; rows remove what they no longer need.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.data.path()
    }

    /// So many MiB at full scale, as bytes; at least one MiB.
    #[must_use]
    pub fn mib(&self, mib: usize) -> usize {
        (mib / self.scale).max(1) << 20
    }

    /// So many repetitions at full scale; at least five.
    #[must_use]
    pub fn times(&self, n: usize) -> usize {
        (n / self.scale).max(n.min(5))
    }
}

/// The numbers of one repetition, one a column; NaN where one could not be had.
pub type Sample = Vec<f64>;

/// Takes one repetition's numbers.
pub type Sampler<'a> = Box<dyn FnMut() -> Result<Sample, BenchError> + 'a>;

/// One side of a row.
#[expect(
    missing_debug_implementations,
    reason = "a closure has nothing to show"
)]
pub enum Side<'a> {
    /// Can be measured.
    Run(Sampler<'a>),
    /// Cannot, and why.
    Missing(String),
}

impl<'a> Side<'a> {
    /// A side that gives several numbers a repetition.
    pub fn run(sampler: impl FnMut() -> Result<Sample, BenchError> + 'a) -> Self {
        Self::Run(Box::new(sampler))
    }

    /// A side that is not measured, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self::Missing(reason.into())
    }
}

/// The samples of one side, or the reason that there are none.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Samples by column.
    columns: Vec<Samples>,
    /// Why there are none.
    pub missing: Option<String>,
}

impl Taken {
    fn new(samples: &[Sample], missing: Option<String>) -> Self {
        let width = samples.iter().map(Vec::len).max().unwrap_or(0);
        let columns = (0..width)
            .map(|column| {
                let numbers = samples
                    .iter()
                    .filter_map(|sample| sample.get(column).copied());
                Samples::new(numbers.collect())
            })
            .collect();
        Self { columns, missing }
    }

    /// The samples of a column; `None` where that number was never taken.
    #[must_use]
    pub fn column(&self, column: usize) -> Option<&Samples> {
        self.columns.get(column).filter(|samples| samples.n() > 0)
    }
}

/// Both sides of a row, measured in one run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// segvm.
    pub ours: Taken,
    /// What a program would do without it.
    pub other: Taken,
    /// What the row's target grants on top of the other side, if it speaks of an allowance.
    pub allowance: Option<f64>,
}

impl Measured {
    /// A row of which neither side could be measured.
    #[must_use]
    pub fn failed(reason: String) -> Self {
        let nothing = Taken::new(&[], Some(reason));
        Self {
            ours: nothing.clone(),
            other: nothing,
            allowance: None,
        }
    }
}

/// Takes `n` samples of both sides in turns, after one of each that does not count.
///
/// The side that goes first changes with each turn: what one leaves behind (a dirty page cache, a busy
/// disk) then falls on both alike.
///
/// - **Errors**: never for the sides' own errors: they become the reason why that side is missing.
pub fn alternate(n: usize, ours: Side<'_>, other: Side<'_>) -> Measured {
    let mut sides = [ours, other];
    let mut samples = [Vec::new(), Vec::new()];
    for turn in 0..=n {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (Some(side), Some(taken)) = (sides.get_mut(which), samples.get_mut(which)) else {
                continue;
            };
            let Side::Run(sampler) = side else { continue };
            match sampler() {
                Ok(sample) if turn > 0 => taken.push(sample),
                Ok(_warm_up) => {}
                Err(error) => {
                    // Half of a side is no measurement.
                    taken.clear();
                    *side = Side::Missing(error.to_string());
                }
            }
        }
    }
    let [ours, other] = sides.map(|side| match side {
        Side::Run(_) => None,
        Side::Missing(reason) => Some(reason),
    });
    let [ours_samples, other_samples] = samples;
    Measured {
        ours: Taken::new(&ours_samples, ours),
        other: Taken::new(&other_samples, other),
        allowance: None,
    }
}

/// Takes `n` samples of both sides at the same time, after one that does not count: for sides that must share
/// what happens beside them.
pub fn together(
    n: usize,
    mut sampler: impl FnMut() -> Result<(Sample, Sample), BenchError>,
) -> Measured {
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    for turn in 0..=n {
        match sampler() {
            Ok((mine, theirs)) if turn > 0 => {
                ours.push(mine);
                other.push(theirs);
            }
            Ok(_warm_up) => {}
            Err(error) => return Measured::failed(error.to_string()),
        }
    }
    Measured {
        ours: Taken::new(&ours, None),
        other: Taken::new(&other, None),
        allowance: None,
    }
}

/// Milliseconds, for a sample.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds, for a sample.
#[must_use]
pub fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Nanoseconds for each of `n`, for a sample.
#[must_use]
pub fn ns_each(duration: Duration, n: usize) -> f64 {
    duration.as_secs_f64() * 1e9 / n as f64
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn sides_take_turns_and_the_first_of_each_does_not_count() {
        let order = RefCell::new(String::new());
        let side = |letter: char| {
            let order = &order;
            let mut n = 0.0;
            Side::run(move || {
                order.borrow_mut().push(letter);
                n += 1.0;
                Ok(vec![n])
            })
        };
        let measured = alternate(3, side('a'), side('b'));
        assert_eq!(*order.borrow(), "abbaabba");
        let column = measured.ours.column(0).unwrap();
        assert_eq!((column.n(), column.quantile(0.0)), (3, Some(2.0)));
    }

    #[test]
    fn a_side_that_fails_half_way_is_missing_with_its_reason() {
        let mut left = 2;
        let failing = Side::run(move || {
            left -= 1;
            match left {
                0 => Err(BenchError::Rows("broken".to_owned())),
                _ => Ok(vec![1.0]),
            }
        });
        let measured = alternate(4, failing, Side::run(|| Ok(vec![2.0, f64::NAN])));
        assert!(measured.ours.column(0).is_none());
        assert!(measured.ours.missing.unwrap().contains("broken"));
        assert_eq!(measured.other.column(0).unwrap().n(), 4);
        assert!(measured.other.column(1).is_none());
    }
}
