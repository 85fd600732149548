#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops where it is surprised"
)]

use std::convert::Infallible;

use super::{
    Cut, Flaw, InspectError, Limits, RootInfo, Segment, SegmentBytes, Value, roots, value,
};
use crate::{
    collections::{BTreeMap, Box, HashMap, Text, Vec},
    gate::Gate,
    heap::{Heap, MemorySpace, UNIT},
    persist::{Maybe, Persist},
    root::HeapShared,
};

#[derive(Persist)]
#[repr(C)]
struct All {
    numbers: Numbers,
    title: Text,
    by_name: HashMap<Text, Vec<u16>>,
    by_number: BTreeMap<u32, Place>,
    some: Maybe<i64>,
    none: Maybe<i64>,
    kind: Kind,
    chain: Box<Link>,
    row: [Place; 2],
}

#[derive(Persist, Clone, Copy)]
#[repr(C)]
#[persist(plain)]
struct Numbers {
    small: i8,
    wide: u128,
    deep: i128,
    half: f32,
    whole: f64,
    mark: char,
    yes: bool,
}

#[derive(Persist, Clone, Copy, Debug)]
#[repr(C)]
#[persist(plain, key)]
struct Place {
    x: i16,
    y: u64,
}

#[derive(Persist)]
#[repr(C)]
struct Link {
    next: Box<Link>,
    n: u8,
}

#[derive(Persist, Clone, Copy)]
#[repr(i16)]
enum Kind {
    Least = -300,
    None = 0,
    Most = 7,
}

/// The bytes of a heap, copied.
struct Copied(std::vec::Vec<u8>);

impl SegmentBytes for Copied {
    type Error = Infallible;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Infallible> {
        let from = offset as usize;
        out.copy_from_slice(&self.0[from..from + out.len()]);
        Ok(())
    }
}

fn filled() -> Segment<Copied> {
    let heap = Heap::create(std::boxed::Box::new(MemorySpace::new(64 * UNIT)), 7).unwrap();
    let shared = HeapShared::new(heap, Gate::new(), "all".into(), "heap".into());
    let root = shared.root::<All>("all").unwrap();
    {
        let mut guard = root.write();
        let mut all = guard.as_mut();
        *all.numbers = Numbers {
            small: -5,
            wide: u128::MAX,
            deep: i128::MIN,
            half: 0.5,
            whole: -1e300,
            mark: 'ß',
            yes: true,
        };
        all.title.push_str("Größe");
        for name in ["one", "two", "three"] {
            all.by_name.insert(name, &[1_u16, 2, 3][..]);
        }
        all.by_name.remove("two");
        for n in 0..300 {
            let place = Place { x: -1, y: n.into() };
            all.by_number.insert(n, place);
        }
        all.some.set(-9);
        *all.kind = Kind::Least;
        let mut link = all.chain.get_or_default();
        for n in 0..5 {
            *link.n = n;
            link = { link.next }.into_default();
        }
        all.row[1].y = 4;
    }
    let _second = shared.root::<u64>("count").unwrap();
    let heap = shared.heap();
    let len = heap.usage().held as usize;
    // SAFETY: the heap's bytes up to what it holds, which nobody changes meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(heap.base().as_ptr(), len) };
    Segment {
        bytes: Copied(bytes.to_vec()),
        base: heap.base().addr().get() as u64,
        len: len as u64,
    }
}

trait IntoDefault<'a, T: Persist> {
    fn into_default(self) -> T::Mut<'a>;
}

impl<'a, T: Persist> IntoDefault<'a, T> for crate::collections::BoxMut<'a, T> {
    fn into_default(mut self) -> T::Mut<'a> {
        drop(self.get_or_default());
        self.into_mut().unwrap()
    }
}

fn read(segment: &mut Segment<Copied>, root: &RootInfo, limits: Limits) -> Value {
    let schema = root.schema.as_ref().unwrap().as_ref().unwrap();
    value(segment, schema, root.address, limits).unwrap()
}

fn field(value: &Value, name: &str) -> Value {
    let Value::Record(fields) = value else {
        panic!("{value:?}");
    };
    let found = fields.iter().find(|(field, _)| field == name);
    found.unwrap().1.clone()
}

