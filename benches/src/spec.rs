//! What rows.toml says: the names, units and targets that never change with a measurement.

use std::fmt;

use toml::{Table, Value};

use crate::{error::BenchError, stat::Statistic};

/// The file itself, so that the binary needs no path to it.
const ROWS: &str = include_str!("../rows.toml");

/// What a row must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// ours / other at most this.
    Ratio(f64),
    /// ours at most this.
    Ours(f64),
    /// ours at most other + this.
    Above(f64),
    /// ours at most other + the allowance measured with the row + this.
    AboveAllowance(f64),
    /// No bound.
    Reported,
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        if text == "reported" {
            return Some(Self::Reported);
        }
        let (left, right) = text.split_once(" <= ")?;
        match (left, right.split(" + ").collect::<Vec<_>>().as_slice()) {
            ("ratio", [bound]) => bound.parse().ok().map(Self::Ratio),
            ("ours", [bound]) => bound.parse().ok().map(Self::Ours),
            ("ours", ["other", bound]) => bound.parse().ok().map(Self::Above),
            ("ours", ["other", "allowance", bound]) => bound.parse().ok().map(Self::AboveAllowance),
            _ => None,
        }
    }

    /// Tells whether the numbers reach the target; a number that it needs and that is missing does not.
    #[must_use]
    pub fn met(self, ours: Option<f64>, other: Option<f64>, allowance: Option<f64>) -> bool {
        let bound = match self {
            Self::Reported => return ours.is_some(),
            Self::Ours(bound) => Some(bound),
            Self::Ratio(bound) => other.map(|other| other * bound),
            Self::Above(bound) => other.map(|other| other + bound),
            Self::AboveAllowance(bound) => other
                .zip(allowance)
                .map(|(other, more)| other + more + bound),
        };
        ours.zip(bound).is_some_and(|(ours, bound)| ours <= bound)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(bound) => write!(f, "ratio <= {bound}"),
            Self::Ours(bound) => write!(f, "ours <= {bound}"),
            Self::Above(bound) => write!(f, "ours <= other + {bound}"),
            Self::AboveAllowance(bound) => write!(f, "ours <= other + allowance + {bound}"),
            Self::Reported => f.write_str("reported"),
        }
    }
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less of it.
    Lower,
    /// More of it.
    Higher,
}

impl fmt::Display for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        })
    }
}

/// A figure of a row: the row's own, or one of its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Empty for the row's own figure.
    pub name: String,
    /// Which number of a sample it is.
    pub column: usize,
    /// How samples become one number.
    pub statistic: Statistic,
    /// The unit, as printed.
    pub unit: String,
    /// What it must reach.
    pub target: Target,
}

/// A row of rows.toml.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The suite it belongs to.
    pub suite: String,
    /// Its name, which begins with the suite's.
    pub name: String,
    /// The name of its code: the same, but for a row that is another one's by another engine.
    pub code: String,
    /// Which direction is good.
    pub better: Better,
    /// What is measured, in a sentence.
    pub description: String,
    /// The row's own figure first, then its parts.
    pub figures: Vec<Figure>,
}

/// The engines that can be forced, by their names: each suite has one of the same rows for each of them.
pub const ENGINES: [&str; 1] = ["mprotect"];

/// The rows of every suite, in the order in which they are printed.
///
/// - **Errors**: [`BenchError::Rows`] names the row and the field that is wrong.
pub fn rows() -> Result<Vec<Spec>, BenchError> {
    let mut rows = parse(ROWS)?;
    let forced: Vec<Spec> = ENGINES
        .iter()
        .flat_map(|engine| rows.iter().map(move |row| row.by(engine)))
        .collect();
    rows.extend(forced);
    Ok(rows)
}

impl Spec {
    /// The same row with an engine forced. What it has to reach is said of the best engine only.
    fn by(&self, engine: &str) -> Self {
        let suite = by(&self.suite, engine);
        let rest = self.name.strip_prefix(&self.suite).unwrap_or(&self.name);
        Self {
            name: format!("{suite}{rest}"),
            code: self.code.clone(),
            figures: self
                .figures
                .iter()
                .map(|figure| Figure {
                    target: Target::Reported,
                    ..figure.clone()
                })
                .collect(),
            suite,
            ..self.clone()
        }
    }
}

/// What a suite is called by an engine.
#[must_use]
pub fn by(suite: &str, engine: &str) -> String {
    format!("{suite}-{engine}")
}

/// The engine that a suite forces, if it does.
#[must_use]
pub fn engine_of(suite: &str) -> Option<&'static str> {
    let forces = |engine: &&&str| {
        let rest = suite.strip_suffix(**engine);
        rest.is_some_and(|rest| rest.ends_with('-'))
    };
    ENGINES.iter().find(forces).copied()
}

