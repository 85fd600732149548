//! Results for people (a table, docs/measurements.md) and for programs (JSON).

use std::{collections::HashMap, fmt::Write as _, fs, path::Path};

use crate::{
    error::BenchError,
    machine::Machine,
    measure::{Measured, Taken},
    spec::{Figure, Spec},
};

/// One figure of one row, measured or not.
#[derive(Debug, Clone)]
pub struct Line {
    /// The row's name, with `: part` for its parts.
    pub name: String,
    /// The number that stands for our samples.
    pub ours: Option<f64>,
    /// And for the other side's.
    pub other: Option<f64>,
    /// Tenth and ninetieth percentile of each.
    pub spread: [Option<(f64, f64)>; 2],
    /// The unit of all of these.
    pub unit: String,
    /// The target, as rows.toml says it.
    pub target: String,
    /// Whether it was reached; false where it was not measured.
    pub met: bool,
    /// Samples of our side, or of the other where ours is missing.
    pub n: usize,
}

impl Line {
    fn new(spec: &Spec, figure: &Figure, measured: &Measured) -> Self {
        let number = |side: &Taken| side.column(figure.column)?.of(figure.statistic);
        let spread = |side: &Taken| side.column(figure.column)?.spread();
        let n = |side: &Taken| side.column(figure.column).map(crate::stat::Samples::n);
        let (ours, other) = (number(&measured.ours), number(&measured.other));
        Self {
            name: if figure.name.is_empty() {
                spec.name.clone()
            } else {
                format!("{}: {}", spec.name, figure.name)
            },
            ours,
            other,
            spread: [spread(&measured.ours), spread(&measured.other)],
            unit: figure.unit.clone(),
            target: figure.target.to_string(),
            met: figure.target.met(ours, other, measured.allowance),
            n: n(&measured.ours)
                .or_else(|| n(&measured.other))
                .unwrap_or(0),
        }
    }

    /// ours / other.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.other?)
    }
}

/// A row's result.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// What rows.toml says of it.
    pub spec: Spec,
    /// The row's own figure, then its parts.
    pub lines: Vec<Line>,
    /// Why a side is missing.
    pub reasons: Vec<String>,
    /// Whether sizes were divided, so that the figures do not count.
    pub scaled: bool,
}

impl RowResult {
    /// Puts a measurement beside what was asked of it.
    #[must_use]
    pub fn new(spec: Spec, measured: &Measured, scaled: bool) -> Self {
        let lines = spec
            .figures
            .iter()
            .map(|figure| Line::new(&spec, figure, measured))
            .collect();
        let mut reasons = Vec::new();
        if let Some(reason) = &measured.ours.missing {
            reasons.push(format!("not measured: {reason}"));
        }
        if let Some(reason) = &measured.other.missing
            && measured.ours.missing.as_ref() != Some(reason)
        {
            reasons.push(format!("other side: {reason}"));
        }
        Self {
            spec,
            lines,
            reasons,
            scaled,
        }
    }

    /// Whether every figure reached its target.
    #[must_use]
    pub fn met(&self) -> bool {
        self.lines.iter().all(|line| line.met)
    }
}

