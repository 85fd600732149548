//! `segvm show --root`: typed values from the stored schema alone, while the program runs, and when the bytes lie.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod support;

use segvm::{BTreeMap, Box, HashMap, Maybe, Session, Text, Vec, persist::Persist};
use serde_json::{Value, json};
use support::Place;

#[derive(Persist)]
#[repr(C)]
struct Notes {
    opened: u64,
    all: Vec<Note>,
    by_title: HashMap<Text, u32>,
    by_point: BTreeMap<Point, Text>,
    last: Maybe<i64>,
    mood: Mood,
    ratio: f64,
    first: Box<Chain>,
}

#[derive(Persist)]
#[repr(C)]
struct Note {
    title: Text,
    stars: u8,
}

#[derive(Persist)]
#[repr(C)]
struct Chain {
    next: Box<Chain>,
    n: u32,
}

#[derive(Persist, Clone, Copy, Debug)]
#[repr(C)]
#[persist(plain, key)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Persist, Clone, Copy)]
#[repr(u8)]
enum Mood {
    Unknown,
    Glad = 7,
}

fn write(session: &Session) {
    let root = session.root::<Notes>("notes").unwrap();
    let mut guard = root.write();
    let mut notes = guard.as_mut();
    *notes.opened = 3;
    for n in 0..5 {
        let mut note = notes.all.push_default();
        note.title.push_str(&format!("note \"{n}\"\u{1b}\u{202e}"));
        *note.stars = n;
    }
    notes.by_title.insert("milk", 1);
    notes.by_point.insert(Point { x: -1, y: 2 }, "here");
    notes.last.set(-7);
    *notes.mood = Mood::Glad;
    *notes.ratio = f64::NAN;
    *notes.first.get_or_default().n = 9;
}

#[test]
fn a_root_is_printed_as_json_in_the_order_of_its_fields() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session);
    session.checkpoint().unwrap();
    let notes = session.root::<Notes>("notes").unwrap();
    *notes.write().as_mut().opened = 4;
    session.checkpoint().unwrap();
    // The program runs, and an older commit is asked for.
    let text = place.ok(&["show", "notes@-1", "--root", "notes"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        json!({
            "opened": 3,
            "all": (0..5)
                .map(|n| json!({ "title": format!("note \"{n}\"\u{1b}\u{202e}"), "stars": n }))
                .collect::<std::vec::Vec<_>>(),
            "by_title": { "milk": 1 },
            "by_point": [{ "key": { "x": -1, "y": 2 }, "value": "here" }],
            "last": -7,
            "mood": "Glad",
            "ratio": "NaN",
            "first": { "next": null, "n": 9 },
        })
    );
    assert!(
        !text.contains(['\u{1b}', '\u{202e}']),
        "a terminal would obey it"
    );
    let order = [
        "opened", "all", "by_title", "by_point", "last", "mood", "ratio", "first",
    ];
    let places: std::vec::Vec<_> = order
        .iter()
        .map(|name| text.find(&format!("\n  \"{name}\"")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{text}");
    let whole = place.json(&["show", "notes", "--root", "notes"]);
    assert_eq!(whole["value"]["opened"], 4);
    assert_eq!(
        (&whole["root"], &whole["segment"]),
        (&json!("notes"), &json!("heap"))
    );
    assert_eq!(whole["fingerprint"].as_str().unwrap().len(), 64);
    assert!(
        whole["type"]
            .as_str()
            .unwrap()
            .starts_with("struct Notes v1")
    );
    // A root of a heap of its own.
    let other = session.heap("second").unwrap();
    *other.root::<u64>("count").unwrap().write() = 5;
    let _twin = other.root::<u64>("notes").unwrap();
    session.checkpoint().unwrap();
    assert_eq!(place.ok(&["show", "notes", "--root", "count"]), "5\n");
    let said = place.fails(2, &["show", "notes", "--root", "notes"]);
    assert!(said.contains("--segment"), "{said}");
    assert_eq!(
        place.ok(&["show", "notes", "--root", "notes", "--segment", "second"]),
        "0\n"
    );
}

#[test]
fn long_collections_and_deep_values_are_cut() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session);
    session.suspend().unwrap();
    let few = place.json(&["show", "notes", "--root", "notes", "--limit", "2"]);
    let all = few["value"]["all"].as_array().unwrap();
    assert_eq!((all.len(), &all[2]), (3, &json!({ "$more": 3 })));
    let flat = place.json(&["show", "notes", "--root", "notes", "--depth", "2"]);
    assert_eq!(flat["value"]["opened"], 3);
    assert_eq!(flat["value"]["first"], json!({ "$cut": "depth" }));
    let ran = place.run(&["show", "notes", "--root", "notes", "--limit", "2"]);
    assert!(ran.err.contains("--limit"), "{ran:?}");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session);
    session.suspend().unwrap();
    let said = place.fails(3, &["show", "notes", "--root", "note"]);
    assert!(said.contains("no root \"note\"; it has notes"), "{said}");
    place.image("raw", 1);
    let said = place.fails(3, &["show", "raw", "--root", "notes"]);
    assert!(said.contains("it has none"), "{said}");
    let both = place.run(&["show", "notes", "--root", "notes", "--map"]);
    assert_eq!(both.code, 2, "{both:?}");
}

/// Bytes that the program wrote (the hash is right) and that make no sense: named in their place, the rest is shown.
#[test]
fn lies_are_marked_where_they_stand_and_flipped_bits_are_refused() {
    let place = Place::new();
    let session = place.open("notes");
    write(&session);
    let notes = session.root::<Notes>("notes").unwrap();
    let at = std::ptr::from_ref(&notes.read().mood)
        .cast::<u8>()
        .cast_mut();
    // SAFETY: nobody else has the value; a number that no variant has is never looked at by this process.
    unsafe { at.write(99) };
    // The page is written all the same: the kernel, or the engine's handler, notes it.
    session.checkpoint().unwrap();
    let ran = place.run(&["show", "notes", "--root", "notes"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["mood"]["$damaged"], "a number that no variant has");
    assert!(value["mood"]["$offset"].is_u64());
    assert_eq!(value["opened"], 3);
    assert!(ran.err.contains("1 of its values make no sense"), "{ran:?}");
    // SAFETY: as above.
    unsafe { at.write(7) };
    session.suspend().unwrap();
    support::flip(&place.store(), b"note \"3\"");
    let said = place.fails(4, &["show", "notes", "--root", "notes"]);
    assert!(said.contains("fsck --deep"), "{said}");
}
