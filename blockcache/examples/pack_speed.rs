//! Measures a pack against the bare disk: the same bytes by 1 MiB direct writes and one `fdatasync`.
//!
//! `cargo run --release -p segvm-blockcache --example pack_speed [MiB] [DIRECTORY]`
//!
//! Our side copies every block out of the memory it lies in, hashes it, and makes directory and header; then it is
//! adopted as after a crash, and looked up block by block. The sides alternate three times.

use std::{
    error::Error,
    fs::OpenOptions,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, Layout, PackMark, Store, Tree, TreeId, WriterOptions,
    disk::RealDisk,
};

const MIB: usize = 1 << 20;
const ALIGN: usize = 4096;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let mib: usize = args.next().map_or(Ok(1024), |n| n.parse())?;
    let directory = args.next().unwrap_or_else(|| "/tmp".to_owned());
    let scratch = tempfile::Builder::new()
        .prefix("pack-speed")
        .tempdir_in(directory)?;

    let memory = noise(mib * MIB + ALIGN);
    let skip = memory.as_ptr().align_offset(ALIGN);
    let bytes = memory.get(skip..skip + mib * MIB).unwrap_or_default();
    let mut ratios = Vec::new();
    for round in 1..=3 {
        let bare = bare(&scratch.path().join("bare"), bytes)?;
        let ours = ours(&scratch.path().join("store"), bytes)?;
        let ratio = ours.stored.as_secs_f64() / bare.as_secs_f64();
        ratios.push(ratio);
        println!(
            "round {round}: bare {bare:.3?}, ours {:.3?} = {ratio:.3}; adopted in {:.3?}, first look-up {:.3?}, \
             then {:.0?} each; extents rebuilt in {:.1?}, 4,096 loaded in {:.0?}",
            ours.stored, ours.adopted, ours.first, ours.each, ours.rebuilt, ours.extents
        );
    }
    ratios.sort_by(f64::total_cmp);
    if let [_, median, _] = ratios[..] {
        println!("median {median:.3} for {mib} MiB");
    }
    Ok(())
}

/// Bytes that no disk compresses and no two blocks share.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn bare(path: &Path, bytes: &[u8]) -> Outcome<Duration> {
    let start = Instant::now();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    for (at, piece) in (0..).step_by(MIB).zip(bytes.chunks(MIB)) {
        file.write_all_at(piece, at)?;
    }
    file.sync_data()?;
    let took = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

struct Ours {
    stored: Duration,
    adopted: Duration,
    first: Duration,
    each: Duration,
    rebuilt: Duration,
    extents: Duration,
}

fn ours(root: &Path, bytes: &[u8]) -> Outcome<Ours> {
    let size = BlockSize::DEFAULT;
    let store = Store::open(Arc::new(RealDisk), root.to_owned())?;
    let mut layout = Layout::new(size);
    let mut blocks = 0;
    let mut tree = Tree::new(size, bytes.len() as u64)?;

    let start = Instant::now();
    let mut writer = store.writer(WriterOptions::default());
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = writer.room(size, rest.len() / size.bytes())?;
        let (now, later) = rest.split_at(room.len());
        rest = later;
        room.copy_from_slice(now);
        let named: Vec<_> = room
            .chunks(size.bytes())
            .map(|block| Some(BlockId::of(block)))
            .collect();
        for (place, id) in writer.keep(&named)?.into_iter().zip(named) {
            layout.set(BlockIndex(blocks), place);
            tree.set(&*store, BlockIndex(blocks), id)?;
            blocks += 1;
        }
    }
    let tree = tree.seal(&mut writer)?;
    let mark: PackMark = writer.sync()?.ok_or("nothing was put")?;
    let stored = start.elapsed();
    drop((writer, store));

    let store = Store::open(Arc::new(RealDisk), root.to_owned())?;
    let start = Instant::now();
    store.adopt(mark)?;
    let adopted = start.elapsed();

    let start = Instant::now();
    store.locate(&BlockId::of(b"nowhere"))?;
    let first = start.elapsed();
    let start = Instant::now();
    if store.rebuild_extents(tree)? != layout {
        return Err("the rebuilt layout is another one".into());
    }
    let rebuilt = start.elapsed();
    let start = Instant::now();
    let named = bytes.chunks(size.bytes()).step_by(64).map(BlockId::of);
    let named: Vec<_> = named.collect();
    let hashed = start.elapsed();
    let start = Instant::now();
    let found = named
        .iter()
        .filter(|id| matches!(store.locate(id), Ok(Some(_))));
    let count = found.count();
    let each = start.elapsed() / u32::try_from(count.max(1))?;
    if count != named.len() {
        return Err(format!(
            "{count} of {} blocks found, hashed in {hashed:?}",
            named.len()
        )
        .into());
    }

    // 4,096 extents: as many as a session ever maps.
    let mut mosaic = Layout::new(size);
    for at in 0..4096 {
        mosaic.set(BlockIndex(at * 2), layout.get(BlockIndex(at)));
    }
    let mosaics = TreeId::from_bytes([1; 32]);
    store.save_extents(mosaics, &mosaic)?;
    let start = Instant::now();
    let loaded = store
        .load_extents(mosaics)
        .ok_or("the extent map is gone")?;
    let extents = start.elapsed();
    if loaded.len() != mosaic.len() || layout.len() != 1 {
        return Err("the extents are not what was saved".into());
    }
    drop(store);
    std::fs::remove_dir_all(root)?;
    Ok(Ours {
        stored,
        adopted,
        first,
        each,
        rebuilt,
        extents,
    })
}
