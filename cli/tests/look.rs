//! The verbs that only look: what they say, with and without a program that has the image open.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod support;

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Command,
};

use serde_json::json;
use support::{BLOCK, BLOCKS, Place, SEGMENT, expected, flip, write};

#[test]
fn nothing_is_made_by_looking() {
    let place = Place::new();
    let ran = place.run(&["images"]);
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("no store at"), "{ran:?}");
    assert_eq!(place.json(&["images"]), json!([]));
    for args in [&["log", "notes"], &["show", "notes"], &["lease", "notes"]] {
        let said = place.fails(3, args);
        assert!(
            said.contains("there is no store at") && said.contains("--store DIR"),
            "{said}"
        );
    }
    place.fails(3, &["stats"]);
    assert!(!place.store().exists());
}

#[test]
fn images_are_listed_in_aligned_columns() {
    let place = Place::new();
    place.image("notes", 3);
    place.image("a-rather-long-name", 1);
    let out = place.ok(&["images"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("IMAGE               HOME    SIZE  STORED  COMMITS  LAST"),
        "{out}"
    );
    assert!(lines[1].starts_with("a-rather-long-name  local  1 MiB  32 KiB        1  "));
    assert!(lines[2].starts_with("notes               local  1 MiB  64 KiB        3  "));
    let images = place.json(&["images"]);
    assert_eq!(images[1]["image"], "notes");
    assert_eq!(images[1]["size"], BLOCKS * BLOCK);
    assert_eq!(images[1]["stored"], 4 * BLOCK);
    assert_eq!(images[1]["commits"], 3);
    assert_eq!(images[1]["lease"], json!(null));
    let stats = place.json(&["stats"]);
    assert_eq!(
        (&stats["images"], &stats["commits"]),
        (&json!(2), &json!(4))
    );
    assert!(place.ok(&["stats"]).contains("2, 0 open for writing"));
}

#[test]
fn many_images_are_listed_in_order() {
    let place = Place::new();
    place.image("a", 1);
    let images = place.store().join("images");
    for n in 0..600 {
        let copy = images.join(format!("n{n:03}"));
        std::fs::create_dir(&copy).unwrap();
        for name in ["log", "lease"] {
            std::fs::copy(images.join("a").join(name), copy.join(name)).unwrap();
        }
    }
    let found = place.json(&["images"]);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 601);
    assert!(found.is_sorted_by_key(|image| image["image"].as_str()));
    for image in found {
        assert_eq!(
            (&image["commits"], &image["stored"]),
            (&json!(1), &json!(2 * BLOCK))
        );
    }
}

#[test]
fn a_damaged_image_hides_no_other() {
    let place = Place::new();
    place.image("bad", 1);
    place.image("good", 1);
    let lease = place.store().join("images/bad/lease");
    let mut bytes = std::fs::read(&lease).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&lease, bytes).unwrap();
    let ran = place.run(&["images"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.out.contains("\ngood   local  1 MiB  32 KiB"), "{ran:?}");
    assert!(ran.out.contains("\nbad    local  1 MiB  32 KiB"), "{ran:?}");
    assert!(ran.err.contains("bad/lease is damaged"), "{ran:?}");
    let ran = place.run(&["fsck"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.out.contains("damaged: bad."), "{ran:?}");
    place.fails(4, &["lease", "bad"]);
}

#[test]
fn a_commit_of_a_program_that_runs_can_be_read() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session, 3);
    // Its pack is not sealed: what the marks cover is read all the same.
    let show = place.json(&["show", "notes"]);
    assert_eq!(show["segments"][0]["blocks"], 4);
    assert_eq!(show["segments"][0]["holes"], BLOCKS - 4);
    assert_eq!(place.json(&["stats"])["unsealed_packs"], 1);
    let images = place.ok(&["images"]);
    let pid = std::process::id();
    assert!(
        images.contains(&format!("this machine, pid {pid}")),
        "{images}"
    );
    let lease = place.json(&["lease", "notes"]);
    assert_eq!(lease["lease"]["pid"], pid);
    assert!(
        place
            .ok(&["lease", "notes"])
            .contains("is open for writing by")
    );
    session.suspend().unwrap();
    assert_eq!(place.json(&["lease", "notes"])["lease"], json!(null));
    assert!(place.ok(&["lease", "notes"]).contains("is free"));
}

