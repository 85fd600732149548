//! What is fuzzed: every decoder of bytes that come from disk.
//!
//! Each function takes arbitrary bytes and must neither panic nor take memory out of proportion to them;
//! where a decoder has an encoder, what decodes must encode to the same bytes. The fuzz targets and the
//! plain test over the saved inputs call the same functions.

use std::{path::PathBuf, sync::Arc};

use segvm::{
    inspect::{self, Limits, Segment, SegmentBytes},
    schema::Schema,
};
use segvm_blockcache::{
    BlockId, Marks, PackId, PackMark, Store, TreeId, TreeObject,
    disk::{Disk, MemDisk, Open},
};

/// Takes arbitrary bytes; panics where a decoder is wrong.
pub type Decoder = fn(&[u8]);

/// Every decoder by the name of its fuzz target and of its folder in `corpus/`.
pub const DECODERS: &[(&str, Decoder)] = &[
    ("extents", extents),
    ("heap", heap),
    ("home", home),
    ("marks", marks),
    ("pack", pack),
    ("schema", schema),
    ("tree", tree),
];

/// A heap: its roots, and their values by the schemas that are stored with them.
pub fn heap(bytes: &[u8]) {
    let mut segment = Segment {
        bytes: InMemory(bytes),
        // Where the saved inputs lie.
        base: 0x1000_0000_0000,
        len: bytes.len() as u64,
    };
    let few = Limits {
        values: 10_000,
        ..Limits::default()
    };
    for root in inspect::roots(&mut segment).unwrap_or_default() {
        if let Some(Ok(schema)) = &root.schema {
            let _any = inspect::value(&mut segment, schema, root.address, few);
        }
    }
}

struct InMemory<'b>(&'b [u8]);

impl SegmentBytes for InMemory<'_> {
    type Error = std::convert::Infallible;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error> {
        let from = usize::try_from(offset).expect("an offset in the segment");
        // Panics where something outside the segment is asked for.
        out.copy_from_slice(&self.0[from..from + out.len()]);
        Ok(())
    }
}

/// The schema of a type.
pub fn schema(bytes: &[u8]) {
    if let Ok(schema) = Schema::decode(bytes) {
        assert_eq!(schema.encode().as_deref(), Ok(bytes), "one schema, one encoding");
        let _told = (schema.to_string(), schema.to_rust("Old").to_string());
        assert_eq!(schema.differences(&schema), []);
    }
}

/// A head or a node of a tree.
pub fn tree(bytes: &[u8]) {
    if let Ok(TreeObject::Node { children, .. }) = segvm_blockcache::decode_any(bytes) {
        // Each child is in the bytes, so there cannot be more of them than fit.
        assert!(children.len() * 32 <= bytes.len());
    }
}

/// A commit, and a frame of an image's log.
pub fn home(bytes: &[u8]) {
    segvm_home::decode_any(bytes);
}

/// The marks beside a commit.
pub fn marks(bytes: &[u8]) {
    if let Ok(marks) = Marks::decode(bytes) {
        assert_eq!(marks.encode(), bytes, "one list of marks, one encoding");
    }
}

/// An extent map, read through a store as a resume reads it.
pub fn extents(bytes: &[u8]) {
    // The tree that the saved inputs are of.
    let tree = TreeId::from_bytes([0xab; 32]);
    let root = PathBuf::from("/store");
    let path = root.join("extents").join(format!("{tree}.ext"));
    if let Some(store) = store_with(root, path, bytes)
        && let Some(layout) = store.load_extents(tree)
    {
        // Each extent is in the bytes.
        assert!(layout.len() <= bytes.len());
    }
}

/// A pack: adopted as one that its writer left, then searched as one that is sealed.
///
/// Fed twice: as it is, and with the checksums of its pages made right, because no fuzzer guesses those.
pub fn pack(bytes: &[u8]) {
    read_pack(bytes);
    let mut mended = bytes.to_vec();
    for page in mended.chunks_exact_mut(4096) {
        if page.starts_with(b"segvm") {
            let (body, rest) = page.split_at_mut(508);
            rest[..4].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        }
    }
    if mended != bytes {
        read_pack(&mended);
    }
}

fn read_pack(bytes: &[u8]) {
    // The pack that the saved inputs are.
    let pack = PackId(0x0123_4567_89ab_cdef);
    let root = PathBuf::from("/store");
    let path = root.join("packs").join(format!("{pack}.pack"));
    for len in [bytes.len() as u64, bytes.len() as u64 / 4096 / 2 * 4096] {
        let Some(store) = store_with(root.clone(), path.clone(), bytes) else {
            return;
        };
        let _any = store.adopt(PackMark { pack, len });
        let _any = store.locate(&BlockId::of(b"a block that is nowhere"));
        let _any = store.sealed_file(pack);
    }
}

/// A store in memory that holds one more file.
fn store_with(root: PathBuf, path: PathBuf, bytes: &[u8]) -> Option<Arc<Store>> {
    let disk = Arc::new(MemDisk::new());
    let store = Store::open(Arc::clone(&disk) as Arc<dyn Disk>, root).ok()?;
    disk.create_dir_all(path.parent()?).ok()?;
    let file = disk.open(&path, Open::Create).ok()?;
    file.write_at(0, bytes).ok()?;
    Some(store)
}
