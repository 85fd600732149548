//! The guide and the README: every program is built and run, and every command does what the page shows.
//!
//! How a page says what its blocks are for: e2e/src/page.rs. The commands of a page run one after the other in one shell, with a store and a
//! home directory of their own; `segvm` is the built command, and the page's programs can be called by their names.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod place;

use std::process::ExitCode;

use segvm_e2e::{
    page::{Ends, Kind, Output, agrees, commands, pieces},
    programs::{PAGES, PROGRAMS},
};

use place::Place;

fn main() -> ExitCode {
    if let Some(code) = place::be_a_program() {
        return code;
    }
    // A program of the guide reads its arguments as any program does: so this is no test framework's process, but as much of one as
    // `cargo test` and nextest ask for. Each page is a test.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flag = |flag| words.iter().any(|word| word == flag);
    let wanted: Vec<&String> = words
        .iter()
        .filter(|word| !word.starts_with('-'))
        .filter(|word| *word != "terse")
        .collect();
    let is_wanted = |test: &str| {
        let named = |word: &&String| {
            if flag("--exact") {
                *word == test
            } else {
                test.contains(word.as_str())
            }
        };
        wanted.is_empty() || wanted.iter().any(named)
    };
    let tests = PAGES.iter().map(|(page, _)| {
        (
            page.trim_end_matches(".md")
                .replace('-', "_")
                .to_lowercase(),
            page,
        )
    });
    let tests: Vec<_> = tests
        .filter(|(test, _)| !flag("--ignored") && is_wanted(test))
        .collect();
    if flag("--list") {
        tests.iter().for_each(|(test, _)| println!("{test}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (test, page) in tests {
        let passed = std::panic::catch_unwind(|| run(page)).is_ok();
        println!("test {test} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs what a page shows, and compares.
fn run(page: &str) {
    let (_, text) = PAGES.iter().find(|(name, _)| *name == page).unwrap();
    let pieces = pieces(text).unwrap();
    let place = Place::new(page);

    let blocks: Vec<(usize, Output, Vec<segvm_e2e::page::Command>)> = pieces
        .iter()
        .filter_map(|piece| match &piece.kind {
            Kind::Commands(output) => Some((piece.line, *output, commands(&piece.text))),
            _ => None,
        })
        .collect();
    let typed: Vec<&str> = blocks
        .iter()
        .flat_map(|(_, _, commands)| commands)
        .map(|command| command.typed.as_str())
        .collect();
    let ran = place.shell(&typed);

    let mut ran = ran.iter();
    for (line, output, commands) in &blocks {
        for command in commands {
            let what = format!("{page}, block at line {line}: {}", command.typed);
            let (status, said) = ran.next().unwrap_or_else(|| panic!("{what}: never run"));
            let fails = command.shown.first().is_some_and(|line| {
                let begins = |word| line.starts_with(word);
                begins("error:") || begins("Error:") || begins("{\"causes\"")
            });
            assert!(
                (*status != 0) == fails,
                "{what}: status {status}\n{}",
                said.join("\n")
            );
            let compared = *output == Output::Compared && !command.shown.is_empty();
            assert!(
                !compared || agrees(&command.shown, said),
                "{what}: it said\n{}\n\nand the page shows\n{}",
                said.join("\n"),
                command.shown.join("\n")
            );
        }
    }

    for piece in &pieces {
        if let Kind::Program(name, ends) = &piece.kind
            && !typed.iter().any(|typed| typed.contains(name.as_str()))
        {
            // Twice: what a program does with what it finds is what it is shown for.
            for _ in 0..2 {
                match ends {
                    Ends::ByItself => place.run_to_its_end(name),
                    Ends::Killed => place.kill_when_it_speaks(name),
                }
            }
        }
        if let Kind::NotRun(why) = &piece.kind {
            println!("{page}, block at line {}: not run: {why}", piece.line);
            assert!(
                why.split_whitespace().count() > 2,
                "line {}: say why",
                piece.line
            );
        }
    }
    assert!(
        !blocks.is_empty() || PROGRAMS.iter().any(|program| program.page == page),
        "{page}: nothing was run"
    );
}
