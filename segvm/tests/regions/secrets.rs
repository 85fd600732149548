//! What is never on disk.

use std::{fs, sync::Arc};

use segvm::{
    Attribute, BlockSize, Region, Rounds, Secret, Segment, SegmentOptions, Session, SessionOptions,
    World, region::RegionError,
};
use segvm_blockcache::disk::MemDisk;
use segvm_os::ModelKernel;

use crate::harness::*;

#[test]
fn a_secret_is_in_no_byte_of_the_store_over_checkpoints_rounds_and_suspends() {
    let store = tempfile::tempdir().unwrap();
    for life in 0..3_u64 {
        let session = open(store.path());
        let segment = session.segment("memory", 8 * MIB).unwrap();
        // In the middle: saved blocks before and behind.
        let secret = segment.region(8 * MIB, 6 * MIB, Attribute::Wipe).unwrap();
        segment.grow(24 * MIB).unwrap();
        assert!(secret.read().unwrap().bytes().iter().all(|&byte| byte == 0));
        for (n, rounds) in [Rounds::Auto, Rounds::Off, Rounds::Auto].iter().enumerate() {
            strew(secret.write().unwrap().bytes_mut(), SECRET);
            let mut public = paint(8 * MIB, 77 + life * 10 + n as u64);
            strew(&mut public, PUBLIC);
            segment.write(0, &public).unwrap();
            segment.write(14 * MIB, &public).unwrap();
            let saved = session.checkpoint_with(*rounds).unwrap();
            assert!(saved.rounds > 0 || *rounds == Rounds::Off, "{saved:?}");
        }
        // A small change beside a secret: its block is filled from live neighbours.
        strew(secret.write().unwrap().bytes_mut(), SECRET);
        segment.write(8 * MIB - 10, b"0123456789").unwrap();
        segment.write(14 * MIB, b"0123456789").unwrap();
        session.checkpoint().unwrap();
        strew(secret.write().unwrap().bytes_mut(), SECRET);
        segment.write(5, b"again").unwrap();
        let saved = session.suspend().unwrap();
        assert!(saved.changed);
        assert_eq!(count(store.path(), SECRET), 0);
        assert!(
            count(store.path(), PUBLIC) >= 4096,
            "the search finds what is there"
        );
    }
}

#[test]
fn a_secret_is_gone_after_a_restore_and_is_kept_out_of_dumps_again() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let secret = session.region("keys", MIB, Attribute::Wipe).unwrap();
    let other = session.segment("memory", MIB).unwrap();
    other.write(0, b"one").unwrap();
    session.checkpoint().unwrap();
    other.write(0, b"two").unwrap();
    session.checkpoint().unwrap();
    secret.write().unwrap().bytes_mut()[..3].copy_from_slice(b"key");
    assert!(is_secluded(&secret));
    session.restore("-1").unwrap();
    assert!(secret.read().unwrap().bytes().iter().all(|&byte| byte == 0));
    assert!(is_secluded(&secret));
    session.suspend().unwrap();
    let session = open(store.path());
    let secret = session.region("keys", MIB, Attribute::Wipe).unwrap();
    assert!(is_secluded(&secret));
    assert!(!is_secluded(
        &session.region("cache", MIB, Attribute::Drop).unwrap()
    ));
}

fn is_secluded(region: &Region) -> bool {
    let at = region.read().unwrap().bytes().as_ptr().addr();
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in maps.lines() {
        let span = line.split(' ').next().and_then(|span| span.split_once('-'));
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        if let Some((Some(start), Some(end))) = span.map(|(a, b)| (number(a), number(b))) {
            here = (start..end).contains(&at);
        }
        if here && line.starts_with("VmFlags:") {
            return line.contains(" dd") && line.contains(" dc");
        }
    }
    panic!("nothing at {at:#x}");
}

