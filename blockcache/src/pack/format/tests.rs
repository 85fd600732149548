//! Pages and entries that cannot be are refused, and nothing panics.

use proptest::prelude::*;

use super::*;
use crate::{BlockId, NodeId};

const PACK: PackId = PackId(5);

fn batch(nodes: u64, nodes_len: u64, entries: u64) -> Batch {
    Batch {
        pack: PACK,
        sequence: 3,
        offset: FIRST_BATCH,
        nodes: FIRST_BATCH + PAGE_LEN * (1 + nodes),
        nodes_len,
        entries,
        directory_crc: 9,
    }
}

proptest! {
    #[test]
    fn pages_and_back(nodes in 0_u64..1000, len in 0_u64..100_000, entries in 0_u64..1000, crc: u32) {
        let batch = batch(nodes, len, entries);
        prop_assert_eq!(Batch::decode(&batch.encode(), PACK, 3, FIRST_BATCH), Ok(batch));
        let seal = Seal { pack: PACK, batches_end: batch.end(), batches: 4, entries, fanout_crc: crc };
        prop_assert_eq!(Seal::decode(&seal.encode(), PACK), Ok(Some(seal)));
    }

    /// With the checksum made right, so that what follows it is reached.
    #[test]
    fn no_page_panics(
        pokes in prop::collection::vec((0_usize..100, any::<u8>()), 0..12),
        magic in 0_usize..3,
        raw in prop::collection::vec(any::<u8>(), PAGE),
    ) {
        let start = [pack_header(PACK), batch(1, 100, 7).encode(), Seal {
            pack: PACK, batches_end: FIRST_BATCH, batches: 0, entries: 1, fanout_crc: 0,
        }.encode()][magic];
        let mut page = start;
        for (at, byte) in pokes {
            page[at] = byte;
        }
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..SECTOR].copy_from_slice(&crc.to_le_bytes());
        let raw: Page = raw.try_into().unwrap();
        for page in [page, raw] {
            let accepted = check_pack_header(&page, PACK).is_ok();
            prop_assert_eq!(accepted, page == pack_header(PACK));
            // What is accepted is what is written: nothing in the page goes unread.
            if let Ok(batch) = Batch::decode(&page, PACK, 3, FIRST_BATCH) {
                prop_assert_eq!(batch.encode(), page);
            }
            if let Ok(Some(seal)) = Seal::decode(&page, PACK) {
                prop_assert_eq!(seal.encode(), page);
            }
        }
    }

    #[test]
    fn no_entry_panics_or_leaves_its_batch(bytes: [u8; ENTRY], kind in 0_u8..4, log2 in 0_u8..30, near: u16, batches in 1_u64..200) {
        let (mut entry, _) = Entry::read_from_prefix(&bytes).unwrap();
        let batch = batch(batches, 5000, 1);
        for tame in [false, true] {
            if tame {
                entry.kind = kind;
                entry.codec = 0;
                entry.flags = 0;
                entry.log2 = if kind == 1 { log2 } else { 0 };
                entry.offset = (u64::from(near) << 8).into();
                entry.stored = if kind == 1 { 1_u32 << log2 } else { u32::from(near) }.into();
            }
            if batch.check(&entry).is_ok() {
                prop_assert!(entry.offset() >= batch.offset + PAGE_LEN && entry.end() <= batch.end());
            }
        }
    }
}

#[test]
fn a_page_that_says_nothing_is_not_a_seal() {
    assert_eq!(Seal::decode(&[0; PAGE], PACK), Ok(None));
    assert!(Seal::decode(&pack_header(PACK), PACK).is_err());
    assert!(check_pack_header(&pack_header(PackId(6)), PACK).is_err());
    let batch = batch(1, 1, 1).encode();
    assert!(Batch::decode(&batch, PACK, 4, FIRST_BATCH).is_err());
    assert!(Batch::decode(&batch, PACK, 3, FIRST_BATCH + PAGE_LEN).is_err());
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let id = BlockId::from_bytes([1; 32]);
    let good = Entry::block(id, BlockSize::DEFAULT, 1 << 14);
    assert_eq!(good.check(), Ok(Kind::Block));
    let with = |change: fn(&mut Entry)| {
        let mut entry = good;
        change(&mut entry);
        entry.check()
    };
    assert!(with(|entry| entry.codec = 1).is_err());
    assert!(with(|entry| entry.flags = 1).is_err());
    assert!(with(|entry| entry.kind = 0).is_err());
    assert!(with(|entry| entry.kind = 3).is_err());
    assert!(with(|entry| entry.log2 = 13).is_err());
    assert!(with(|entry| entry.log2 = 22).is_err());
    assert!(with(|entry| entry.stored = 5.into()).is_err());
    assert!(with(|entry| entry.offset = (5 << 12).into()).is_err());
    assert!(with(|entry| entry.offset = 4096.into()).is_err());
    assert!(with(|entry| entry.offset = u64::MAX.into()).is_err());
    let node = Entry::node(NodeId::from_bytes([1; 32]), MAX_NODE + 1, 1 << 14);
    assert!(node.check().is_err());
}
