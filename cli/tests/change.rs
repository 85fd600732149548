//! The verbs that change something: what a session finds afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod support;

use segvm::CommitId;
use serde_json::json;
use support::{BLOCK, Place, content, expected, flip, write};

#[test]
#[ignore = "the other process of Place::content"]
fn reader() {
    support::read_as_told();
}

#[test]
fn a_branch_starts_where_it_is_told_and_goes_its_own_way() {
    let place = Place::new();
    place.image("notes", 3);
    place.ok(&["branch", "notes", "a"]);
    let made = place.json(&["branch", "notes@-1", "b"]);
    assert_eq!(made["image"], "b");
    assert!(place.content("a") == expected(3));
    assert!(place.content("b") == expected(2));
    // Beyond the branch point.
    place.ok(&["restore", "b@-2"]);
    assert!(place.content("b") == expected(1));
    assert!(place.content("notes") == expected(3));
    let said = place.fails(2, &["branch", "notes", "a"]);
    assert!(said.contains("there is an image a already"), "{said}");
    place.fails(3, &["branch", "nothing", "c"]);
    assert_eq!(place.json(&["fsck", "--deep"])["findings"], json!([]));
}

#[test]
fn a_branch_of_a_killed_program_seals_what_it_left() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session, 2);
    // A crash with manners: the pack stays unsealed.
    drop(session);
    assert_eq!(place.json(&["stats"])["unsealed_packs"], 1);
    place.ok(&["branch", "notes", "b"]);
    assert_eq!(place.json(&["stats"])["unsealed_packs"], 0);
    assert!(place.content("b") == expected(2));
    assert_eq!(place.json(&["fsck", "--deep"])["findings"], json!([]));
}

#[test]
fn a_branch_never_needs_what_a_running_program_may_still_write() {
    let place = Place::new();
    place.image("notes", 2);
    let session = place.open("notes");
    write(&session, 4);
    let said = place.fails(5, &["branch", "notes", "b"]);
    let pid = std::process::id();
    assert!(
        said.contains(&format!("which process {pid} still writes")),
        "{said}"
    );
    // What an earlier run left is sealed.
    let head = place.json(&["log", "notes"]);
    let older = head.as_array().unwrap().len() - 1;
    place.ok(&["branch", &format!("notes@-{older}"), "b"]);
    assert!(place.content("b") == expected(1));
    session.suspend().unwrap();
    place.ok(&["branch", "notes", "c"]);
    assert!(place.content("c") == expected(4));
}

#[test]
fn a_restored_commit_is_the_newest_and_can_be_taken_back() {
    let place = Place::new();
    place.image("notes", 3);
    let before = place.json(&["log", "notes"])[0]["commit"].clone();
    let restored = place.json(&["restore", "notes@-2"]);
    assert_eq!(restored["before"], before);
    assert!(place.content("notes") == expected(1));
    let log = place.json(&["log", "notes"]);
    assert_eq!(log.as_array().unwrap().len(), 4);
    assert!(
        log[0]["note"]
            .as_str()
            .unwrap()
            .starts_with("restored from")
    );
    place.ok(&[
        "restore",
        &format!("notes@{}", &before.as_str().unwrap()[..12]),
    ]);
    assert!(place.content("notes") == expected(3));
    assert!(
        place
            .fails(2, &["restore", "notes"])
            .contains("equals the newest")
    );
    assert!(
        place
            .fails(2, &["restore", "notes@-0"])
            .contains("equals the newest")
    );

    let session = place.open("notes");
    let said = place.fails(5, &["restore", "notes@-1"]);
    assert!(
        said.contains("is open for writing") && said.contains("segvm steal"),
        "{said}"
    );
    drop(session);
}