/// In a simulation, and with a kernel that refuses each call once: nothing of a region is ever copied, saved or lost sight of.
#[test]
fn a_kernel_that_fails_at_any_call_never_lets_a_region_be_saved() {
    fn live(world: &World, memory: &mut Option<(Session, Segment)>) -> Result<u64, String> {
        let session = SessionOptions::new()
            .store("/store")
            .world(world.clone())
            .open("image")
            .map_err(|error| error.to_string())?;
        let small = SegmentOptions::new()
            .block_size(BlockSize::MIN)
            .reserve(MIB);
        let segment = session
            .segment_with("memory", 64 << 10, &small)
            .map_err(|error| error.to_string())?;
        let region = segment
            .region(64 << 10, 64 << 10, Attribute::Wipe)
            .map_err(|error| error.to_string())?;
        let told = |error: RegionError| error.to_string();
        let mut pages = vec![0; 64 << 10];
        strew(&mut pages, SECRET);
        region
            .write()
            .map_err(told)?
            .copy_in(0, &pages)
            .map_err(told)?;
        segment
            .write(7, b"kept")
            .map_err(|error| error.to_string())?;
        let saved = session.checkpoint().map_err(|error| error.to_string())?;
        *memory = Some((session, segment));
        Ok(saved.bytes_blocks)
    }
    let world = |kernel: &ModelKernel, disk: &MemDisk| {
        World::with(Arc::new(kernel.clone()), Arc::new(disk.clone()))
    };
    let calls = {
        let kernel = ModelKernel::new();
        let mut kept = None;
        let blocks = live(&world(&kernel, &MemDisk::new()), &mut kept).unwrap();
        assert_eq!(blocks, 4096);
        kernel.calls()
    };
    let mut refused = 0;
    for nth in 1..=calls {
        let (kernel, disk) = (ModelKernel::new(), MemDisk::new());
        kernel.fail_nth(nth, 12);
        let mut kept = None;
        match live(&world(&kernel, &disk), &mut kept) {
            Ok(blocks) => assert_eq!(blocks, 4096, "with call {nth} refused"),
            Err(_said) => refused += 1,
        }
    }
    assert!(refused > 3, "{refused} of {calls}");
}

#[test]
fn a_secret_value_is_zeroed_when_it_is_dropped_and_its_place_is_used_again() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let make = |session: &Session, byte: u8| -> Secret<[u8; 48]> {
        session
            .secret(|key: &mut [u8; 48]| {
                assert_eq!(*key, [0; 48], "a place is zero");
                key[..SECRET.len()].copy_from_slice(SECRET);
                key[47] = byte;
            })
            .unwrap()
    };
    let place = |secret: &Secret<[u8; 48]>| secret.read(|key| key.as_ptr().addr()).unwrap();
    let (one, mut two) = (make(&session, 1), make(&session, 2));
    let (at_one, at_two) = (place(&one), place(&two));
    assert!(at_one.abs_diff(at_two) >= 48);
    two.write(|key| key[46] = 9).unwrap();
    assert_eq!(one.read(|key| (key[46], key[47])).unwrap(), (0, 1));
    drop(one);
    assert_eq!(two.read(|key| (key[46], key[47])).unwrap(), (9, 2));
    assert_eq!(place(&make(&session, 3)), at_one, "and was zero");
    let many: Vec<_> = (0..4000_u32).map(|n| make(&session, n as u8)).collect();
    assert!(
        many.iter()
            .enumerate()
            .all(|(n, secret)| secret.read(|key| key[47]).unwrap() == n as u8)
    );
    // Nobody else gets at it.
    let block = session.segment("segvm.secrets", 0).unwrap();
    let whole = block.region(0, 64 << 10, Attribute::Wipe).unwrap();
    assert!(matches!(
        whole.read().unwrap_err(),
        RegionError::HeldHere { .. }
    ));
    session
        .segment("other", MIB)
        .unwrap()
        .write(0, PUBLIC)
        .unwrap();
    session.checkpoint().unwrap();
    session.restore("-0").unwrap();
    assert!(matches!(
        two.read(|_| ()).unwrap_err(),
        RegionError::Gone { .. }
    ));
    let three = make(&session, 3);
    drop((two, many));
    assert_eq!(three.read(|key| key[47]).unwrap(), 3);
    session.suspend().unwrap();
    assert!(matches!(
        three.read(|_| ()).unwrap_err(),
        RegionError::Gate(_)
    ));
    drop(three);
    assert_eq!(
        (count(store.path(), SECRET), count(store.path(), PUBLIC)),
        (0, 1)
    );
    let session = open(store.path());
    let len = session.segment("segvm.secrets", 0).unwrap().len();
    make(&session, 1);
    assert_eq!(
        session.segment("segvm.secrets", 0).unwrap().len(),
        len,
        "regions are used again"
    );
}
