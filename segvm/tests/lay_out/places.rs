//! Long runs lie in their pack so that huge pages can show them: at their addresses, modulo 2 MiB.

use std::{fs, path::Path};

use segvm::{Rounds, Segment, Session, SessionOptions};

const MIB: usize = 1 << 20;
const BLOCK: usize = 16 << 10;
const HUGE: usize = 2 * MIB;
/// From this length on the gap before a run is worth it.
const LONG: usize = 16 * MIB;
const LEN: usize = 64 * MIB;

fn open(store: &Path) -> (Session, Segment) {
    let session = SessionOptions::new().store(store).open("image").unwrap();
    let segment = session.segment("memory", LEN).unwrap();
    (session, segment)
}

/// Writes blocks that no other block is like.
fn put(segment: &Segment, from: usize, len: usize, epoch: u64) {
    let mut bytes = vec![0; len];
    for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
        let number = ((from / BLOCK + n) as u64) << 16 | epoch;
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
    }
    segment.write(from, &bytes).unwrap();
}

/// Where files are shown in the segment: address, length, and offset in the file.
fn shown(segment: &Segment) -> Vec<(usize, usize, usize)> {
    let base = segment.as_ptr() as usize;
    let hex = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_pack = maps.lines().filter(|line| line.ends_with(".pack"));
    of_pack
        .map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next().unwrap().split_once('-').unwrap();
            let offset = hex(words.nth(1).unwrap());
            (hex(start), hex(end) - hex(start), offset)
        })
        .filter(|(start, ..)| (base..base + LEN).contains(start))
        .collect()
}

#[test]
fn long_runs_lie_at_their_addresses_modulo_two_mib() {
    for (rounds, ends_well) in [
        (Rounds::Auto, true),
        (Rounds::Off, true),
        (Rounds::Auto, false),
    ] {
        let store = tempfile::tempdir().unwrap();
        let (session, segment) = open(store.path());
        // Odd places to begin with, so that nothing is where it should be by itself.
        put(&segment, 3 * BLOCK, 5 * BLOCK, 1);
        session.checkpoint_with(rounds).unwrap();
        put(&segment, 5 * BLOCK, LONG + 7 * BLOCK, 2);
        session.checkpoint_with(rounds).unwrap();
        put(&segment, 24 * MIB + BLOCK, 3 * BLOCK, 3);
        session.checkpoint_with(rounds).unwrap();
        put(&segment, 40 * MIB + 9 * BLOCK, LONG + 2 * MIB, 4);
        if ends_well {
            session.suspend().unwrap();
        } else {
            session.checkpoint_with(rounds).unwrap();
            drop(session);
        }

        let (_session, segment) = open(store.path());
        let shown = shown(&segment);
        println!("{rounds:?}: {shown:x?}");
        let long = shown.iter().filter(|(_, len, _)| *len >= LONG);
        let places: Vec<_> = long
            .map(|(start, _, offset)| (start % HUGE, offset % HUGE))
            .collect();
        assert_eq!(places.len(), 2, "the two long runs are not mapped whole");
        for (address, place) in places {
            assert_eq!(address, place, "{shown:x?}");
        }
        let mut first = [0; 8];
        segment.read(40 * MIB + 9 * BLOCK, &mut first).unwrap();
        assert_eq!(u64::from_le_bytes(first) & 0xffff, 4);
    }
}