#[test]
fn every_kind_of_value_is_read_as_it_was_written() {
    let mut segment = filled();
    let roots = roots(&mut segment).unwrap();
    let names: std::vec::Vec<_> = roots.iter().map(|root| &*root.name).collect();
    assert_eq!(names, ["all", "count"]);
    assert_eq!(
        read(&mut segment, &roots[1], Limits::default()),
        Value::Unsigned(0)
    );
    let all = read(
        &mut segment,
        &roots[0],
        Limits {
            items: 1000,
            ..Limits::default()
        },
    );
    let numbers = field(&all, "numbers");
    assert_eq!(field(&numbers, "small"), Value::Signed(-5));
    assert_eq!(field(&numbers, "wide"), Value::Unsigned(u128::MAX));
    assert_eq!(field(&numbers, "deep"), Value::Signed(i128::MIN));
    assert_eq!(field(&numbers, "half"), Value::F32(0.5));
    assert_eq!(field(&numbers, "whole"), Value::F64(-1e300));
    assert_eq!(field(&numbers, "mark"), Value::Char('ß'));
    assert_eq!(field(&numbers, "yes"), Value::Bool(true));
    assert_eq!(field(&all, "title"), Value::Text("Größe".into(), 0));
    assert_eq!(field(&all, "some"), Value::Signed(-9));
    assert_eq!(field(&all, "none"), Value::Nothing);
    assert_eq!(field(&all, "kind"), Value::Variant("Least".into()));
    let Value::Map(mut by_name, 0) = field(&all, "by_name") else {
        panic!("{all:?}");
    };
    by_name.sort_by_key(|(key, _)| format!("{key:?}"));
    let one_two_three = Value::List((1..4).map(Value::Unsigned).collect(), 0);
    assert_eq!(
        by_name,
        [
            (Value::Text("one".into(), 0), one_two_three.clone()),
            (Value::Text("three".into(), 0), one_two_three),
        ]
    );
    let Value::Map(by_number, 0) = field(&all, "by_number") else {
        panic!("{all:?}");
    };
    assert_eq!(by_number.len(), 300);
    for (n, (key, place)) in (0..).zip(&by_number) {
        assert_eq!(*key, Value::Unsigned(n));
        assert_eq!(field(place, "x"), Value::Signed(-1));
        assert_eq!(field(place, "y"), Value::Unsigned(n));
    }
    let mut link = field(&all, "chain");
    for n in 0..5 {
        assert_eq!(field(&link, "n"), Value::Unsigned(n));
        link = field(&link, "next");
    }
    let Value::List(row, 0) = field(&all, "row") else {
        panic!("{all:?}");
    };
    assert_eq!(field(&row[1], "y"), Value::Unsigned(4));
}

#[test]
fn what_is_too_much_is_cut_and_says_how_much_more_there_is() {
    let mut segment = filled();
    let roots = roots(&mut segment).unwrap();
    let few = Limits {
        items: 7,
        depth: 6,
        text: 3,
        ..Limits::default()
    };
    let all = read(&mut segment, &roots[0], few);
    // A character that would be cut in two is left out.
    assert_eq!(field(&all, "title"), Value::Text("Gr".into(), 5));
    assert!(matches!(field(&all, "by_number"), Value::Map(entries, 293) if entries.len() == 7));
    assert!(format!("{all:?}").contains("Cut(Depth)"));
    let nothing = Limits {
        values: 3,
        ..Limits::default()
    };
    assert!(format!("{:?}", read(&mut segment, &roots[0], nothing)).contains("Cut(Enough)"));
}

fn put(segment: &mut Segment<Copied>, address: u64, bytes: &[u8]) {
    let at = (address - segment.base) as usize;
    segment.bytes.0[at..at + bytes.len()].copy_from_slice(bytes);
}

fn offset_of(root: &RootInfo, name: &str) -> u64 {
    let schema = root.schema.as_ref().unwrap().as_ref().unwrap();
    let crate::schema::Kind::Struct(all) = &schema.types()[0].kind else {
        panic!("{schema}");
    };
    let field = all.fields.iter().find(|field| field.name == name).unwrap();
    root.address + field.offset
}