#[test]
fn tags_keep_commits_and_name_them() {
    let place = Place::new();
    place.image("notes", 3);
    place.ok(&["tag", "notes@-2", "first"]);
    place.ok(&["tag", "notes", "last"]);
    let tags = place.json(&["tag", "notes"]);
    assert_eq!(
        (&tags[0]["tag"], &tags[1]["tag"]),
        (&json!("first"), &json!("last"))
    );
    assert_eq!(
        tags[0]["commit"],
        place.json(&["log", "notes"])[2]["commit"]
    );
    assert!(place.ok(&["log", "notes"]).contains("first"));
    place.ok(&["restore", "notes@first"]);
    assert!(place.content("notes") == expected(1));
    assert!(
        place
            .fails(2, &["tag", "notes", "last"])
            .contains("already")
    );
    place.ok(&["tag", "notes", "last", "--delete"]);
    place.fails(3, &["tag", "notes", "last", "--delete"]);
    place.fails(2, &["tag", "notes", "yesterday"]);
}

#[test]
fn who_was_stolen_from_commits_no_more() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session, 1);
    let stolen = place.json(&["steal", "notes"]);
    assert_eq!(stolen["taken_from"]["pid"], std::process::id());
    let segment = session.segment("memory", 0).unwrap();
    segment.write(0, &[9; BLOCK]).unwrap();
    let refused = session.checkpoint().unwrap_err();
    assert!(format!("{refused:?}").contains("Orphaned"), "{refused:?}");
    drop(session);
    assert!(place.content("notes") == expected(1));
    assert!(place.ok(&["steal", "notes"]).contains("nobody had it"));
    place.fails(3, &["steal", "nothing"]);
}

#[test]
fn what_is_removed_is_freed_and_nothing_else() {
    let place = Place::new();
    place.image("notes", 3);
    place.image("other", 2);
    place.image("old", 3);
    place.ok(&["branch", "notes@-1", "kept"]);
    let session = place.open("notes");
    assert!(
        place
            .fails(5, &["rm", "notes"])
            .contains("close it there first")
    );
    assert!(place.fails(5, &["gc"]).contains("is in use by process"));
    session.suspend().unwrap();
    place.fails(3, &["rm", "nothing"]);
    place.ok(&["rm", "notes", "other"]);
    let before = place.json(&["stats"])["pack_bytes"].as_u64().unwrap();
    let plan = place.json(&["gc", "--dry-run"]);
    assert_eq!(place.json(&["stats"])["pack_bytes"], before);
    let done = place.json(&["gc"]);
    assert_eq!(done["freed"], plan["freed"]);
    assert!(done["freed"].as_u64().unwrap() > 0, "{done}");
    assert!(place.json(&["stats"])["pack_bytes"].as_u64().unwrap() < before);
    assert!(place.content("kept") == expected(2));
    let again = place.ok(&["gc"]);
    assert!(again.starts_with("freed 0 B"), "{again}");
    // Every commit that is left, not the newest alone.
    place.ok(&["restore", "old@-2"]);
    assert!(place.content("old") == expected(1));
    assert_eq!(place.json(&["fsck", "--deep"])["findings"], json!([]));
}

#[test]
fn a_flipped_bit_is_found_and_whom_it_touches_is_said() {
    let place = Place::new();
    place.image("notes", 3);
    place.image("other", 1);
    place.ok(&["tag", "notes", "v1"]);
    assert!(place.ok(&["fsck", "--deep"]).contains("nothing is wrong"));
    flip(&place.store(), &[0x83; BLOCK]);
    // The structure is whole.
    place.ok(&["fsck"]);
    let ran = place.run(&["fsck", "--deep"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.out.contains("damaged: notes.") && !ran.out.contains("other"),
        "{ran:?}"
    );
    let ran = place.run(&["fsck", "--deep", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &found["worst"]), (4, &json!("harm")));
    let touches = found["findings"][0]["touches"].as_array().unwrap();
    assert_eq!(touches.len(), 1);
    let head = place.json(&["log", "notes"])[0]["commit"].clone();
    assert_eq!(
        touches[0],
        json!({ "image": "notes", "commit": head, "segment": "memory" })
    );
}

#[test]
fn a_restore_by_the_command_is_one_a_session_can_go_on_from() {
    let place = Place::new();
    place.image("notes", 3);
    place.ok(&["restore", "notes@-1"]);
    let session = place.open("notes");
    let head: CommitId = session.head().unwrap();
    assert!(content(&session) == expected(2));
    write(&session, 4);
    session.suspend().unwrap();
    assert!(place.content("notes") == expected(4));
    assert!(place.ok(&["log", "notes"]).contains(&format!("{head:.12}")));
}
