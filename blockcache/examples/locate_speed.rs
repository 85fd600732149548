//! What it costs to look for a block that is nowhere, and for one that is there, in a store of many packs.
//!
//! `cargo run --release -p segvm-blockcache --example locate_speed -- [PACKS] [BLOCKS IN EACH]`

#![expect(clippy::unwrap_used, reason = "a measurement ends by panicking")]

use std::{sync::Arc, time::Instant};

use segvm_blockcache::{
    BlockId, BlockSize, Store, WriterOptions,
    disk::{Disk, MemDisk},
};

const LOOKS: u64 = 20_000;

fn bytes(seed: u64) -> [u8; 4096] {
    let mut bytes = [0; 4096];
    for (word, n) in bytes.chunks_mut(8).zip(seed << 20..) {
        word.copy_from_slice(&n.to_le_bytes());
    }
    bytes
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().unwrap());
    let packs: u64 = args.next().unwrap_or(2000);
    let blocks: u64 = args.next().unwrap_or(64);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = Store::open(disk.clone(), "/store".into()).unwrap();
    for pack in 0..packs {
        let mut writer = store.writer(WriterOptions::default());
        for block in 0..blocks {
            let room = writer.room(BlockSize::MIN, 1).unwrap();
            room.copy_from_slice(&bytes(pack * blocks + block));
            let id = BlockId::of(room);
            writer.keep(&[Some(id)]).unwrap();
        }
        writer.seal().unwrap();
    }
    drop(store);
    let here: Vec<BlockId> = (0..packs * blocks)
        .step_by(usize::try_from(packs * blocks / LOOKS).unwrap().max(1))
        .map(|seed| BlockId::of(&bytes(seed)))
        .collect();
    let nowhere: Vec<BlockId> = (0..LOOKS).map(|n| BlockId::of(&n.to_le_bytes())).collect();

    let start = Instant::now();
    let store = Store::open(disk, "/store".into()).unwrap();
    println!("open: {:?}", start.elapsed());
    let start = Instant::now();
    assert!(store.locate(&BlockId::of(b"nowhere")).unwrap().is_none());
    println!(
        "first look, {packs} packs of {blocks} blocks: {:?}",
        start.elapsed()
    );
    for (what, ids) in [("nowhere", nowhere), ("here", here)] {
        let start = Instant::now();
        let found = ids
            .iter()
            .filter(|id| store.locate(id).unwrap().is_some())
            .count();
        let each = start.elapsed() / u32::try_from(ids.len()).unwrap();
        println!("{what}: {each:?} each ({found} of {} found)", ids.len());
    }
}
