#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops where it is surprised, and of types only the schema is looked at"
)]

mod old;

use super::{Kind, Schema, SchemaError, TypeRef};
use crate::{
    collections::{BTreeMap, Box, HashMap, Text, Vec},
    persist::{Maybe, Persist},
};

#[derive(Persist)]
#[repr(C)]
struct Library {
    by_title: HashMap<Text, Book>,
    by_place: BTreeMap<Place, Vec<Text>>,
    first: Chain,
    opened: u64,
    r#type: Maybe<Weather>,
    rows: [Place; 3],
    pair: Pair,
}

#[derive(Persist)]
#[repr(C)]
struct Book {
    pages: u32,
    lent: bool,
}

#[derive(Persist)]
#[repr(C)]
struct Chain {
    next: Box<Chain>,
    value: i128,
}

#[derive(Persist, Clone, Copy, Debug)]
#[repr(C, align(16))]
#[persist(plain, key, version = 3)]
struct Place {
    shelf: u16,
    mark: char,
}

#[derive(Persist)]
#[repr(C)]
struct Pair(f64, Text);

#[derive(Persist, Clone, Copy, Debug)]
#[repr(i8)]
enum Weather {
    Frost = -1,
    Unknown,
    Rain,
}

fn names(schema: &Schema) -> std::vec::Vec<String> {
    let all = 0..schema.types().len();
    all.map(|at| schema.name_of(TypeRef(at as u32))).collect()
}

#[test]
fn a_schema_is_a_table_of_types_and_comes_back_from_its_bytes() {
    let schema = Schema::of::<Library>();
    assert_eq!(
        names(&schema)[..6],
        [
            "Library",
            "hash-map<text, Book>",
            "text",
            "Book",
            "u32",
            "bool"
        ]
    );
    let bytes = schema.encode().unwrap();
    assert_eq!(Schema::decode(&bytes).unwrap(), schema);
    let Kind::Struct(top) = &schema.get(TypeRef::TOP).kind else {
        panic!("{schema}");
    };
    let fields: std::vec::Vec<_> = top.fields.iter().map(|field| &*field.name).collect();
    assert_eq!(
        fields,
        [
            "by_title", "by_place", "first", "opened", "type", "rows", "pair"
        ]
    );
}

/// Every byte changed, and every length: an error, or a schema with just these bytes.
#[test]
fn bytes_that_were_tampered_with_are_refused_or_mean_what_they_say() {
    let bytes = Schema::of::<Library>().encode().unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff, bytes[at]] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            match Schema::decode(&changed) {
                Ok(schema) => {
                    assert_eq!(schema.encode().unwrap(), changed);
                    // Whatever it says, it can be told.
                    let _told = (schema.to_string(), schema.to_rust("Old").to_string());
                    let _told = schema.differences(&Schema::of::<Library>());
                }
                Err(_) => refused += 1,
            }
        }
        Schema::decode(&bytes[..at]).unwrap_err();
    }
    assert!(
        refused > bytes.len() * 2,
        "{refused} of {}",
        4 * bytes.len()
    );
    let longer = [&*bytes, &[0]].concat();
    assert_eq!(
        Schema::decode(&longer).unwrap_err(),
        SchemaError::Damaged {
            at: bytes.len(),
            flaw: "something follows its end"
        }
    );
}

#[test]
fn a_type_that_contains_itself_in_its_place_is_refused() {
    // As a chain of boxes is one, with the box taken out: size 0, or its own size.
    let mut bytes = b"SEGVMSCH\x01\0\0\0\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&[super::encode::ARRAY, 0]);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    assert_eq!(
        Schema::decode(&bytes).unwrap_err(),
        SchemaError::Damaged {
            at: bytes.len(),
            flaw: "a type that contains itself without end"
        }
    );
}

