//! A block or node that is in several packs is read as long as one copy is good, and whoever listens is told of the others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it is surprised"
)]

mod pack_support;

use std::{path::PathBuf, sync::Arc};

use pack_support::{Twin, paint, put};
use parking_lot::Mutex;
use segvm_blockcache::{
    BlockId, NodeId, NodeReadError, NodeSink as _, NodeSource as _, PackId, Place, ReadError,
    Store, StoreError, WriterOptions,
    disk::{CrashDisk, Disk},
};

const NODE: &[u8] = b"the bytes of a node";

/// Three packs, each with the same block and node; and where the block lies in each.
fn three() -> (CrashDisk, Vec<Place>) {
    let disk = CrashDisk::new(1);
    let store = open(&disk);
    let mut writers = Vec::new();
    let mut places = Vec::new();
    for id in 1..=3 {
        let mut writer = store.writer(WriterOptions {
            id: Some(PackId(id)),
            ..WriterOptions::default()
        });
        // So that it lies somewhere else in each.
        let seeds: Vec<Option<u64>> = (0..id)
            .map(|n| Some(100 * id + n))
            .chain([Some(7)])
            .collect();
        put(&mut writer, 12, &seeds, &mut Twin::default()).unwrap();
        writer.put_node(NodeId::of(NODE), NODE).unwrap();
        places.push(writer.locate(&block()).unwrap());
        writers.push(writer);
    }
    for writer in writers {
        writer.seal().unwrap();
    }
    (disk, places)
}

fn block() -> BlockId {
    BlockId::of(&paint(7, 4096))
}

fn open(disk: &CrashDisk) -> Arc<Store> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk, PathBuf::from("/store")).unwrap()
}

/// What a store tells of bad copies.
fn listen(store: &Store) -> Arc<Mutex<Vec<(PathBuf, u64)>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    store.on_bad_copy(move |bad| {
        assert!(
            bad.to_string().contains(&format!("offset {}", bad.offset)),
            "{bad}"
        );
        tell.lock().push((bad.path.clone(), bad.offset));
    });
    told
}

fn flip(disk: &CrashDisk, store: &Store, place: &Place) {
    let at = usize::try_from(place.offset).unwrap();
    disk.flip(&store.pack_path(place.pack), at + 5..at + 6)
        .unwrap();
}

fn read(store: &Store) -> Result<(), ReadError> {
    let mut out = vec![0; 4096];
    store.read_block(&block(), &mut out)?;
    assert_eq!(out, paint(7, 4096));
    Ok(())
}

#[test]
fn a_block_is_read_while_one_copy_is_good() {
    for good in 0..3 {
        let (disk, places) = three();
        let store = open(&disk);
        let told = listen(&store);
        let mut bad = Vec::new();
        for (at, place) in places.iter().enumerate().filter(|(at, _)| *at != good) {
            let path = store.pack_path(place.pack);
            // One is damaged, the other cannot be read.
            if at == (good + 1) % 3 {
                flip(&disk, &store, place);
            } else {
                let range = place.offset..place.offset + 1;
                disk.fail_reads(&path, range).unwrap();
            }
            bad.push((path, place.offset));
        }
        for _ in 0..3 {
            read(&store).unwrap();
        }
        let told = told.lock().clone();
        assert!(told.iter().all(|copy| bad.contains(copy)), "{told:?}");
        // The newest pack is asked first: that copy is met unless it is the good one. Each is told of once.
        assert_eq!(told.len(), 2 - good, "{told:?}");
        // From where it is known to lie: the others are tried, too.
        let mut out = vec![0; 4096];
        for place in &places {
            store.read_best(&block(), *place, &mut out).unwrap();
            assert_eq!(out, paint(7, 4096));
        }
    }
}

#[test]
fn every_bad_copy_is_named_where_none_is_good() {
    let (disk, places) = three();
    let store = open(&disk);
    let told = listen(&store);
    for place in &places {
        flip(&disk, &store, place);
    }
    let error = read(&store).unwrap_err();
    let text = error.to_string();
    for place in &places {
        let path = store.pack_path(place.pack);
        let wanted = format!("offset {} of {}", place.offset, path.display());
        assert!(text.contains(&wanted), "no `{wanted}` in: {text}");
    }
    assert!(matches!(error, ReadError::EveryCopy { copies, .. } if copies.len() == 3));
    assert!(told.lock().is_empty(), "the error says it");
    // A buffer of the wrong length is no damage.
    let short = store.read_block(&block(), &mut [0; 8]);
    assert!(matches!(short, Err(ReadError::Length { .. })), "{short:?}");
}

#[test]
fn a_node_is_read_while_one_copy_is_good() {
    let (disk, _) = three();
    let store = open(&disk);
    let told = listen(&store);
    let find = |pack: u64| {
        let path = store.pack_path(PackId(pack));
        let file = disk
            .open(&path, segvm_blockcache::disk::Open::Read)
            .unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        let at = bytes
            .windows(NODE.len())
            .position(|window| window == NODE)
            .unwrap();
        (path, at)
    };
    for pack in [3, 2] {
        let (path, at) = find(pack);
        disk.flip(&path, at..at + 1).unwrap();
    }
    assert_eq!(store.node(NodeId::of(NODE)).unwrap(), NODE);
    assert_eq!(told.lock().len(), 2);
    let (path, at) = find(1);
    disk.flip(&path, at..at + 1).unwrap();
    match store.node(NodeId::of(NODE)) {
        Err(NodeReadError::Damaged { source, .. }) => {
            let source = source.downcast::<StoreError>().unwrap();
            assert!(matches!(*source, StoreError::EveryCopy { copies } if copies.len() == 3));
        }
        other => panic!("{other:?}"),
    }
}
