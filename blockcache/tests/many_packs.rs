//! However many packs a store has: what is there is found in the newest that has it, and what is nowhere asks nobody.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pack_support;

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use segvm_blockcache::{
    BlockId, PackId, ReadError, Store, StoreError, WriterOptions,
    disk::{CrashDisk, Disk, MemDisk, Open},
};

use pack_support::{Twin, paint, put, store};

fn block(seed: u64) -> BlockId {
    BlockId::of(&paint(seed, 4096))
}

fn pack(store: &Arc<Store>, id: u64, seeds: &[u64]) {
    let mut writer = store.writer(WriterOptions {
        id: Some(PackId(id)),
        ..WriterOptions::default()
    });
    let seeds: Vec<_> = seeds.iter().copied().map(Some).collect();
    put(&mut writer, 12, &seeds, &mut Twin::default()).unwrap();
    writer.seal().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_newest_pack_that_has_a_block_is_found(
        packs in prop::collection::vec(prop::collection::vec(0_u64..60, 1..5), 1..50),
        more in prop::collection::vec(prop::collection::vec(0_u64..60, 1..5), 0..25),
    ) {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut twin: HashMap<u64, u64> = HashMap::new();
        let first = store(&disk);
        for (id, seeds) in (100..).zip(&packs) {
            pack(&first, id, seeds);
            twin.extend(seeds.iter().map(|seed| (*seed, id)));
        }
        let second = store(&disk);
        let check = |store: &Store, twin: &HashMap<u64, u64>| {
            for seed in 0..62 {
                let place = store.locate(&block(seed)).unwrap();
                assert_eq!(place.map(|place| place.pack.0), twin.get(&seed).copied());
                if place.is_some() {
                    let mut bytes = vec![0; 4096];
                    store.read_block(&block(seed), &mut bytes).unwrap();
                    assert_eq!(bytes, paint(seed, 4096));
                }
            }
        };
        check(&first, &twin);
        check(&second, &twin);
        for (at, (id, seeds)) in (200..).zip(&more).enumerate() {
            pack(&second, id, seeds);
            twin.extend(seeds.iter().map(|seed| (*seed, id)));
            if at % 5 == 0 {
                check(&second, &twin);
            }
        }
        check(&second, &twin);
        // The other one looks for new packs when it misses something.
        for seed in twin.keys() {
            let mut bytes = vec![0; 4096];
            first.read_block(&block(*seed), &mut bytes).unwrap();
        }
        check(&store(&disk), &twin);
    }
}

#[test]
fn what_is_nowhere_asks_nobody() {
    let disk = CrashDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let first = store(&shared);
    for id in 0..50 {
        pack(&first, id, &[id, id + 1]);
    }
    let after = store(&shared);
    assert_eq!(after.locate(&block(1000)).unwrap(), None);
    // From now on whoever is asked, and does not know, cannot read.
    for id in 0..50 {
        let path = after.pack_path(PackId(id));
        disk.fail_reads(&path, 0..u64::MAX).unwrap();
    }
    let mut bytes = vec![0; 4096];
    let asked = (2000..2200)
        .filter(|seed| match after.read_block(&block(*seed), &mut bytes) {
            Err(ReadError::Absent { .. }) => false,
            Err(_) => true,
            Ok(()) => panic!("it is nowhere"),
        })
        .count();
    assert!(asked < 20, "{asked} of 200");
    assert!(matches!(
        after.read_block(&block(7), &mut bytes),
        Err(ReadError::Store { .. })
    ));
}

#[test]
fn a_damaged_pack_among_many_is_named_by_what_may_be_in_it() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let first = store(&disk);
    for id in 0..40 {
        pack(&first, id, &[id]);
    }
    // Directory and index both: what is in pack 20 is not known any more.
    let path = first.pack_path(PackId(20));
    let file = disk.open(&path, Open::Write).unwrap();
    let len = file.len().unwrap();
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let id = *block(20).as_bytes();
    for at in 0..bytes.len() - 32 {
        if bytes.get(at..at + 32) == Some(&id[..]) {
            file.write_at(at as u64, &[0xff; 32]).unwrap();
        }
    }
    let after = store(&disk);
    let mut bytes = vec![0; 4096];
    for seed in 0..40 {
        let found = after.locate(&block(seed)).unwrap();
        assert_eq!(found.is_some(), seed != 20);
    }
    match after.read_block(&block(20), &mut bytes) {
        Err(ReadError::Store {
            source: StoreError::Damaged { path: named, .. },
            ..
        }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}