/// A map whose keys and values are such maps: found by the fuzzer, which ran out of memory in its name. And a type that adds up
/// what was not looked at yet.
#[test]
fn types_that_never_end_are_told_in_few_words() {
    let bytes = include_bytes!("../../../../fuzz/corpus/schema/map-of-itself");
    let schema = Schema::decode(bytes).unwrap();
    for told in [schema.to_string(), schema.to_rust("Old").to_string()] {
        assert!(told.len() < 100_000, "{} bytes", told.len());
    }
    assert!(schema.fits(&schema));
    let mut bytes = b"SEGVMSCH\x01\0\0\0\x02\0\0\0".to_vec();
    bytes.extend_from_slice(&[super::encode::MAYBE, 3, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    bytes.extend_from_slice(&[super::encode::TEXT, 3]);
    bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(Schema::decode(&bytes).is_err());
}

/// The written source is a program that has the schema it was written from: it is compiled as `old`.
#[test]
fn the_source_of_a_stored_type_has_its_schema() {
    let schema = Schema::of::<Library>();
    let written = schema.to_rust("Old").to_string();
    let text = include_str!("old.rs");
    let (_head, compiled) = text.split_once("\n\n").unwrap();
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(
        flat(&written),
        flat(&compiled.replace("pub(super) ", "").replace(",)", ")")),
        "{written}"
    );
    let again = Schema::of::<old::OldLibrary>();
    assert_eq!(again.fingerprint(), schema.fingerprint());
    assert!(schema.fits(&again) && again.fits(&schema));
}

mod after {
    use super::{Box, Chain, Maybe, Persist, Text, Vec, Weather};

    /// As [`Before`](super::Before), with everything that can change.
    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Before {
        pub(super) new: u32,
        #[persist(renamed_from = "count")]
        pub(super) number: u64,
        pub(super) tags: Vec<Tag>,
        pub(super) kind: Maybe<Weather>,
        pub(super) guess: u16,
        pub(super) row: [u8; 8],
        pub(super) chain: Box<Chain>,
    }

    #[derive(Persist)]
    #[repr(C)]
    #[persist(version = 2)]
    pub(super) struct Tag {
        pub(super) name: Text,
        pub(super) weight: f32,
    }
}

#[derive(Persist)]
#[repr(C)]
struct Before {
    count: u64,
    tags: Vec<Tag>,
    kind: Maybe<Weather>,
    estimate: u16,
    row: [u8; 4],
    gone: Text,
    chain: Box<Chain>,
}

#[derive(Persist)]
#[repr(C)]
struct Tag {
    name: Text,
    weight: f64,
}

#[test]
fn differences_are_told_field_by_field_with_the_path() {
    let (before, after) = (Schema::of::<Before>(), Schema::of::<after::Before>());
    let told: std::vec::Vec<_> = before
        .differences(&after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "the whole: resized, from 88 to 80 bytes",
            "new: added, u32",
            "number: renamed, was count",
            "number: moved, from byte 0 to 8",
            "tags: moved, from byte 8 to 16",
            "kind: moved, from byte 32 to 40",
            "guess: added, u16",
            "row: moved, from byte 50 to 58",
            "chain: moved, from byte 80 to 72",
            "estimate: removed, was u16",
            "gone: removed, was text",
            "tags[]: version 2 now, was 1",
            "tags[].weight: retyped, from f64 to f32",
            "row: resized, from 4 to 8 bytes",
        ]
    );
    assert!(!before.fits(&after) && before.fits(&before));
    assert_eq!(before.differences(&before), []);
}

mod renamed {
    use super::Persist;

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Book {
        #[persist(renamed_from = "sheets", renamed_from = "pages")]
        pub(super) leaves: u32,
        #[persist(renamed_from = "lent")]
        pub(super) away: bool,
    }

    #[derive(Persist)]
    #[repr(C)]
    pub(super) struct Undeclared {
        pub(super) leaves: u32,
        pub(super) lent: bool,
    }

    #[derive(Persist, Clone, Copy, Debug)]
    #[repr(i8)]
    pub(super) enum Weather {
        Frost = -1,
        #[persist(renamed_from = "Unknown")]
        Any,
        Rain,
        Snow,
    }
}

#[test]
fn names_that_are_said_to_have_changed_fit_and_others_do_not() {
    let book = Schema::of::<Book>();
    let renamed = Schema::of::<renamed::Book>();
    assert_ne!(book.fingerprint(), renamed.fingerprint());
    assert!(book.fits(&renamed) && !renamed.fits(&book));
    let guessed = Schema::of::<renamed::Undeclared>();
    assert!(!book.fits(&guessed));
    assert_eq!(
        book.differences(&guessed)[0].to_string(),
        "leaves: renamed? pages was there: if it is the same, say #[persist(renamed_from = \"pages\")]"
    );
}

#[test]
fn a_new_variant_fits_and_one_that_is_gone_does_not() {
    let (few, more) = (Schema::of::<Weather>(), Schema::of::<renamed::Weather>());
    assert!(few.fits(&more) && !more.fits(&few));
    let told: std::vec::Vec<_> = few
        .differences(&more)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "::Any: renamed, was Unknown",
            "::Snow: added, the variant 2"
        ]
    );
}

#[test]
fn types_are_equal_by_what_they_look_like_and_not_by_their_names() {
    mod other {
        #[derive(super::Persist)]
        #[repr(C)]
        pub(super) struct Volume {
            pub(super) pages: u32,
            pub(super) lent: bool,
        }
    }
    let (book, volume) = (Schema::of::<Book>(), Schema::of::<other::Volume>());
    assert_eq!(book.fingerprint(), volume.fingerprint());
    assert_eq!(book.differences(&volume), []);
}
