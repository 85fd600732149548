//! Dirty pages that are not in memory when the checkpoint looks for them.

use std::{fs, io, ptr};

use segvm::{Rounds, Segment};

use super::harness::{PAGE, content, each_commit, get_in, memory, open, same};

const LEN: usize = 8 << 20;

/// Pushes everything out that the machine lets go.
fn page_out(segment: &Segment) {
    let start = ptr::with_exposed_provenance_mut(segment.as_ptr() as usize);
    // SAFETY: the segment's own range; paging out changes no content.
    let done = unsafe { libc::madvise(start, segment.len(), libc::MADV_PAGEOUT) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Bytes of the segment that lie in swap.
fn swapped(segment: &Segment) -> usize {
    let start = segment.as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut inside, mut kilobytes) = (false, 0);
    for line in maps.lines() {
        let address = line.split('-').next().unwrap();
        if let Ok(address) = usize::from_str_radix(address, 16) {
            inside = (start..start + segment.len()).contains(&address);
        } else if inside && let Some(value) = line.strip_prefix("Swap:") {
            let value = value.trim().trim_end_matches(" kB");
            kilobytes += value.parse::<usize>().unwrap();
        }
    }
    kilobytes << 10
}

/// Epoch `n` leaves every page alone but those with the same remainder by 7 or by 3.
fn paint(n: u64, model: &mut [u8]) -> Vec<usize> {
    let mut pages = vec![0];
    pages.extend(
        (1..LEN / PAGE).filter(|page| page % 7 == n as usize % 7 || page % 3 == n as usize % 3),
    );
    for &page in &pages {
        model[page * PAGE..][..PAGE].fill((page as u64 * 31 + n * 7) as u8 | 1);
        model[page * PAGE..][..8].copy_from_slice(&n.to_ne_bytes());
    }
    pages
}

/// Dirty while cold, dirty while warm, clean and private, read back in, written again: each of them after it was paged out.
#[test]
fn pages_that_were_swapped_out_are_saved_and_come_back() {
    let store = tempfile::tempdir().unwrap();
    let mut model = vec![0; LEN];
    let (mut states, mut out) = (vec![model.clone()], 0);
    for life in 0..2 {
        // From the second life on, the first turn's pages are cold: mapped, written, paged out, never armed.
        let session = open(store.path());
        let segment = memory(&session, LEN);
        for turn in 0..4 {
            let n = states.len() as u64;
            for page in paint(n, &mut model) {
                segment
                    .write(page * PAGE, &model[page * PAGE..][..PAGE])
                    .unwrap();
            }
            page_out(&segment);
            out += swapped(&segment);
            // Some pages come back in, and some of those are written with what they hold.
            for page in (0..LEN / PAGE).step_by(5) {
                let mut bytes = [0; 16];
                segment.read(page * PAGE, &mut bytes).unwrap();
                if page % 2 == 0 {
                    segment.write(page * PAGE, &bytes).unwrap();
                }
            }
            if turn % 2 == 0 {
                page_out(&segment);
            }
            states.push(model.clone());
            let rounds = [Rounds::Auto, Rounds::Off][(life + turn / 2) % 2];
            assert!(session.checkpoint_with(rounds).unwrap().changed);
            page_out(&segment);
            same(&content(&segment), &model, "memory that was paged out");
        }
        page_out(&segment);
        session.suspend().unwrap();
    }
    let session = open(store.path());
    let segment = memory(&session, LEN);
    same(&content(&segment), &model, "what was suspended");
    let commits = each_commit(&session, &segment, |commit, found| {
        let n = get_in(found, 0) as usize;
        same(found, &states[n], &format!("commit {commit:.12}"));
    });
    assert_eq!(commits, 8);
    if out == 0 {
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        let reason = match swaps.lines().count() {
            0 | 1 => "this machine has no swap",
            _ => "it has swap, but let no page of this process go there",
        };
        println!("skipped: dirty pages in swap: {reason}; only clean pages were paged out");
    }
}
