//! Files that are lost, changed, or from the future: an error with a name, or an older checkpoint; never other bytes.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use segvm::{OpenError, Segment, Session, SessionOptions};

use super::harness::{BLOCK, content, memory, open};

const LEN: usize = 20 * BLOCK;

fn try_open(store: &Path) -> Result<(Session, Segment), OpenError> {
    let session = SessionOptions::new().store(store).open("hostile")?;
    let segment = session.segment("memory", LEN)?;
    Ok((session, segment))
}

/// Two lives, hence two packs; answers what memory was at each commit, and the commits.
fn two_lives(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut states = Vec::new();
    for life in 1..=2_u8 {
        let session = open(store);
        let segment = memory(&session, LEN);
        for step in 0..2 {
            // Life 2 leaves part of what life 1 wrote.
            let len = if life == 1 { LEN } else { LEN / 2 };
            let bytes: Vec<u8> = (0..len)
                .map(|i| ((i + i / 251) % 200) as u8 + life * 20 + step)
                .collect();
            segment.write(0, &bytes).unwrap();
            let commit = session.checkpoint().unwrap().commit.to_string();
            states.push((commit, content(&segment)));
        }
        session.suspend().unwrap();
    }
    states
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    files
}

fn forget_extent_maps(store: &Path) {
    for path in files(&store.join("extents")) {
        fs::remove_file(path).unwrap();
    }
}

/// Flips one bit while it lives.
struct Flip<'a> {
    path: &'a Path,
    at: u64,
    was: u8,
    bit: u8,
}

impl<'a> Flip<'a> {
    fn new(path: &'a Path, at: u64, bit: u8) -> Self {
        let mut byte = [0];
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
        Self {
            path,
            at,
            was: byte[0],
            bit,
        }
    }
}

impl Drop for Flip<'_> {
    fn drop(&mut self) {
        let file = OpenOptions::new().write(true).open(self.path).unwrap();
        file.write_all_at(&[self.was], self.at).unwrap();
    }
}

/// What a flipped bit did.
#[derive(Default, Debug)]
struct Seen {
    refused: usize,
    unharmed: usize,
    /// A bit of a block, mapped and not read: the very bit that was flipped, and nothing else.
    itself: usize,
}

impl Seen {
    fn look(&mut self, flip: &Flip<'_>, found: &[u8], expected: &[u8]) {
        let wrong: Vec<usize> = (0..LEN).filter(|&i| found[i] != expected[i]).collect();
        match wrong[..] {
            [] => self.unharmed += 1,
            [one] if found[one] ^ expected[one] == 1 << flip.bit && expected[one] == flip.was => {
                self.itself += 1;
            }
            _ => panic!(
                "bit {} at {} of {}: {} bytes of memory are wrong, from {}",
                flip.bit,
                flip.at,
                flip.path.display(),
                wrong.len(),
                wrong[0]
            ),
        }
    }
}

/// Bits of both packs: blocks, nodes, directories, indexes, headers, trailers; with extent maps and without.
#[test]
fn a_flipped_bit_in_a_pack_never_turns_into_other_bytes() {
    let store = tempfile::tempdir().unwrap();
    let states = two_lives(store.path());
    for with_maps in [true, false] {
        if !with_maps {
            forget_extent_maps(store.path());
        }
        let mut seen = Seen::default();
        for pack in files(&store.path().join("packs")) {
            let len = fs::metadata(&pack).unwrap().len();
            // Densely where the seal is, sparsely elsewhere; steps that meet every offset in a line.
            let dense = (len.saturating_sub(8 << 10)..len).step_by(97);
            for at in (0..len).step_by(6007).chain(dense) {
                let flip = Flip::new(&pack, at, (at % 8) as u8);
                match try_open(store.path()) {
                    Err(_named) => seen.refused += 1,
                    Ok((session, segment)) => {
                        seen.look(&flip, &content(&segment), &states[3].1);
                        match session.restore(&states[0].0[..16]) {
                            Err(_named) => seen.refused += 1,
                            Ok(_) => seen.look(&flip, &content(&segment), &states[0].1),
                        }
                    }
                }
                drop(flip);
                if !with_maps {
                    forget_extent_maps(store.path());
                }
            }
        }
        assert!(
            seen.refused > 0 && seen.unharmed > 0 && seen.itself > 0,
            "{seen:?}"
        );
    }
    let (_session, segment) = try_open(store.path()).unwrap();
    assert!(
        content(&segment) == states[3].1,
        "the flips did not leave the store as it was"
    );
}

