//! Three futures begin equal, go different ways, and are all there afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

use std::{path::Path, process::Command};

fn explore(store: &Path) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_branching"))
        .env("SEGVM_HOME", store)
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    said
}

/// Day and toll of each future.
fn rows(said: &str) -> Vec<(String, u64, f64)> {
    let rows = said
        .lines()
        .filter(|line| line.starts_with("city-") && !line.contains("lives"));
    rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        (
            words[0].to_owned(),
            words[1].parse().unwrap(),
            words[4].parse().unwrap(),
        )
    })
    .collect()
}

#[test]
fn three_futures_of_one_past_are_compared_and_one_is_kept() {
    let store = tempfile::tempdir().unwrap();
    let said = explore(store.path());
    let first = rows(&said);
    assert_eq!(first.len(), 3, "{said}");
    assert!(first.iter().all(|(_, day, _)| *day == 160), "{said}");
    // All of them began with the same people: what they came to is what was done, and not chance.
    let again = tempfile::tempdir().unwrap();
    assert_eq!(rows(&explore(again.path())), first);
    let best = first.iter().min_by(|a, b| a.2.total_cmp(&b.2)).unwrap();
    assert!(
        first
            .iter()
            .all(|(name, _, toll)| *name == best.0 || *toll > best.2),
        "{said}"
    );
    assert!(
        said.contains(&format!("kept: {}@day-160", best.0)),
        "{said}"
    );

    let on = explore(store.path());
    assert!(on.contains("is there and lives on"), "{on}");
    assert!(
        on.starts_with(said.lines().next().unwrap()),
        "the past stays: {on}"
    );
    assert!(rows(&on).iter().all(|(_, day, _)| *day == 280), "{on}");
}