fn parse(file: &str) -> Result<Vec<Spec>, BenchError> {
    let table: Table = file
        .parse()
        .map_err(|error: toml::de::Error| BenchError::Rows(error.to_string()))?;
    table
        .get("row")
        .and_then(Value::as_array)
        .ok_or_else(|| BenchError::Rows("no [[row]]".to_owned()))?
        .iter()
        .map(|row| {
            let fields = row.as_table().cloned().unwrap_or_default();
            spec(&fields).map_err(|field| {
                let name = text(&fields, "name").unwrap_or_default();
                BenchError::Rows(format!("row {name:?}: field `{field}` is missing or wrong"))
            })
        })
        .collect()
}

/// Reads one row, or names the field that stops it.
fn spec(row: &Table) -> Result<Spec, &'static str> {
    let unit = text(row, "unit")?;
    let mut figures = vec![Figure {
        name: String::new(),
        column: 0,
        statistic: Statistic::Median,
        unit: unit.clone(),
        target: Target::parse(&text(row, "target")?).ok_or("target")?,
    }];
    let parts = match row.get("parts") {
        None => &[][..],
        Some(parts) => parts.as_array().ok_or("parts")?,
    };
    for (at, part) in parts.iter().enumerate() {
        let part = part.as_table().ok_or("parts")?;
        figures.push(Figure {
            name: text(part, "name")?,
            column: match part.get("column") {
                None => at + 1,
                Some(column) => column
                    .as_integer()
                    .and_then(|column| usize::try_from(column).ok())
                    .ok_or("column")?,
            },
            statistic: match part.get("statistic").map(Value::as_str) {
                None | Some(Some("median")) => Statistic::Median,
                Some(Some("p95")) => Statistic::P95,
                Some(Some("max")) => Statistic::Max,
                Some(_) => return Err("statistic"),
            },
            unit: if part.contains_key("unit") {
                text(part, "unit")?
            } else {
                unit.clone()
            },
            target: Target::parse(&text(part, "target")?).ok_or("target")?,
        });
    }
    Ok(Spec {
        suite: text(row, "suite")?,
        name: text(row, "name")?,
        code: text(row, "name")?,
        better: match text(row, "better")?.as_str() {
            "lower" => Better::Lower,
            "higher" => Better::Higher,
            _ => return Err("better"),
        },
        description: text(row, "description")?,
        figures,
    })
}

fn text(table: &Table, field: &'static str) -> Result<String, &'static str> {
    table
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or(field)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_file_is_right_and_every_row_can_be_run() {
        let specs = rows().unwrap();
        let names: HashSet<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let codes: HashSet<_> = specs.iter().map(|spec| spec.code.as_str()).collect();
        assert_eq!(names.len(), specs.len(), "a name stands twice");
        for spec in &specs {
            assert!(
                spec.name.starts_with(&format!("{}.", spec.suite)),
                "{spec:?}"
            );
        }
        let code: HashSet<_> = crate::rows::ALL.iter().map(|row| row.name).collect();
        assert_eq!(code, codes, "rows.toml and the code list the same rows");
    }

    #[test]
    fn a_forced_engine_has_every_row_and_no_target() {
        let specs = rows().unwrap();
        let of = |suite: &str| {
            let suite = suite.to_owned();
            specs.iter().filter(move |spec| spec.suite == suite)
        };
        assert_eq!(of("core").count(), of("core-mprotect").count());
        let forced = of("core-mprotect").find(|spec| spec.code == "core.durable");
        assert_eq!(forced.unwrap().name, "core-mprotect.durable");
        let all = of("core-mprotect").flat_map(|spec| &spec.figures);
        assert!(
            all.into_iter()
                .all(|figure| figure.target == Target::Reported)
        );
        assert_eq!(engine_of("core-mprotect"), Some("mprotect"));
        assert_eq!((engine_of("core"), engine_of("mprotect")), (None, None));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let text =
            "[[row]]\nsuite = \"core\"\nname = \"core.x\"\nunit = \"ms\"\nbetter = \"lower\"\n";
        let error = parse(&format!("{text}target = \"ratio < 2\"")).unwrap_err();
        assert!(error.to_string().contains("`target`"), "{error}");
        let error = parse(&format!("{text}target = \"ratio <= 2\"")).unwrap_err();
        assert!(error.to_string().contains("`description`"), "{error}");
    }

    #[test]
    fn targets_need_the_numbers_they_speak_of() {
        let met =
            |text, ours, other, allowance| Target::parse(text).unwrap().met(ours, other, allowance);
        assert!(met("ratio <= 1.25", Some(5.0), Some(4.0), None));
        assert!(!met("ratio <= 1.25", Some(5.1), Some(4.0), None));
        assert!(!met("ratio <= 1.25", Some(5.0), None, None));
        assert!(!met("ratio <= 1.25", None, Some(4.0), None));
        assert!(met("ours <= 1", Some(1.0), None, None));
        assert!(met("ours <= other + 4", Some(5.0), Some(1.0), None));
        assert!(!met(
            "ours <= other + allowance + 1",
            Some(4.0),
            Some(1.0),
            None
        ));
        assert!(met(
            "ours <= other + allowance + 1",
            Some(4.0),
            Some(1.0),
            Some(2.0)
        ));
        assert!(!met("reported", None, Some(1.0), None));
    }
}