#[test]
fn a_flipped_bit_in_the_newest_record_is_an_error_or_an_older_checkpoint() {
    let store = tempfile::tempdir().unwrap();
    let states = two_lives(store.path());
    let log = store.path().join("images/hostile/log");
    let bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let mut fell_back = 0;
    for at in (end.saturating_sub(1024)..end).step_by(7) {
        let flip = Flip::new(&log, at as u64, (at % 8) as u8);
        if let Ok((_session, segment)) = try_open(store.path()) {
            let found = content(&segment);
            let is = states.iter().position(|(_, state)| *state == found);
            let is = is.unwrap_or_else(|| panic!("bit at {at}: memory is no checkpoint"));
            fell_back += usize::from(is < states.len() - 1);
        }
        drop(flip);
    }
    assert!(fell_back > 0, "no flip hit the newest record");
    let (_session, segment) = try_open(store.path()).unwrap();
    assert!(content(&segment) == states[3].1);
}

#[test]
fn a_flipped_bit_in_an_extent_map_costs_nothing_but_time() {
    let store = tempfile::tempdir().unwrap();
    let states = two_lives(store.path());
    for map in files(&store.path().join("extents")) {
        for at in (0..fs::metadata(&map).unwrap().len()).step_by(5) {
            let flip = Flip::new(&map, at, (at % 8) as u8);
            let (_session, segment) = try_open(store.path()).unwrap();
            assert!(
                content(&segment) == states[3].1,
                "bit at {at} of {}",
                map.display()
            );
            drop(flip);
        }
    }
}

#[test]
fn a_lost_pack_is_named_and_what_lies_in_others_comes_back() {
    let store = tempfile::tempdir().unwrap();
    let states = two_lives(store.path());
    let packs = files(&store.path().join("packs"));
    assert_eq!(packs.len(), 2);
    for with_maps in [true, false] {
        if !with_maps {
            forget_extent_maps(store.path());
        }
        for (life, pack) in packs.iter().enumerate() {
            let away = store.path().join("away");
            fs::rename(pack, &away).unwrap();
            match try_open(store.path()) {
                Err(error) => {
                    let text = chain(&error);
                    let name = pack.file_stem().unwrap().to_str().unwrap();
                    assert!(!with_maps || text.contains(name), "life {life}: {text}");
                }
                Ok(_) => panic!("life {life}: the newest commit lies in both packs"),
            }
            fs::rename(&away, pack).unwrap();
        }
    }
    // The second life's own pack is lost under a session that is at the first life's: it goes back, not forward.
    let (session, segment) = try_open(store.path()).unwrap();
    fs::remove_file(&packs[1]).unwrap();
    drop((session, segment));
    let error = try_open(store.path()).map(|_| ()).unwrap_err();
    assert!(!chain(&error).is_empty());
    assert_eq!(states.len(), 4);
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

#[test]
fn a_store_from_the_future_is_refused_by_name_and_left_alone() {
    let store = tempfile::tempdir().unwrap();
    let states = two_lives(store.path());
    let format = store.path().join("format");
    let was = fs::read_to_string(&format).unwrap();
    for (now, said) in [
        (was.replace("version 1", "version 2"), "version 2"),
        (format!("{was}feature sealed-with-wax\n"), "sealed-with-wax"),
        ("something else".to_owned(), "format"),
        (String::new(), "format"),
    ] {
        assert_ne!(now, was);
        fs::write(&format, &now).unwrap();
        let error = try_open(store.path()).map(|_| ()).unwrap_err();
        let text = chain(&error);
        assert!(
            text.contains(said) && text.contains(store.path().to_str().unwrap()),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&format).unwrap(), now);
    }
    fs::write(&format, was).unwrap();
    let (_session, segment) = try_open(store.path()).unwrap();
    assert!(content(&segment) == states[3].1);
}
