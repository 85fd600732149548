//! A layout as bytes. docs/format.md has the offsets.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::layout::{Extent, Layout};
use crate::{
    id::{PackId, TreeId},
    pack::format::len64,
    unit::{BlockIndex, BlockSize},
};

const MAGIC: [u8; 8] = *b"segvmext";
const VERSION: u32 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    block_log2: U32,
    tree: [u8; 32],
    extents: U64,
    extents_crc: U32,
    head_crc: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Line {
    first: U64,
    blocks: U64,
    pack: U64,
    offset: U64,
}

const HEAD: usize = size_of::<Head>();
const HEAD_SUMMED: usize = HEAD - 4;
const _: () = assert!(HEAD == 64 && size_of::<Line>() == 32);

/// Encodes the layout of a tree.
pub(crate) fn encode(tree: TreeId, layout: &Layout) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    for extent in layout.runs() {
        let line = Line {
            first: extent.first.0.into(),
            blocks: extent.blocks.into(),
            pack: extent.pack.0.into(),
            offset: extent.offset.into(),
        };
        bytes.extend_from_slice(line.as_bytes());
    }
    let (head, lines) = bytes.split_at_mut(HEAD);
    let mut fields = Head {
        magic: MAGIC,
        version: VERSION.into(),
        block_log2: u32::from(layout.block_size().log2()).into(),
        tree: *tree.as_bytes(),
        extents: len64(layout.len()).into(),
        extents_crc: crc32c::crc32c(lines).into(),
        head_crc: 0.into(),
    };
    fields.head_crc = crc32c::crc32c(fields.as_bytes().split_at(HEAD_SUMMED).0).into();
    head.copy_from_slice(fields.as_bytes());
    bytes
}

/// Decodes the layout of a tree; `None` for anything else.
///
/// - **Cost**: O(extents); nothing is allocated before the checksums hold.
pub(crate) fn decode(tree: TreeId, bytes: &[u8]) -> Option<Layout> {
    let (head, lines) = bytes.split_at_checked(HEAD)?;
    let fields = Head::ref_from_bytes(head).ok()?;
    let sound = crc32c::crc32c(head.split_at(HEAD_SUMMED).0) == fields.head_crc.get()
        && fields.magic == MAGIC
        && fields.version.get() == VERSION
        && fields.tree == *tree.as_bytes()
        && crc32c::crc32c(lines) == fields.extents_crc.get();
    let size = BlockSize::from_log2(fields.block_log2.get())?;
    let lines = <[Line]>::ref_from_bytes(lines).ok()?;
    if !sound || len64(lines.len()) != fields.extents.get() {
        return None;
    }

    let extents = lines.iter().map(|line| Extent {
        first: BlockIndex(line.first.get()),
        blocks: line.blocks.get(),
        pack: PackId(line.pack.get()),
        offset: line.offset.get(),
    });
    Layout::from_extents(size, extents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Codec, Place};

    fn layout(runs: &[(u64, u64, u64)]) -> Layout {
        let mut layout = Layout::new(BlockSize::DEFAULT);
        for &(first, blocks, pack) in runs {
            let place = Place {
                pack: PackId(pack),
                offset: first << 14,
                stored: 1 << 14,
                codec: Codec::Raw,
            };
            layout.set_run(BlockIndex(first), blocks, Some(place));
        }
        layout
    }

    const TREE: TreeId = TreeId::from_bytes([9; 32]);

    proptest! {
        #[test]
        fn there_and_back(runs in prop::collection::vec((0_u64..1000, 1_u64..20, 0_u64..3), 0..50)) {
            let layout = layout(&runs);
            let bytes = encode(TREE, &layout);
            prop_assert_eq!(decode(TREE, &bytes), Some(layout));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any_answer = decode(TREE, &bytes);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(TREE, &layout(&[(0, 4, 1), (7, 2, 2)]));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(TREE, &bytes), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(TREE, &bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(decode(TreeId::from_bytes([8; 32]), &bytes), None);
    }

    #[test]
    fn lines_that_contradict_each_other_are_refused() {
        let line = |first: u64, blocks: u64, offset: u64| -> Vec<u8> {
            [first, blocks, 1, offset]
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect()
        };
        let file = |lines: &[Vec<u8>]| {
            let mut bytes = encode(TREE, &Layout::new(BlockSize::DEFAULT));
            let lines = lines.concat();
            bytes[48..56].copy_from_slice(&(lines.len() as u64 / 32).to_le_bytes());
            bytes[56..60].copy_from_slice(&crc32c::crc32c(&lines).to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            bytes.extend(lines);
            bytes
        };
        assert!(decode(TREE, &file(&[line(0, 2, 16384), line(3, 1, 16384)])).is_some());
        for bad in [
            file(&[line(0, 2, 16384), line(1, 1, 65536)]),
            file(&[line(0, 0, 16384)]),
            file(&[line(0, 1, 16385)]),
            file(&[line(0, 1, 16384), line(1, 1, 32768)]),
            file(&[line(0, u64::MAX, 16384)]),
            file(&[line(u64::MAX, 1, 16384)]),
        ] {
            assert_eq!(decode(TREE, &bad), None);
        }
    }
}
