//! What a checkpoint costs does not grow with how many there were.

use segvm::{Saved, Segment, Session};

use super::harness::{BLOCK, content, memory, open};

const LEN: usize = 8 << 20;
const CHECKPOINTS: usize = 1000;

/// The same change each time, with other bytes: ten blocks, scattered.
fn change(segment: &Segment, n: usize) {
    for k in 0..10 {
        segment
            .write(
                (n * 7 + k * 51) % (LEN / BLOCK) * BLOCK + 100,
                &(n * 10 + k).to_ne_bytes(),
            )
            .unwrap();
    }
}

fn checkpoint(session: &Session, segment: &Segment, n: usize) -> Saved {
    change(segment, n);
    let saved = session.checkpoint().unwrap();
    assert!(
        saved.changed && saved.blocks_dirty == 10,
        "checkpoint {n}: {saved:?}"
    );
    saved
}

#[test]
fn a_thousand_checkpoints_of_a_tenth_resume_cost_what_the_first_did() {
    // In memory where there is such a place: what is counted is bytes, and a thousand syncs take their time.
    let store = tempfile::tempdir_in("/dev/shm")
        .or_else(|_none| tempfile::tempdir())
        .unwrap();
    for life in 0..9 {
        let session = open(store.path());
        let segment = memory(&session, LEN);
        if life == 0 {
            segment
                .write(0, &(0..LEN).map(|i| (i % 251) as u8).collect::<Vec<_>>())
                .unwrap();
            session.checkpoint().unwrap();
        }
        checkpoint(&session, &segment, 5000 + life);
        session.suspend().unwrap();
    }
    let session = open(store.path());
    let segment = memory(&session, LEN);
    // Everything is read once: populated, but not dirty.
    content(&segment);
    let saved: Vec<Saved> = (0..CHECKPOINTS)
        .map(|n| checkpoint(&session, &segment, n))
        .collect();
    let bytes = |part: &[Saved]| part.iter().map(|saved| saved.bytes_written).sum::<u64>();
    let (early, late) = (bytes(&saved[..100]), bytes(&saved[CHECKPOINTS - 100..]));
    assert!(
        late <= early + early / 10,
        "a hundred wrote {early} bytes at first and {late} at the end"
    );
    let before = content(&segment);
    session.suspend().unwrap();
    let session = open(store.path());
    assert!(content(&memory(&session, LEN)) == before);
    assert!(session.log().unwrap().len() >= CHECKPOINTS);
}
