//! The documents keep their word: pages are there, links lead somewhere, and the tests that are named exist.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What the guide must have.
const GUIDE: [&str; 8] = [
    "caches-and-secrets.md",
    "data-modelling.md",
    "debugging.md",
    "first-hour.md",
    "operations.md",
    "schema-change.md",
    "threads-and-async.md",
    "trust.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

#[test]
fn the_guide_has_its_pages_and_its_first_one_leads_to_all() {
    let guide = root().join("docs/guide");
    let first = fs::read_to_string(guide.join("first-hour.md")).unwrap();
    for page in GUIDE {
        assert!(guide.join(page).exists(), "docs/guide/{page} is missing");
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(
        readme.contains("](docs/guide/first-hour.md)"),
        "the README does not lead to the guide"
    );
    for entry in fs::read_dir(guide).unwrap() {
        let page = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            page == "first-hour.md" || first.contains(&format!("]({page})")),
            "first-hour.md does not lead to {page}"
        );
    }
}

/// The targets of a document's links, without those of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let so_far = line.len() - after.len();
            let in_code = line[..so_far].matches('`').count() % 2 == 1;
            let Some((target, more)) = after.split_once(')') else {
                break;
            };
            if !in_code {
                links.push(target.to_owned());
            }
            rest = more;
        }
    }
    links
}

/// As code hosts make them: lower case, spaces to dashes, nothing but letters, digits, dashes and underscores.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.starts_with("```");
        if let Some(title) = line.strip_prefix('#').filter(|_| !code) {
            let title = title.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

#[test]
fn every_link_of_every_document_leads_somewhere() {
    let mut all = Vec::new();
    documents(&root(), &mut all);
    assert!(all.len() > 20, "{all:?}");
    let (mut broken, mut followed) = (Vec::new(), 0);
    for document in &all {
        let text = fs::read_to_string(document).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            let there = target.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
    assert!(followed > 30, "only {followed} links were found");
}

/// The last cell of a row of docs/failures.md: `file`: `test`, `test`; `file`: `test`. Or "no test: why".
fn tests_of(cell: &str) -> Result<Vec<(String, String)>, String> {
    if let Some(why) = cell.strip_prefix("no test: ") {
        return if why.split_whitespace().count() > 3 {
            Ok(Vec::new())
        } else {
            Err(format!("no reason: {cell}"))
        };
    }
    let mut named = Vec::new();
    for part in cell.split(';') {
        let (file, tests) = part.split_once(':').ok_or(format!("no file: {part}"))?;
        for test in tests.split(',') {
            named.push((unquoted(file)?, unquoted(test)?));
        }
    }
    Ok(named)
}

fn unquoted(word: &str) -> Result<String, String> {
    let inner = word
        .trim()
        .strip_prefix('`')
        .and_then(|word| word.strip_suffix('`'));
    inner
        .map(str::to_owned)
        .ok_or(format!("not quoted: {word}"))
}

#[test]
fn every_test_that_the_table_of_failures_names_exists() {
    let text = fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let (mut wrong, mut named, mut rows) = (Vec::new(), 0, 0);
    for (line, number) in text.lines().zip(1..) {
        let Some(row) = line.strip_prefix("| ") else {
            continue;
        };
        let cells: Vec<&str> = row
            .trim_end_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect();
        if cells[0] == "what" || cells[0].starts_with("--") {
            continue;
        }
        rows += 1;
        if cells.len() != 5 || cells.iter().any(|cell| cell.is_empty()) {
            wrong.push(format!("line {number}: {} cells", cells.len()));
            continue;
        }
        match tests_of(cells[4]) {
            Ok(tests) => {
                for (file, test) in tests {
                    named += 1;
                    let code = fs::read_to_string(root().join(&file)).unwrap_or_default();
                    if !is_test(&code, &test) {
                        wrong.push(format!("line {number}: {file} has no test {test}"));
                    }
                }
            }
            Err(what) => wrong.push(format!("line {number}: {what}")),
        }
    }
    assert!(wrong.is_empty(), "docs/failures.md:\n{}", wrong.join("\n"));
    assert!(rows > 40 && named > 50, "{rows} rows, {named} tests");
}

/// Tells whether the code has a test of that name: a function with the attribute, or one in a block of properties.
fn is_test(code: &str, name: &str) -> bool {
    let Some(at) = code.find(&format!("fn {name}(")) else {
        return false;
    };
    let before = code.get(..at).unwrap_or_default();
    let item = before.rsplit("\n}\n").next().unwrap_or_default();
    item.contains("#[test]")
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let code = "#[test]\n#[ignore]\nfn one() {\n}\n\nfn two() {\n}\n";
    assert!(is_test(code, "one") && !is_test(code, "two") && !is_test(code, "on"));
    assert!(tests_of("`a`: `b`, `c`; `d`: `e`").unwrap().len() == 3);
    assert!(tests_of("no test: x").is_err() && tests_of("a: `b`").is_err());
    assert_eq!(
        links("[a](b) `[c](d)` [e](f#g)\n```\n[h](i)\n```\n"),
        ["b", "f#g"]
    );
    assert!(
        anchors("# A b, `c`\n## What wipe covers, and what it cannot\n")
            .contains("what-wipe-covers-and-what-it-cannot")
    );
}
