//! What each line of docs/design/leases.md says, once.

use std::time::Duration;

use segvm_home::lease::{
    Answer, Checkout, CommitRefusal, Committed, Event, Granted, RenewRefusal, State, Term, Token,
};

use crate::{at, commit, holder};

const TERM: Term = Term::For(Duration::from_secs(10));

struct World(State);

impl World {
    fn new() -> Self {
        Self(State::default())
    }

    fn step(&mut self, event: &Event, now: i64) -> Answer {
        let (next, answer) = self.0.step(event, at(now));
        self.0 = next;
        answer
    }

    fn acquire(&mut self, pid: u32, now: i64) -> Granted {
        let event = Event::Acquire {
            holder: holder(pid),
            term: TERM,
            checkout: None,
        };
        match self.step(&event, now) {
            Answer::Acquire(Ok(granted)) => granted,
            other => panic!("{other:?}"),
        }
    }

    fn commit(
        &mut self,
        token: Option<Token>,
        base: Option<u32>,
        n: u32,
        now: i64,
    ) -> Result<Committed, CommitRefusal> {
        let checkout = Checkout {
            token,
            base: base.map(commit),
        };
        let event = Event::Commit {
            checkout,
            commit: commit(n),
        };
        match self.step(&event, now) {
            Answer::Commit(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn steal(&mut self, pid: u32, now: i64) -> Granted {
        let event = Event::Steal {
            holder: holder(pid),
            term: TERM,
        };
        match self.step(&event, now) {
            Answer::Steal(stolen) => stolen.granted,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_laptop_that_slept_goes_on_if_nobody_else_wrote() {
    let mut world = World::new();
    let lease = world.acquire(1, 0);
    let token = Some(lease.token);
    world.commit(token, None, 1, 5).unwrap();
    world.commit(token, Some(1), 2, 3600).unwrap();
    assert_eq!(world.0.outstanding(), None, "and its lease is over");
    let renew = Event::Renew {
        token: lease.token,
        term: TERM,
    };
    let lapsed = RenewRefusal::Lapsed { token: lease.token };
    assert_eq!(world.step(&renew, 3601), Answer::Renew(Err(lapsed)));
    let again = Event::Acquire {
        holder: holder(1),
        term: TERM,
        checkout: Some(Checkout {
            token,
            base: Some(commit(2)),
        }),
    };
    let Answer::Acquire(Ok(granted)) = world.step(&again, 3602) else {
        panic!("refused")
    };
    assert!(granted.token > lease.token);
}

#[test]
fn an_expired_holder_is_held_off_and_becomes_an_orphan_when_the_image_moves_on() {
    let mut world = World::new();
    let old = Some(world.acquire(1, 0).token);
    world.commit(old, None, 1, 1).unwrap();
    let new = world.acquire(2, 20);
    let refused = world.commit(old, Some(1), 10, 21).unwrap_err();
    assert!(
        matches!(&refused, CommitRefusal::Held(grant) if grant.token == new.token),
        "{refused}"
    );
    world.commit(Some(new.token), Some(1), 2, 22).unwrap();
    let refused = world.commit(old, Some(1), 10, 23).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the image was taken over by program-2, process 2 on box, at 1970-01-01T00:00:20Z: \
         branch to keep what changed since"
    );
}

#[test]
fn who_was_stolen_from_stays_refused_when_the_thief_is_gone() {
    let mut world = World::new();
    let old = Some(world.acquire(1, 0).token);
    let thief = world.steal(2, 1);
    world.step(&Event::Release { token: thief.token }, 2);
    let refused = world.commit(old, None, 1, 3).unwrap_err();
    let CommitRefusal::Orphaned(orphan) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(orphan.newest.as_ref().unwrap().holder.pid, 2);
    assert_eq!(orphan.newest.as_ref().unwrap().holder.since, at(1));
    // A reader of the same commit is not meant.
    world.commit(None, None, 1, 4).unwrap();
}

#[test]
fn a_readers_commit_needs_an_image_that_stood_still_and_is_free() {
    let mut world = World::new();
    let writer = world.acquire(1, 0);
    let token = Some(writer.token);
    assert!(matches!(
        world.commit(None, None, 9, 1),
        Err(CommitRefusal::Held(_))
    ));
    world.commit(token, None, 1, 2).unwrap();
    assert!(matches!(
        world.commit(None, None, 9, 3),
        Err(CommitRefusal::Moved { .. })
    ));
    world.step(
        &Event::Release {
            token: writer.token,
        },
        4,
    );
    assert!(matches!(
        world.commit(None, None, 9, 5),
        Err(CommitRefusal::Moved { .. })
    ));
    world.commit(None, Some(1), 2, 6).unwrap();
    // The writer released, and somebody without a lease moved the image on.
    let refused = world.commit(token, Some(1), 3, 7).unwrap_err();
    let id = format!("{:.12}", commit(2));
    assert_eq!(
        refused.to_string(),
        format!(
            "the lease ended and {id} was committed by somebody else: branch to keep what changed since"
        )
    );
}

#[test]
fn a_hand_over_is_a_commit_and_a_new_token_in_one_step() {
    let mut world = World::new();
    let old = world.acquire(1, 0);
    let mut checkout = Checkout {
        token: Some(old.token),
        base: None,
    };
    let hand_over = |checkout| Event::HandOver {
        checkout,
        commit: Some(commit(1)),
        to: holder(2),
        term: TERM,
    };
    let Answer::HandOver(Ok(new)) = world.step(&hand_over(checkout), 1) else {
        panic!("refused")
    };
    assert_eq!(new.head, Some(commit(1)));
    assert!(new.token > old.token);
    assert!(matches!(
        world.commit(Some(old.token), Some(1), 2, 2),
        Err(CommitRefusal::Held(_))
    ));
    world.commit(Some(new.token), Some(1), 2, 3).unwrap();
    // Who has no lease any more has nothing to hand over.
    checkout.base = Some(commit(2));
    let lapsed = Answer::HandOver(Err(CommitRefusal::Lapsed { token: old.token }));
    world.step(&Event::Release { token: new.token }, 4);
    assert_eq!(world.step(&hand_over(checkout), 5), lapsed);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut world = World::new();
    world.acquire(1, 1000);
    world.step(&Event::Tick, 1004);
    world.step(&Event::Tick, 10);
    world.step(&Event::Tick, 15);
    assert_eq!(
        world.0.left(),
        Some(Term::For(Duration::from_secs(1))),
        "four and five seconds of ten passed"
    );
    world.step(&Event::Tick, 16);
    assert_eq!(world.0.outstanding(), None);
}

#[test]
fn a_lost_answer_can_be_asked_for_again() {
    let mut world = World::new();
    let token = Some(world.acquire(1, 0).token);
    assert_eq!(world.commit(token, None, 1, 1), Ok(Committed::New));
    assert_eq!(world.commit(token, None, 1, 2), Ok(Committed::Already));
    world.steal(2, 3);
    assert_eq!(world.commit(token, None, 1, 4), Ok(Committed::Already));
    assert!(world.commit(token, Some(1), 2, 5).is_err());
}
