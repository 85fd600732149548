//! How fast a deep check is, against reading the same packs and hashing the same bytes alone.
//!
//! `cargo run --release -p segvm-blockcache --example fsck_speed -- [DIR] [MIB]`

#![expect(clippy::unwrap_used, reason = "a measurement ends by panicking")]

use std::{
    hint::black_box,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, CommitId, Store, Tree, TreeRoot, WriterOptions,
    disk::{Disk, Open, RealDisk},
    fsck::{Depth, Options, check},
};
use segvm_os::AlignedBuf;

const MIB: usize = 1 << 20;

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn rate(bytes: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / time.as_secs_f64() / 1e9
}

fn fill(store: &Arc<Store>, bytes: usize) -> TreeRoot {
    let size = BlockSize::DEFAULT;
    let mut writer = store.writer(WriterOptions::default());
    let mut tree = Tree::new(size, bytes as u64).unwrap();
    let mut index = 0;
    while index < (bytes / size.bytes()) as u64 {
        let left = bytes / size.bytes() - usize::try_from(index).unwrap();
        let room = writer.room(size, left.min(64)).unwrap();
        let mut ids = Vec::new();
        for block in room.chunks_mut(size.bytes()) {
            let mut seed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for word in block.chunks_mut(8) {
                seed = seed.rotate_left(17).wrapping_mul(0xd129_0d3a_4c8b_5a2f) ^ 0x5bf0_3635;
                word.copy_from_slice(&seed.to_le_bytes());
            }
            let id = BlockId::of(block);
            tree.set(&**store, BlockIndex(index), Some(id)).unwrap();
            ids.push(Some(id));
            index += 1;
        }
        writer.keep(&ids).unwrap();
    }
    let id = tree.seal(&mut writer).unwrap();
    writer.seal().unwrap();
    TreeRoot {
        image: "speed".into(),
        commit: CommitId::of(b"speed"),
        segment: "raw".into(),
        tree: id,
        len: bytes as u64,
        block_size: size,
    }
}

/// The same bytes read directly, a MiB at a time, by two threads.
fn read(store: &Store) {
    let disk = store.disk();
    let names = disk.list(store.packs_dir()).unwrap();
    for name in names {
        let file = disk
            .open(&store.packs_dir().join(name), Open::Read)
            .unwrap();
        let len = usize::try_from(file.len().unwrap()).unwrap();
        thread::scope(|scope| {
            for first in 0..2 {
                let file = &file;
                scope.spawn(move || {
                    let mut buf = AlignedBuf::zeroed(MIB).unwrap();
                    for at in (first * MIB..len).step_by(2 * MIB) {
                        let buf = buf.split_at_mut(MIB.min(len - at)).0;
                        file.read_direct(at as u64, buf).unwrap();
                    }
                });
            }
        });
    }
}

fn hash(bytes: usize) {
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let block = vec![7; BlockSize::DEFAULT.bytes()];
                for _ in 0..bytes / 2 / block.len() {
                    black_box(BlockId::of(black_box(&block)));
                }
            });
        }
    });
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: usize = args.next().map_or(256, |mib| mib.parse().unwrap());
    let bytes = mib * MIB;
    let dir = tempfile::tempdir_in(dir).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = Store::open(disk, dir.path().to_owned()).unwrap();
    let root = fill(&store, bytes);
    println!("GB/s, {mib} MiB: reading alone, hashing alone, deep check, structure (ms)");
    for _ in 0..5 {
        let reading = timed(|| read(&store));
        let hashing = timed(|| hash(bytes));
        let check = |depth| {
            let options = Options {
                depth,
                ..Options::default()
            };
            let root = std::slice::from_ref(&root);
            let report = check(&store, root, &[], options, &mut |_| {}).unwrap();
            assert!(report.findings.is_empty());
        };
        let deep = timed(|| check(Depth::Deep));
        let structure = timed(|| check(Depth::Structure));
        println!(
            "{:.2} {:.2} {:.2} {:.1}; of the slower: {:.2}",
            rate(bytes, reading),
            rate(bytes, hashing),
            rate(bytes, deep),
            structure.as_secs_f64() * 1e3,
            reading.max(hashing).as_secs_f64() / deep.as_secs_f64(),
        );
    }
}
