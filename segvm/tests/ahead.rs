//! Pages copied ahead of the pause, while the program goes on: a checkpoint is one instant all the same.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use segvm::{CheckpointError, Segment, SegmentOptions, Session, SessionOptions, World};
use segvm_blockcache::disk::CrashDisk;
use segvm_os::ModelKernel;

const PAGE: usize = 4096;
const PAGES: usize = 6144;
const LEN: usize = PAGES * PAGE;

fn open(kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> (Session, Segment) {
    let world = World::with(Arc::<ModelKernel>::clone(kernel), Arc::new(disk.clone()));
    let options = SessionOptions::new()
        .store(Path::new("/store"))
        .world(world);
    let session = options.open("image").unwrap();
    let reserve = SegmentOptions::new().reserve(LEN);
    let segment = session.segment_with("memory", LEN, &reserve).unwrap();
    (session, segment)
}

/// Where write `n` goes: all over memory, and every now and then where the one before went.
fn place(n: u64) -> usize {
    let page = (n - u64::from(n.is_multiple_of(5))).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    page as usize % PAGES * PAGE
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Memory after so many writes: the first [`PAGES`] fill it in order.
fn after(writes: u64) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    for n in 1..=writes {
        let at = if n <= PAGES as u64 {
            (n as usize - 1) * PAGE
        } else {
            place(n)
        };
        bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
    }
    bytes
}

/// What is stored must be memory after some write and before the next; answers after which.
fn whole(segment: &Segment) -> u64 {
    let mut found = vec![0; LEN];
    segment.read(0, &mut found).unwrap();
    let last = (0..PAGES).map(|page| word(&found, page * PAGE)).max();
    let expected = after(last.unwrap());
    let differs = (0..LEN)
        .step_by(8)
        .find(|&at| word(&found, at) != word(&expected, at));
    assert!(
        differs.is_none(),
        "byte {differs:?} is not what it was after write {last:?}"
    );
    last.unwrap()
}

/// A program that writes a page for every `pace` that is copied.
fn beside_a_writer(pace: u64) -> (u64, u64) {
    let disk = CrashDisk::new(1);
    let kernel = Arc::new(ModelKernel::new());
    let (session, segment) = open(&kernel, &disk);
    for n in 1..=PAGES as u64 {
        segment
            .write((n as usize - 1) * PAGE, &n.to_le_bytes())
            .unwrap();
    }
    let base = segment.as_ptr() as usize;
    let written = Arc::new(AtomicU64::new(PAGES as u64));
    let (count, mut copied) = (Arc::clone(&written), 0);
    kernel.on_copy(move |kernel, _| {
        copied += 1;
        if copied % pace == 0 {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            kernel.write(base + place(n), &n.to_le_bytes()).unwrap();
        }
    });
    let first = session.checkpoint().unwrap();
    let until_then = written.load(Ordering::Relaxed);
    drop((segment, session));

    let kernel = Arc::new(ModelKernel::new());
    let (session, segment) = open(&kernel, &disk);
    let instant = whole(&segment);
    assert!(
        PAGES as u64 + 100 < instant && instant <= until_then,
        "the instant is write {instant} of {until_then}"
    );
    session.suspend().unwrap();
    (first.bytes_paused, u64::from(first.rounds))
}

#[test]
fn what_is_written_while_pages_are_copied_is_there_as_it_was_at_the_pause() {
    for pace in [2, 3, 7] {
        let (paused, rounds) = beside_a_writer(pace);
        assert_eq!(rounds, 1, "only a long list is stored before the pause");
        // Without copies ahead half of what the first round copied, 12 MiB, would be dirty again.
        assert!(
            paused < 2 << 20,
            "{paused} bytes were left to the pause at pace {pace}"
        );
    }
}

/// One dirty page for each that is copied: no list gets shorter, and nobody runs after it.
#[test]
fn a_writer_as_fast_as_the_copies_is_not_chased() {
    let (paused, rounds) = beside_a_writer(1);
    assert!(rounds <= 4, "{rounds} rounds");
    assert!(paused > 2 << 20, "{paused} bytes");
}

/// What was copied ahead of a pause that fails is captured by the next checkpoint, as it is then.
#[test]
fn a_checkpoint_that_fails_after_copies_ahead_loses_nothing() {
    let mut compared = 0;
    for later in 0..40 {
        let disk = CrashDisk::new(1);
        let kernel = Arc::new(ModelKernel::new());
        let (session, segment) = open(&kernel, &disk);
        session.checkpoint().unwrap();
        let dirty: Vec<u8> = (0..3 << 20).map(|at| (at % 251) as u8 | 1).collect();
        segment.write(PAGE, &dirty).unwrap();
        disk.fail_operation(disk.operations() + later, 28);
        let failed = session.checkpoint().is_err();
        let mut now = vec![0; LEN];
        segment.write(2 * PAGE, &[9; 100]).unwrap();
        segment.read(0, &mut now).unwrap();
        match session.checkpoint() {
            Ok(_) => {}
            // The record itself may be half-written: only the next session can tell.
            Err(CheckpointError::Publish(_)) if failed => continue,
            Err(error) => panic!("after operation {later} failed: {error}"),
        }
        compared += usize::from(failed);
        drop((segment, session));
        let (_session, segment) = open(&Arc::new(ModelKernel::new()), &disk);
        let mut found = vec![0; LEN];
        segment.read(0, &mut found).unwrap();
        assert!(
            found == now,
            "operation {later} failed, and the next checkpoint has other bytes"
        );
        if !failed {
            assert!(compared > 3, "only {compared} failures were gone on from");
            return;
        }
    }
    panic!("every operation failed");
}
