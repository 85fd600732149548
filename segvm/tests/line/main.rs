//! Several processes and one image: who is stolen from, who reads, who branches. Each process is a model kernel of its own, all
//! on one disk, so that one test is all of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

mod branches;
mod histories;
mod lost;
mod orphans;
mod readers;
#[path = "../support/mod.rs"]
mod support;
mod verifying;

use std::{path::Path, sync::Arc};

use segvm::{OpenError, Segment, SegmentOptions, Session, SessionOptions, World};
use segvm_blockcache::{BlockSize, disk::MemDisk};
use segvm_os::ModelKernel;

const LEN: usize = 256 << 10;

/// Options for a process of its own on that disk.
fn process(disk: &MemDisk) -> SessionOptions {
    let world = World::with(Arc::new(ModelKernel::new()), Arc::new(disk.clone()));
    SessionOptions::new()
        .store(Path::new("/store"))
        .world(world)
}

fn memory(session: &Session) -> Segment {
    let small = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(LEN);
    session.segment_with("memory", LEN, &small).unwrap()
}

fn write(disk: &MemDisk, image: &str) -> (Session, Segment) {
    with(&process(disk), image)
}

fn read(disk: &MemDisk, image: &str) -> (Session, Segment) {
    with(&process(disk).reader(), image)
}

fn steal(disk: &MemDisk, image: &str) -> (Session, Segment) {
    with(&process(disk).steal(), image)
}

fn with(options: &SessionOptions, image: &str) -> (Session, Segment) {
    let session = options.open(image).unwrap();
    let segment = memory(&session);
    (session, segment)
}

fn refused(options: &SessionOptions, image: &str) -> OpenError {
    options.open(image).unwrap_err()
}

fn say(segment: &Segment, text: &str) {
    segment.write(0, format!("{text:<16}").as_bytes()).unwrap();
    // And something far away, so that the tree has more than one node in play.
    segment
        .write(LEN - 16, format!("{text:<16}").as_bytes())
        .unwrap();
}

fn said(segment: &Segment) -> String {
    let (mut first, mut last) = ([0; 16], [0; 16]);
    segment.read(0, &mut first).unwrap();
    segment.read(LEN - 16, &mut last).unwrap();
    assert_eq!(first, last, "half of a change");
    let text = String::from_utf8_lossy(&first).into_owned();
    text.trim_end_matches([' ', '\0']).to_owned()
}
