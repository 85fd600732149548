//! What `Schema::to_rust` writes for `Library`, but for `pub(super)`.
#![allow(dead_code, reason = "only its schema is looked at")]

#[derive(segvm::Persist)]
#[repr(C)]
pub(super) struct OldLibrary {
    by_title: segvm::HashMap<segvm::Text, OldBook>,
    by_place: segvm::BTreeMap<OldPlace, segvm::Vec<segvm::Text>>,
    first: OldChain,
    opened: u64,
    r#type: segvm::Maybe<OldWeather>,
    rows: [OldPlace; 3],
    pair: OldPair,
}

#[derive(segvm::Persist)]
#[repr(C)]
pub(super) struct OldBook {
    pages: u32,
    lent: bool,
}

#[derive(segvm::Persist, Clone, Copy, Debug)]
#[repr(C, align(16))]
#[persist(plain, key, version = 3)]
pub(super) struct OldPlace {
    shelf: u16,
    mark: char,
}

#[derive(segvm::Persist)]
#[repr(C)]
pub(super) struct OldChain {
    next: segvm::Box<OldChain>,
    value: i128,
}

#[derive(segvm::Persist, Clone, Copy, Debug)]
#[repr(i8)]
pub(super) enum OldWeather {
    Frost = -1,
    Unknown = 0,
    Rain = 1,
}

#[derive(segvm::Persist)]
#[repr(C)]
pub(super) struct OldPair(f64, segvm::Text);