#[test]
fn the_log_goes_back_beyond_a_branch_point() {
    let place = Place::new();
    place.image("notes", 3);
    let session = place.open("notes");
    session.branch("try-it").unwrap();
    session.restore("-1").unwrap();
    session.checkpoint().unwrap();
    session.suspend().unwrap();
    let log = place.json(&["log", "notes"]);
    let log = log.as_array().unwrap();
    assert_eq!(log.len(), 4);
    let older = log[2]["commit"].as_str().unwrap();
    assert_eq!(log[0]["note"], format!("restored from {}", &older[..12]));
    let branch = place.json(&["log", "try-it"]);
    assert_eq!(branch.as_array().unwrap().len(), 4);
    assert_eq!(branch[0]["note"], "branched off notes");
    assert_eq!(branch[1]["commit"], log[1]["commit"]);
    assert_eq!(
        place
            .json(&["log", "notes", "-n", "2"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let text = place.ok(&["log", "try-it"]);
    assert!(text.lines().nth(1).unwrap().starts_with("@-0"), "{text}");
    assert!(text.contains("branched off notes"));
    assert!(
        place
            .fails(3, &["log", "nothing"])
            .contains("`segvm images` lists")
    );
}

#[test]
fn what_differs_is_counted_in_blocks_and_bytes() {
    let place = Place::new();
    place.image("notes", 3);
    let diff = place.json(&["diff", "notes@-1", "notes"]);
    let segment = &diff["segments"][0];
    assert_eq!(segment["segment"], SEGMENT);
    // The first block, and the third commit's own.
    assert_eq!(
        (&segment["blocks"], &segment["bytes"]),
        (&json!(2), &json!(2 * BLOCK))
    );
    assert_eq!(
        (&segment["blocks_of_a"], &segment["blocks_of_b"]),
        (&json!(1), &json!(2))
    );
    let same = place.json(&["diff", "notes", "notes@-0"]);
    assert_eq!(same["segments"][0]["change"], "same");
    assert!(
        place
            .ok(&["diff", "notes@-2", "notes"])
            .contains("changed       3  48 KiB")
    );
    let said = place.fails(3, &["diff", "notes@-9", "notes"]);
    assert!(
        said.contains("image notes has no commit -9") && said.contains("segvm log"),
        "{said}"
    );
}

#[test]
fn a_map_lights_what_the_commit_changed() {
    let place = Place::new();
    place.image("notes", 3);
    let map = place.ok(&["show", "notes", "--map"]);
    let strip = format!("0 B  █▒▒█{}", "·".repeat(BLOCKS - 4));
    assert!(map.contains(&strip), "{map}");
    let first = place.ok(&["show", "notes@-2", "--map"]);
    assert!(
        first.contains(&format!("0 B  ██{}", "·".repeat(BLOCKS - 2))),
        "{first}"
    );
    // A long segment that is mostly holes is told in a few lines.
    let session = place.open("long");
    let segment = session.segment(SEGMENT, 1024 * BLOCK).unwrap();
    segment.write(1023 * BLOCK, &[1; BLOCK]).unwrap();
    session.suspend().unwrap();
    let long = place.ok(&["show", "long", "--map"]);
    let strip: Vec<&str> = long
        .lines()
        .skip_while(|line| !line.contains("a cell is"))
        .collect();
    let holes = "·".repeat(64);
    let shown = [
        format!("     0 B  {holes}"),
        "      ...".to_owned(),
        format!("  14 MiB  {holes}"),
        format!("  15 MiB  {}█", "·".repeat(63)),
    ];
    assert_eq!(strip[1..5], shown, "{long}");

    let cells = &place.json(&["show", "notes", "--map"])["segments"][0]["map"];
    assert_eq!(
        cells["stored"].as_array().unwrap()[..5],
        [1, 1, 1, 1, 0].map(|n| json!(n))
    );
    assert_eq!(
        cells["changed"].as_array().unwrap()[..5],
        [1, 0, 0, 1, 0].map(|n| json!(n))
    );

    let svg = place.file("map.svg");
    place.ok(&["show", "notes", "--map", "--svg", svg.to_str().unwrap()]);
    let drawn = std::fs::read_to_string(svg).unwrap();
    assert_eq!(drawn.matches("#f08c00").count(), 2);
    assert_eq!(drawn.matches("#3b78c2").count(), 2);
    assert_eq!(drawn.matches("#e9ecef").count(), BLOCKS - 4);

    let colored = place.ok(&["--color", "always", "show", "notes", "--map"]);
    assert!(colored.contains("\u{1b}[33m█"));
    assert!(!map.contains('\u{1b}'), "a pipe is no terminal");
}

#[test]
fn an_export_has_every_byte_and_leaves_holes() {
    let place = Place::new();
    place.image("notes", 3);
    let file = place.file("memory.bin");
    let path = file.to_str().unwrap();
    let told = place.json(&["export", "notes", SEGMENT, path]);
    assert_eq!(told["written"], 4 * BLOCK);
    assert!(std::fs::read(&file).unwrap() == expected(3));
    let meta = std::fs::metadata(&file).unwrap();
    assert!(meta.blocks() * 512 <= 8 * BLOCK as u64, "{meta:?}");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    // An older commit, and through a pipe.
    let said = place.fails(6, &["export", "notes@-1", SEGMENT, path]);
    assert!(said.contains("memory.bin"), "{said}");
    place.ok(&["export", "notes@-1", SEGMENT, path, "--force"]);
    assert!(std::fs::read(&file).unwrap() == expected(2));
    let piped = Command::new(env!("CARGO_BIN_EXE_segvm"))
        .args(["export", "notes@-2", SEGMENT, "-"])
        .env("SEGVM_HOME", place.store())
        .output()
        .unwrap();
    assert!(piped.status.success() && piped.stdout == expected(1));
    let said = place.fails(3, &["export", "notes", "heap", "x"]);
    assert!(
        said.contains("has no segment \"heap\"; it has memory"),
        "{said}"
    );
}

#[test]
fn an_export_refuses_a_damaged_block() {
    let place = Place::new();
    place.image("notes", 2);
    flip(&place.store(), &[0x82; BLOCK]);
    let said = place.run(&["export", "notes", SEGMENT, "-"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("segment memory, block 2") && said.err.contains("fsck --deep"));
}

#[test]
fn the_command_line_is_checked_first() {
    let place = Place::new();
    place.image("notes", 1);
    for args in [
        &["frobnicate"][..],
        &["log", "Not A Name"],
        &["show", "notes@"],
        &["show", "notes", "--svg", "x.svg"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(!ran.err.is_empty());
    }
    let said = place.fails(2, &["show", "elsewhere:notes"]);
    assert!(
        said.contains("names a home that this command does not know"),
        "{said}"
    );
    place.ok(&["show", "local:notes"]);
    // Every verb has examples, and the exit codes are told.
    let help = place.ok(&["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("5  fenced"));
    let verbs = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    let verbs = verbs
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    for verb in verbs.filter(|verb| *verb != "help" && verb.chars().all(|c| c.is_ascii_lowercase()))
    {
        if help.contains(&format!("\n  {verb} ")) {
            let help = place.ok(&[verb, "--help"]);
            assert!(
                help.contains(&format!("Examples:\n  segvm {verb}")),
                "{help}"
            );
        }
    }
}
