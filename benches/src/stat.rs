//! From samples to the few numbers that are reported.

/// Which number stands for the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The middle one.
    Median,
    /// The 95th percentile.
    P95,
    /// The largest.
    Max,
}

/// Samples of one quantity, sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Ascending, without NaN.
    sorted: Vec<f64>,
}

impl Samples {
    /// Takes samples in any order; NaN means that the quantity was not measured that time.
    #[must_use]
    pub fn new(mut samples: Vec<f64>) -> Self {
        samples.retain(|sample| !sample.is_nan());
        samples.sort_by(f64::total_cmp);
        Self { sorted: samples }
    }

    /// How many there are.
    #[must_use]
    pub fn n(&self) -> usize {
        self.sorted.len()
    }

    /// The sample at or above the fraction `q` of all, or `None` without samples.
    ///
    /// Nearest rank: always a value that was really measured.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank between 0 and the number of samples"
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.sorted.len() as f64).ceil() as usize;
        self.sorted
            .get(rank.saturating_sub(1))
            .or(self.sorted.last())
            .copied()
    }

    /// The number that stands for the samples.
    #[must_use]
    pub fn of(&self, statistic: Statistic) -> Option<f64> {
        match statistic {
            Statistic::Median => self.quantile(0.5),
            Statistic::P95 => self.quantile(0.95),
            Statistic::Max => self.quantile(1.0),
        }
    }

    /// The tenth and the ninetieth percentile.
    #[must_use]
    pub fn spread(&self) -> Option<(f64, f64)> {
        Some((self.quantile(0.1)?, self.quantile(0.9)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let hundred = Samples::new((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred.quantile(0.5), Some(50.0));
        assert_eq!(hundred.of(Statistic::P95), Some(95.0));
        assert_eq!(hundred.of(Statistic::Max), Some(100.0));
        assert_eq!(hundred.quantile(0.0), Some(1.0));
        assert_eq!(hundred.spread(), Some((10.0, 90.0)));
    }

    #[test]
    fn what_was_not_measured_does_not_count() {
        let samples = Samples::new(vec![f64::NAN, 3.0, f64::NAN]);
        assert_eq!((samples.n(), samples.quantile(0.5)), (1, Some(3.0)));
        assert_eq!(Samples::new(vec![f64::NAN]).quantile(0.5), None);
    }
}
