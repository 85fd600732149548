//! Holds docs/unsafe.md to the code: a file with unsafe code is in one of its tables, and a file in a table has some.
//!
//! What counts is found in the text, without a parser: comments and literals are blanked, and the word `unsafe` is
//! looked for. Before a block, an implementation, an extern block or an attribute the file must be listed; an `unsafe fn`
//! or `unsafe trait` only passes the promise on, so its file may be. Test code is left out, as the document says.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

const LIST: &str = "docs/unsafe.md";

/// Folders that hold no code of ours, or none that ships.
const LEFT_OUT: [&str; 5] = ["target", "tests", "fuzz", "docs", ".git"];

/// Compares the document with the tree below `root`; the error is a line per difference.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let cannot_read =
        |path: &Path, error: &io::Error| format!("{} cannot be read: {error}", path.display());
    let document = root.join(LIST);
    let text = fs::read_to_string(&document).map_err(|error| cannot_read(&document, &error))?;
    let listed = listed(&text);
    let mut files = Vec::new();
    sources(root, &mut files).map_err(|error| cannot_read(root, &error))?;
    let mut wrong = Vec::new();
    let mut with_some = BTreeSet::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(|error| cannot_read(&path, &error))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        let name = name.to_string_lossy().into_owned();
        let uses = uses(&text);
        if uses == Uses::Done && !listed.contains(&name) {
            wrong.push(format!("{name} has unsafe code and is not in {LIST}"));
        }
        if uses != Uses::None {
            with_some.insert(name);
        }
    }
    for name in listed.difference(&with_some) {
        wrong.push(match root.join(name).exists() {
            true => format!("{LIST} lists {name}, which has no unsafe code"),
            false => format!("{LIST} lists {name}, which is not there"),
        });
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// All Rust files of the crates, tests left out.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&&*name) || name == "tests.rs" {
            continue;
        }
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The files in the first column of each table. They are below what the last "Paths are below `FOLDER`" named, and
/// `{a,b}` stands for both.
fn listed(document: &str) -> BTreeSet<String> {
    const BELOW: &str = "Paths are below `";
    let mut all = BTreeSet::new();
    let mut below = String::new();
    // A sentence may go on in the next line.
    let sentences = document.replace("Paths are below\n", "Paths are below ");
    for line in sentences.lines() {
        if let Some((_, rest)) = line.split_once(BELOW) {
            below = rest.split('`').next().unwrap_or_default().to_owned();
        }
        let Some(cell) = line
            .strip_prefix("| ")
            .and_then(|row| row.split('|').next())
        else {
            continue;
        };
        for path in names(cell.trim()) {
            if path.ends_with(".rs") {
                all.insert(joined(&below, &path));
            }
        }
    }
    all
}

/// Splits at commas outside braces, and writes `a{b,c}d` out as `abd` and `acd`.
fn names(cell: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let parts = cell.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    let mut all = Vec::new();
    for part in parts.map(str::trim) {
        match part.split_once('{').and_then(|(before, rest)| {
            let (inner, after) = rest.split_once('}')?;
            Some((before, inner, after))
        }) {
            Some((before, inner, after)) => all.extend(
                inner
                    .split(',')
                    .map(|one| format!("{before}{}{after}", one.trim())),
            ),
            None => all.push(part.to_owned()),
        }
    }
    all
}

