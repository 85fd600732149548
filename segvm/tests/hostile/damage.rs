//! Files that are lost, changed, or from the future: an error with a name, or an older checkpoint; never other bytes.

use std::{
    env,
    fs::{self, OpenOptions},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
};

use segvm::{OpenError, Segment, Session, SessionOptions};

use super::harness::{BLOCK, PAGE, content, memory, open, word};

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

const CUT_STORE: &str = "SEGVM_TEST_CUT_STORE";
const CUT_AT: &str = "SEGVM_TEST_CUT_AT";

/// Run by the test below as another process, which dies of it; by itself it does nothing.
#[test]
fn another_process_reads_what_was_cut() {
    let Some(store) = env::var_os(CUT_STORE) else {
        return;
    };
    let store = Path::new(&store);
    let at = env::var(CUT_AT).unwrap().parse().unwrap();
    let session = open(store);
    let segment = memory(&session, LEN);
    for pack in files(&store.join("packs")) {
        let pack = OpenOptions::new().write(true).open(pack).unwrap();
        pack.set_len(0).unwrap();
    }
    // As the program would, by its own load: `Segment::read` is the kernel's copy, which answers with an error.
    let found = word(&segment, at).load(Ordering::Relaxed);
    panic!("what was cut off could be read: {found}");
}

/// A pack that is cut while it is mapped is what the disk's read error looks like to the process: SIGBUS.
#[test]
fn a_page_that_cannot_be_read_is_named_with_pack_and_place() {
    // A place in each pack: life 2 wrote the first half again.
    let mut named = Vec::new();
    for at in [3 * PAGE + 8, 17 * BLOCK + PAGE + 80] {
        let store = tempfile::tempdir().unwrap();
        let (_, last) = two_lives(store.path()).pop().unwrap();
        let packs: Vec<(String, Vec<u8>)> = files(&store.path().join("packs"))
            .iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                (name.to_owned(), fs::read(path).unwrap())
            })
            .collect();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "damage::another_process_reads_what_was_cut"])
            .env(CUT_STORE, store.path())
            .env(CUT_AT, at.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(7), "SIGBUS: {said}");
        let line = said
            .lines()
            .find(|line| line.starts_with("segvm: "))
            .unwrap();
        for part in [
            "segment `memory` of image `hostile`",
            "`Session::restore` an older checkpoint",
            store.path().join("packs").to_str().unwrap(),
            &format!("offset {at:#x}; file "),
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let (_, place) = line.rsplit_once("; file ").unwrap();
        let (name, offset) = place
            .strip_suffix(')')
            .unwrap()
            .split_once(", offset 0x")
            .unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        let life = packs.iter().position(|(pack, _)| pack == name);
        let (_, bytes) = &packs[life.unwrap_or_else(|| panic!("no such pack: {line}"))];
        let page = at / PAGE * PAGE;
        let from = offset - (at - page);
        assert!(
            bytes[from..from + PAGE] == last[page..page + PAGE],
            "not there: {line}"
        );
        named.push(life.unwrap());
    }
    named.sort_unstable();
    assert_eq!(
        named,
        [0, 1],
        "both packs were cut, and each is named for what lay in it"
    );
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
