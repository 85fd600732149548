//! A schema that another program wrote from docs/format.md alone, byte for byte.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops where it is surprised, and of the types only the schema is looked at"
)]

use std::convert::Infallible;

use segvm::{
    BTreeMap, Box, HashMap, Maybe, Text, Vec,
    inspect::{self, Limits, SegmentBytes, Value},
    persist::{Persist, Schema},
};

#[derive(Persist)]
#[repr(C)]
#[persist(version = 2)]
struct Everything {
    flag: bool,
    mark: char,
    wide: i128,
    title: Text,
    row: [u16; 3],
    some: Maybe<u32>,
    list: Vec<Weather>,
    next: Box<Everything>,
    by_name: HashMap<Text, u64>,
    by_key: BTreeMap<u8, f32>,
}

#[derive(Persist, Clone, Copy)]
#[repr(i8)]
enum Weather {
    Frost = -1,
    Unknown,
    Rain,
}

/// `derive_key("segvm 2026-11 schema v2")` of the file without the names `Everything` and `Weather`, by another implementation
/// of BLAKE3.
const FINGERPRINT: &str = "f9da88fde773eade855251cd1b921f6ff233179720ddc2e0fab955ea0871aa22";

#[test]
fn the_golden_schema_is_read_and_written() {
    let golden = include_bytes!("golden/schema-v1.bin");
    let schema = Schema::of::<Everything>();
    assert_eq!(schema.encode().unwrap(), golden);
    assert_eq!(Schema::decode(golden).unwrap(), schema);
    let fingerprint = schema.fingerprint();
    let hex: String = fingerprint
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, FINGERPRINT);
}

/// A heap that the same program wrote, with one root.
struct File<'f>(&'f [u8]);

impl SegmentBytes for File<'_> {
    type Error = Infallible;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Infallible> {
        let from = usize::try_from(offset).unwrap();
        out.copy_from_slice(self.0.get(from..from + out.len()).unwrap());
        Ok(())
    }
}

#[test]
fn the_golden_heap_is_read() {
    let golden = include_bytes!("golden/heap-v3.bin");
    let mut segment = inspect::Segment {
        bytes: File(golden),
        base: 0x1000_0000_0000,
        len: golden.len() as u64,
    };
    let roots = inspect::roots(&mut segment).unwrap();
    let [root] = &*roots else {
        panic!("{roots:?}");
    };
    let schema = root.schema.clone().unwrap().unwrap();
    assert_eq!(schema, Schema::of::<Everything>());
    assert_eq!(
        (&*root.name, root.fingerprint),
        ("all", schema.fingerprint())
    );
    let value = inspect::value(&mut segment, &schema, root.address, Limits::default()).unwrap();
    let text = |text: &str| Value::Text(text.into(), 0);
    let numbers = |numbers: [u128; 3]| Value::List(numbers.map(Value::Unsigned).into(), 0);
    let nothing = || Value::List(std::vec::Vec::new(), 0);
    let no_map = || Value::Map(std::vec::Vec::new(), 0);
    let record = |fields: [(&str, Value); 10]| {
        Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
    };
    let inside = record([
        ("flag", Value::Bool(false)),
        ("mark", Value::Char('\0')),
        ("wide", Value::Signed(0)),
        ("title", text("")),
        ("row", numbers([0, 0, 0])),
        ("some", Value::Nothing),
        ("list", nothing()),
        ("next", Value::Nothing),
        ("by_name", no_map()),
        ("by_key", no_map()),
    ]);
    let variants = ["Frost", "Rain"].map(|name| Value::Variant(name.into()));
    let by_name = [("zero", 10), ("nine", 19)];
    let by_key = [(1, 1.5), (2, -2.0), (5, 0.5), (200, 1e10)];
    let wanted = record([
        ("flag", Value::Bool(true)),
        ("mark", Value::Char('ß')),
        ("wide", Value::Signed(-(1 << 100))),
        ("title", text("Gänse")),
        ("row", numbers([1, 2, 65535])),
        ("some", Value::Unsigned(9)),
        ("list", Value::List(variants.into(), 0)),
        ("next", inside),
        (
            "by_name",
            Value::Map(
                by_name
                    .map(|(key, n)| (text(key), Value::Unsigned(n)))
                    .into(),
                0,
            ),
        ),
        (
            "by_key",
            Value::Map(
                by_key
                    .map(|(key, n)| (Value::Unsigned(key), Value::F32(n)))
                    .into(),
                0,
            ),
        ),
    ]);
    assert_eq!(value, wanted);
}