fn joined(below: &str, path: &str) -> String {
    let mut parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What a file does with `unsafe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Uses {
    None,
    /// Functions and traits that ask a promise of others.
    Declared,
    /// Code that the compiler takes on trust.
    Done,
}

fn uses(text: &str) -> Uses {
    let code = code(text);
    let code = without_tests(&code);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut uses = Uses::None;
    for (at, word) in code.match_indices("unsafe") {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).unwrap_or_default();
        if before.is_some_and(is_word) || after.starts_with(is_word) {
            continue;
        }
        let after = after.trim_start();
        let done = ["{", "impl", "extern", "("]
            .iter()
            .any(|next| after.starts_with(next));
        uses = uses.max(if done { Uses::Done } else { Uses::Declared });
    }
    uses
}

/// Cuts a module of tests off, which comes last in its file; `mod tests;` is another file.
fn without_tests(code: &str) -> &str {
    const MARK: &str = "#[cfg(test)]\nmod ";
    let end = code.match_indices(MARK).map(|(at, _)| at).find(|&at| {
        let name = code.get(at + MARK.len()..).unwrap_or_default();
        name.lines().next().is_some_and(|line| line.ends_with('{'))
    });
    code.get(..end.unwrap_or(code.len())).unwrap_or_default()
}

/// The text with comments and the insides of literals left out.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else if first == 'r'
            && !code.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c')
        {
            raw_string(rest)
        } else {
            0
        };
        match len {
            0 => {
                code.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
            _ => {
                code.push(' ');
                rest = rest.get(len..).unwrap_or_default();
            }
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = match rest {
            _ if rest.starts_with("/*") => {
                depth += 1;
                2
            }
            _ if rest.starts_with("*/") => {
                depth -= 1;
                2
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character's length; 0 for the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            let end = characters.skip(1).find(|&(_, c)| c == '\'');
            end.map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// The length of `r"..."` or `r#"..."#`; 0 for anything else that begins with an r.
fn raw_string(text: &str) -> usize {
    let Some(after) = text.strip_prefix('r') else {
        return 0;
    };
    let hashes = after.len() - after.trim_start_matches('#').len();
    let fence = "#".repeat(hashes);
    let Some(inside) = after.get(hashes..).and_then(|rest| rest.strip_prefix('"')) else {
        return 0;
    };
    let end = format!("\"{fence}");
    inside
        .find(&end)
        .map_or(text.len(), |at| 1 + hashes + 1 + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_comments_and_literals_are_no_code() {
        for (text, is) in [
            ("fn a() { unsafe { b() } }", Uses::Done),
            ("unsafe impl Send for A {}", Uses::Done),
            ("#[unsafe(no_mangle)] fn a() {}", Uses::Done),
            ("pub unsafe fn a();", Uses::Declared),
            ("unsafe trait A {}", Uses::Declared),
            (
                "// unsafe { }\n/* unsafe /* { */ unsafe {} */ fn a() {}",
                Uses::None,
            ),
            (
                r##"let a = ("unsafe { \" unsafe {", r#"" unsafe {"#, b"unsafe {");"##,
                Uses::None,
            ),
            (
                r"let a = '\''; let b: &'static str = f('\u{1f}', '{'); unsafe { c() }",
                Uses::Done,
            ),
            ("let for_r = unsafe_code{};", Uses::None),
            (
                "fn a() {}\n#[cfg(test)]\nmod tests {\nfn b() { unsafe { c() } } }",
                Uses::None,
            ),
            (
                "#[cfg(test)]\nmod tests;\nfn b() { unsafe { c() } }",
                Uses::Done,
            ),
            ("#[cfg(test)]\nuse a; fn b() { unsafe { c() } }", Uses::Done),
        ] {
            assert_eq!(uses(text), is, "{text}");
        }
    }

    #[test]
    fn the_tables_name_files_below_their_folder() {
        let document = "\
Words about `a/b.rs`. Paths are below `sys/src`.

| file | unsafe for |
|---|---|
| real/mod.rs | this |
| a/{b,c}.rs, ../d.rs | that, in e.rs |

Paths are below
`x`:

| f.rs | other |
";
        let all: Vec<_> = listed(document).into_iter().collect();
        assert_eq!(
            all,
            [
                "sys/d.rs",
                "sys/src/a/b.rs",
                "sys/src/a/c.rs",
                "sys/src/real/mod.rs",
                "x/f.rs"
            ]
        );
    }

    #[test]
    fn differences_are_told_both_ways() {
        let root = std::env::temp_dir().join(format!("xtask-unsafe-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/src/lib.rs", "unsafe impl A for B {}");
        write("a/src/listed.rs", "fn a() { unsafe { b() } }");
        write("a/src/safe.rs", "fn a() {}");
        write("a/tests/all.rs", "fn a() { unsafe { b() } }");
        write(
            LIST,
            "Paths are below `a/src`.\n\n| file |\n|---|\n| {listed,safe,gone}.rs |\n",
        );
        let told = check(&root).unwrap_err();
        write(
            LIST,
            "Paths are below `a/src`.\n\n| file |\n|---|\n| {listed,lib}.rs |\n",
        );
        let well = check(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            told,
            "a/src/lib.rs has unsafe code and is not in docs/unsafe.md\n\
             docs/unsafe.md lists a/src/gone.rs, which is not there\n\
             docs/unsafe.md lists a/src/safe.rs, which has no unsafe code"
        );
        assert_eq!(well, Ok(()));
    }
}