/// The results as a table with aligned columns.
#[must_use]
pub fn table(results: &[RowResult]) -> String {
    let head = [
        "row", "ours", "other", "unit", "ratio", "spread", "n", "target", "met",
    ];
    let mut grid = vec![head.map(str::to_owned).to_vec()];
    let mut notes = String::new();
    for result in results {
        grid.extend(result.lines.iter().map(cells));
        for reason in &result.reasons {
            let _ = writeln!(notes, "{}: {reason}", result.spec.name);
        }
    }
    if results.iter().any(|result| result.scaled) {
        notes +=
            "scaled: smaller sizes than the rows ask for, docs/measurements.md is left alone\n";
    }
    let widths = (0..head.len()).map(|column| {
        let cells = grid.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let widths: Vec<usize> = widths.collect();
    let mut text = String::new();
    for row in &grid {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Numbers align right, words left.
            let _ = match at {
                1 | 2 | 4 | 6 => write!(text, "{cell:>width$}  "),
                _ => write!(text, "{cell:<width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    if !notes.is_empty() {
        let _ = write!(text, "\n{notes}");
    }
    text
}

fn cells(line: &Line) -> Vec<String> {
    vec![
        line.name.clone(),
        shown(line.ours),
        shown(line.other),
        line.unit.clone(),
        line.ratio()
            .map_or_else(dash, |ratio| format!("{ratio:.2}")),
        spread(line),
        line.n.to_string(),
        line.target.clone(),
        if line.met { "yes" } else { "no" }.to_owned(),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// Three digits that mean something.
fn shown(number: Option<f64>) -> String {
    match number {
        None => dash(),
        Some(0.0) => "0".to_owned(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.1}"),
        Some(x) if x.abs() >= 1.0 => format!("{x:.2}"),
        Some(x) => format!("{x:.3}"),
    }
}

fn spread(line: &Line) -> String {
    let [ours, other] = line.spread.map(|side| match side {
        None => dash(),
        Some((low, high)) => format!("{}..{}", shown(Some(low)), shown(Some(high))),
    });
    format!("{ours} / {other}")
}

/// The results as one JSON array; a row's parts are objects of the same fields inside it.
#[must_use]
pub fn json(results: &[RowResult]) -> String {
    let rows: Vec<String> = results.iter().map(json_row).collect();
    format!("[\n  {}\n]\n", rows.join(",\n  "))
}

fn json_row(result: &RowResult) -> String {
    let mut fields = vec![
        field("suite", &quoted(&result.spec.suite)),
        field("better", &quoted(&result.spec.better.to_string())),
    ];
    let mut lines = result.lines.iter();
    if let Some(line) = lines.next() {
        fields.extend(json_line(line, result.met()));
    }
    let parts: Vec<String> = lines
        .map(|line| format!("{{{}}}", json_line(line, line.met).join(", ")))
        .collect();
    if !parts.is_empty() {
        fields.push(field("parts", &format!("[{}]", parts.join(", "))));
    }
    if !result.reasons.is_empty() {
        fields.push(field("reason", &quoted(&result.reasons.join("; "))));
    }
    if result.scaled {
        fields.push(field("scaled", "true"));
    }
    format!("{{{}}}", fields.join(", "))
}

fn json_line(line: &Line, met: bool) -> Vec<String> {
    let pair = |side: Option<(f64, f64)>| {
        side.map_or_else(
            || "null".to_owned(),
            |(low, high)| format!("[{}, {}]", number(Some(low)), number(Some(high))),
        )
    };
    let [ours, other] = line.spread.map(pair);
    vec![
        field("name", &quoted(&line.name)),
        field("ours", &number(line.ours)),
        field("other", &number(line.other)),
        field("unit", &quoted(&line.unit)),
        field("ratio", &number(line.ratio())),
        field(
            "spread",
            &format!("{{\"ours\": {ours}, \"other\": {other}}}"),
        ),
        field("target", &quoted(&line.target)),
        field("met", if met { "true" } else { "false" }),
        field("n", &line.n.to_string()),
    ]
}

fn field(name: &str, value: &str) -> String {
    format!("\"{name}\": {value}")
}

fn number(number: Option<f64>) -> String {
    number
        .filter(|number| number.is_finite())
        .map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What a new docs/measurements.md begins with.
const PREAMBLE: &str = "\
# Measurements

Written by `cargo xtask bench SUITE`, which measures both sides of a row in turns in one run. Figures are
medians; the spread is the tenth to the ninetieth percentile of ours / other. Sizes, targets and names
are in benches/rows.toml, both sides in benches/src/rows. Compare ratios: the machine is small and shared.
";

/// Puts the results of one suite into docs/measurements.md; what was not measured this time stays.
///
/// - **Errors**: [`BenchError::File`].
pub fn update(
    path: &Path,
    suite: &str,
    order: &[Spec],
    results: &[RowResult],
    machine: &Machine,
) -> Result<(), BenchError> {
    let old = fs::read_to_string(path).unwrap_or_else(|_none_yet| PREAMBLE.to_owned());
    let new = updated(&old, suite, order, results, machine);
    fs::write(path, new).map_err(BenchError::file("write", path))
}

fn updated(
    old: &str,
    suite: &str,
    order: &[Spec],
    results: &[RowResult],
    machine: &Machine,
) -> String {
    let (open, close) = (
        format!("<!-- suite {suite} -->"),
        format!("<!-- end {suite} -->"),
    );
    let (before, section, after) = match old.split_once(&open) {
        Some((before, rest)) => match rest.split_once(&close) {
            Some((section, after)) => (before.to_owned(), section, after),
            None => (before.to_owned(), rest, "\n"),
        },
        None => (format!("{old}\n## {suite}\n\n"), "", "\n"),
    };
    // The rows that this run did not measure keep their lines.
    let mut kept: HashMap<&str, Vec<String>> = HashMap::new();
    for line in section.lines() {
        if let Some(cell) = line
            .strip_prefix("| ")
            .and_then(|line| line.split(" | ").next())
        {
            let row = cell.split(": ").next().unwrap_or(cell);
            kept.entry(row).or_default().push(line.to_owned());
        }
    }
    for result in results {
        let mut lines: Vec<String> = result
            .lines
            .iter()
            .map(|line| markdown(line, machine))
            .collect();
        if let (Some(first), false) = (lines.first_mut(), result.reasons.is_empty()) {
            first.truncate(first.len() - 2);
            let _ = write!(first, " ({}) |", result.reasons.join("; "));
        }
        kept.insert(&result.spec.name, lines);
    }
    let mut text = format!("{before}{open}\n");
    for (name, value) in &machine.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text += "\n| row | ours | other | unit | ratio | spread | n | target | measured | met |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for spec in order {
        for line in kept.get(spec.name.as_str()).into_iter().flatten() {
            text += line;
            text.push('\n');
        }
    }
    text + &close + after
}

fn markdown(line: &Line, machine: &Machine) -> String {
    let mut cells = cells(line);
    let date = machine.facts.iter().find(|(name, _)| *name == "date");
    cells.insert(8, date.map_or_else(dash, |(_, date)| date.clone()));
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{Side, alternate},
        spec,
    };

    fn result(name: &str, ours: f64) -> RowResult {
        let spec = spec::rows().unwrap();
        let spec = spec.into_iter().find(|spec| spec.name == name).unwrap();
        let side = |x: f64| Side::run(move || Ok(vec![x]));
        RowResult::new(spec, &alternate(3, side(ours), side(100.0)), false)
    }

    fn machine() -> Machine {
        Machine {
            facts: vec![("date", "2026-11-25".to_owned())],
        }
    }

    #[test]
    fn an_update_keeps_what_it_did_not_measure() {
        let order = spec::rows().unwrap();
        let update =
            |old: &str, results: &[RowResult]| updated(old, "core", &order, results, &machine());
        let first = update(PREAMBLE, &[result("core.suspend-full", 110.0)]);
        let both = update(&first, &[result("core.pause-residue-warm", 20.0)]);
        assert!(
            both.contains("| core.suspend-full | 110 | 100 | ms | 1.10 |"),
            "{both}"
        );
        assert!(
            both.contains("| core.pause-residue-warm: p95 | 20.0 |"),
            "{both}"
        );
        let again = update(&both, &[result("core.suspend-full", 150.0)]);
        assert!(!again.contains("| 110 |"), "{again}");
        assert!(again.contains("| core.suspend-full | 150 |") && again.contains("| no |"));
        assert_eq!(again.lines().count(), both.lines().count());
        let other_suite = updated(&again, "kv", &order, &[], &machine());
        assert!(other_suite.contains("| core.suspend-full | 150 |"));
    }

    #[test]
    fn what_is_missing_is_not_met_and_says_why() {
        let spec = spec::rows().unwrap().remove(0);
        let measured = alternate(
            2,
            Side::missing("a \"quoted\" reason"),
            Side::run(|| Ok(vec![5.0])),
        );
        let result = RowResult::new(spec, &measured, true);
        assert!(!result.met());
        let text = json(std::slice::from_ref(&result));
        assert!(text.contains(r#""ours": null, "other": 5,"#), "{text}");
        assert!(
            text.contains(r#""reason": "not measured: a \"quoted\" reason""#),
            "{text}"
        );
        assert!(text.contains(r#""met": false"#) && text.contains(r#""scaled": true"#));
        assert!(table(&[result]).contains("not measured: a"));
    }
}