/// Each lie in its place, and everything around it as it was.
#[test]
fn lies_are_named_where_they_stand() {
    let mut segment = filled();
    let root = roots(&mut segment).unwrap().remove(0);
    let (base, len) = (segment.base, segment.len);
    let far = (base + len - 4).to_le_bytes();
    let lies: [(&str, u64, &[u8], &str); 12] = [
        (
            "title",
            16,
            &u64::MAX.to_le_bytes(),
            "longer than it has room for",
        ),
        ("title", 0, &far, "a text that leads out of the segment"),
        (
            "title",
            0,
            &(base + 3).to_le_bytes(),
            "a text that is not UTF-8",
        ),
        (
            "by_name",
            8,
            &1_u64.to_le_bytes(),
            "a hash map whose table makes no sense",
        ),
        (
            "by_name",
            8,
            &(1_u64 << 63).to_le_bytes(),
            "a hash map whose table makes no sense",
        ),
        (
            "by_name",
            16,
            &1_u64.to_le_bytes(),
            "a hash map with more entries than it says",
        ),
        (
            "by_name",
            16,
            &9_u64.to_le_bytes(),
            "a hash map with fewer entries than it says",
        ),
        ("by_number", 0, &far, "a node outside the segment"),
        (
            "by_number",
            8,
            &99_u64.to_le_bytes(),
            "a tree that is too high",
        ),
        ("some", 0, &[2], "neither a value nor none"),
        ("kind", 0, &[9], "a number that no variant has"),
        (
            "chain",
            0,
            &7_u64.to_le_bytes(),
            "a box that leads out of the segment",
        ),
    ];
    for (name, at, bytes, what) in lies {
        let mut segment = filled();
        // Another heap, at another address.
        let root = roots(&mut segment).unwrap().remove(0);
        let moved = |bytes: &[u8]| match <[u8; 8]>::try_from(bytes) {
            Ok(word) if (base..base + len).contains(&u64::from_le_bytes(word)) => {
                (u64::from_le_bytes(word) - base + segment.base)
                    .to_le_bytes()
                    .to_vec()
            }
            _ => bytes.to_vec(),
        };
        let bytes = moved(bytes);
        let place = offset_of(&root, name) + at;
        if what == "a text that is not UTF-8" {
            let text = u64::from_le_bytes(segment.array(place - segment.base).unwrap());
            put(&mut segment, text, &[0xff]);
        } else {
            put(&mut segment, place, &bytes);
        }
        let all = read(
            &mut segment,
            &root,
            Limits {
                items: 1000,
                ..Limits::default()
            },
        );
        let Value::Flaw(Flaw { what: found, .. }) = field(&all, name) else {
            panic!("{name} {what}: {all:?}");
        };
        assert_eq!(found, what);
        assert_eq!(field(&field(&all, "numbers"), "small"), Value::Signed(-5));
    }
    let place = offset_of(&root, "chain");
    let link = u64::from_le_bytes(segment.array(place - base).unwrap());
    put(&mut segment, link, &link.to_le_bytes());
    let all = read(&mut segment, &root, Limits::default());
    assert!(
        format!("{:?}", field(&all, "chain")).contains(&format!("{:?}", Value::Cut(Cut::Depth)))
    );
}

/// Any byte of the root, of what it owns and of the heap's own tables changed: an answer all the same.
#[test]
fn bytes_that_are_anything_have_an_answer() {
    let whole = filled();
    let limits = Limits {
        items: 20,
        values: 2000,
        ..Limits::default()
    };
    let mut seed = 0x9e37_79b9_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let used: std::vec::Vec<usize> = (0..whole.bytes.0.len())
        .filter(|&at| at < 256 || whole.bytes.0[at] != 0)
        .collect();
    let mut refused = 0;
    for _ in 0..3000 {
        let mut segment = Segment {
            bytes: Copied(whole.bytes.0.clone()),
            base: whole.base,
            len: whole.len,
        };
        for _ in 0..3 {
            let at = used[random() as usize % used.len()];
            segment.bytes.0[at] = random() as u8;
        }
        match roots(&mut segment) {
            Ok(roots) => {
                for root in &roots {
                    if let Some(Ok(schema)) = &root.schema {
                        let _any = value(&mut segment, schema, root.address, limits).unwrap();
                    }
                }
            }
            Err(InspectError::Read(never)) => match never {},
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    // A segment that ends anywhere.
    for len in (0..whole.len).step_by(4099) {
        let mut segment = Segment {
            bytes: Copied(whole.bytes.0[..len as usize].to_vec()),
            base: whole.base,
            len,
        };
        let _any = roots(&mut segment);
    }
}
