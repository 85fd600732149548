//! Whoever lies where a segment wants to be is named.

use std::{env, path::Path, process::Command, ptr};

use segvm::{ClaimError, OpenError, SegmentOptions, Session, SessionOptions};

use super::harness::PAGE;

const BASE: usize = 0x2a00_0000_0000;
const STORE: &str = "SEGVM_TEST_STORE";

fn open(store: &Path) -> Result<Session, OpenError> {
    SessionOptions::new().store(store).open("placed")
}

/// Run by the test below as another process; by itself it does nothing.
#[test]
fn another_process_makes_the_image() {
    let Some(store) = env::var_os(STORE) else {
        return;
    };
    let session = open(Path::new(&store)).unwrap();
    let options = SegmentOptions::new().base(BASE).reserve(1 << 30);
    let segment = session.segment_with("memory", 1 << 20, &options).unwrap();
    segment.write(0, b"placed").unwrap();
    session.suspend().unwrap();
}

#[test]
fn a_taken_range_is_named_with_the_mapping_in_the_way() {
    let store = tempfile::tempdir().unwrap();
    let made = Command::new(env::current_exe().unwrap())
        .args(["--exact", "addresses::another_process_makes_the_image"])
        .env(STORE, store.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    // In the middle of the reservation, far from its first page.
    let at = BASE + (300 << 20);
    let (read, flags) = (
        libc::PROT_READ,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    // SAFETY: a new mapping in a place where nothing is.
    let taken = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(at),
            PAGE,
            read,
            flags,
            -1,
            0,
        )
    };
    assert_eq!(taken.addr(), at);
    let error = open(store.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::Range(ClaimError::Kernel(_))),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("{BASE:#x}")) || text.contains(&format!("{BASE:x}")),
        "{text}"
    );
    assert!(text.contains(&format!("{at:x}-{:x}", at + PAGE)), "{text}");
    // Nothing of the failed attempt stays behind: not the lease, not half of the range.
    // SAFETY: the page that was mapped above.
    assert_eq!(unsafe { libc::munmap(taken, PAGE) }, 0);
    let session = open(store.path()).unwrap();
    let mut bytes = [0; 6];
    session
        .segment("memory", 0)
        .unwrap()
        .read(0, &mut bytes)
        .unwrap();
    assert_eq!(&bytes, b"placed");
}
