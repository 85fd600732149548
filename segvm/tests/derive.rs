//! What must not compile does not, and says what to do instead; what may, describes itself.

use segvm::{
    collections::{Box, HashMap, Text, Vec},
    persist::{Maybe, Persist, Schema},
};

#[test]
fn what_cannot_survive_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[derive(Persist)]
#[repr(C)]
struct Notes {
    by_title: HashMap<Text, Vec<Text>>,
    opened: u64,
    newest: Maybe<u32>,
}

#[derive(Persist)]
#[repr(C)]
struct Chain {
    next: Box<Chain>,
    value: Weather,
}

#[derive(Persist, Clone, Copy)]
#[repr(i8)]
enum Weather {
    Frost = -1,
    Unknown,
    Rain,
}

#[derive(Persist)]
#[repr(C)]
#[persist(version = 2)]
struct NewMeaning {
    opened: u64,
}

#[derive(Persist)]
#[repr(C)]
struct OldMeaning {
    opened: u64,
}

#[test]
fn a_schema_says_fields_kinds_and_places_and_ends_for_recursive_types() {
    assert_eq!(
        Schema::of::<Notes>().to_string(),
        "struct Notes v1 64/8 { by_title @0: hash-map<text, vec<text>>; opened @40: u64; newest @48: maybe<u32>; }"
    );
    assert_eq!(
        Schema::of::<Chain>().to_string(),
        "struct Chain v1 16/8 { next @0: box<Chain>; value @8: enum Weather v1 1 { Frost = -1; Unknown = 0; Rain = 1; }; }"
    );
}

#[test]
fn a_version_makes_another_fingerprint() {
    let (old, new) = (Schema::of::<OldMeaning>(), Schema::of::<NewMeaning>());
    assert_ne!(old.fingerprint(), new.fingerprint());
    assert_eq!(old, Schema::of::<OldMeaning>());
}
