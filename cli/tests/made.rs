//! Import, doctor, completions, manual pages.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod support;

use serde_json::json;
use support::{BLOCK, BLOCKS, Place, SEGMENT, expected};

#[test]
#[ignore = "the other process of Place::content"]
fn reader() {
    support::read_as_told();
}

#[test]
fn an_import_is_what_a_session_finds() {
    let place = Place::new();
    place.image("notes", 2);
    let mut wanted = expected(2);
    wanted[5 * BLOCK..6 * BLOCK].fill(7);
    let file = place.file("memory.bin");
    let path = file.to_str().unwrap();
    std::fs::write(&file, &wanted).unwrap();
    let told = place.json(&["import", "notes", SEGMENT, path]);
    // The rest is stored already.
    assert_eq!(told["written"], BLOCK);
    assert!(place.content("notes") == wanted);
    assert_eq!(
        place.json(&["import", "notes", SEGMENT, path])["written"],
        0
    );
    assert_eq!(place.json(&["log", "notes"]).as_array().unwrap().len(), 3);
    assert_eq!(place.json(&["fsck", "--deep"])["findings"], json!([]));

    // An image of its own, of a length that is no whole block.
    std::fs::write(&file, &wanted[..5 * BLOCK + 100]).unwrap();
    let said = place.fails(3, &["import", "fresh", SEGMENT, path]);
    assert!(said.contains("there is no image fresh"), "{said}");
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_str().unwrap();
    place.ok(&["import", "fresh", SEGMENT, path, "--program", program]);
    let mut short = expected(2)[..5 * BLOCK].to_vec();
    short.resize(6 * BLOCK, 0);
    short[5 * BLOCK..5 * BLOCK + 100].fill(7);
    assert!(place.content("fresh") == short);
    let show = place.json(&["show", "fresh"]);
    assert_eq!(
        (&show["program"], &show["segments"][0]["kind"]),
        (&json!(program), &json!("raw"))
    );

    let session = place.open("notes");
    assert!(
        place
            .fails(5, &["import", "notes", SEGMENT, path])
            .contains("is open for writing")
    );
    drop(session);
    place.fails(3, &["import", "notes", SEGMENT, "/nowhere"]);
    assert_eq!(
        place.json(&["show", "notes"])["segments"][0]["length"],
        BLOCKS * BLOCK
    );
}

#[test]
fn the_doctor_names_machine_store_and_engine() {
    let place = Place::new();
    let before = place.json(&["doctor"]);
    assert!(!place.store().exists(), "looking makes no store");
    assert_eq!(before.get("O_DIRECT"), None);
    place.image("notes", 1);
    let found = place.json(&["doctor"]);
    for name in [
        "machine",
        "kernel",
        "container",
        "page_size",
        "memory",
        "cgroup_memory",
        "overcommit",
        "max_map_count",
        "huge_pages",
        "open_files",
        "locked_memory",
        "store",
        "free_disk",
        "O_DIRECT",
        "userfaultfd",
        "PAGEMAP_SCAN",
        "engine_wp-async",
        "engine_wp-sync",
        "engine_mprotect",
    ] {
        let text = found[name]["text"].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "{name}: {found}");
    }
    // The tests themselves need it.
    assert_eq!(found["engine_wp-async"]["value"], true);
    assert!(found["free_disk"]["value"].as_u64().unwrap() > 0);
    assert!(place.ok(&["doctor"]).contains("the one that programs take"));
}

/// The guide shows no verb that there is none of, and leaves none out; its table of exit codes is the command's.
#[test]
fn the_guide_knows_what_the_command_knows() {
    let guide = include_str!("../../docs/guide/operations.md");
    let place = Place::new();
    let help = place.ok(&["--help"]);
    let shown = guide
        .lines()
        .filter_map(|line| line.strip_prefix("$ segvm "));
    let mut seen = 0;
    for line in shown {
        let verb = line.split_whitespace().next().unwrap();
        place.ok(&[verb, "--help"]);
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    for verb in VERBS {
        assert!(guide.contains(verb), "the guide leaves out {verb}");
    }
    for code in help.split("Exit codes:\n").nth(1).unwrap().lines().skip(1) {
        let (name, text) = code.split_once(": ").unwrap();
        let name = name.split_whitespace().collect::<Vec<_>>().join(" | ");
        assert!(
            guide.contains(&format!("| {name} | {text}")),
            "{name} {text}"
        );
    }
}

const VERBS: [&str; 18] = [
    "images",
    "log",
    "lease",
    "show",
    "diff",
    "stats",
    "branch",
    "tag",
    "rm",
    "restore",
    "steal",
    "gc",
    "fsck",
    "export",
    "import",
    "doctor",
    "completions",
    "man",
];

#[test]
fn completions_and_pages_know_every_verb() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ok(&["completions", shell]);
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
    let pages = place.file("man");
    place.ok(&["man", pages.to_str().unwrap()]);
    for verb in VERBS {
        let page = std::fs::read_to_string(pages.join(format!("segvm-{verb}.1"))).unwrap();
        assert!(
            page.contains("Examples:") && page.starts_with(".ie"),
            "{page}"
        );
    }
    let page = std::fs::read_to_string(pages.join("segvm.1")).unwrap();
    assert!(page.contains("Exit codes:"));
}
