//! The slow, obvious twin: it keeps everything that ever happened and looks through all of it.

use std::time::Duration;

use proptest::prelude::*;
use segvm_blockcache::CommitId;
use segvm_home::{
    Timestamp,
    lease::{
        AcquireRefusal, Answer, Checkout, CommitRefusal, Committed, Event, RenewRefusal, State,
        Term, Token,
    },
};

use crate::{at, commit, holder};

/// An answer, as far as it decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Granted(u64, Option<CommitId>),
    /// The token granted, and the one it was taken from.
    Stolen(u64, Option<u64>),
    Done,
    Already,
    Held(u64),
    Orphaned,
    Moved,
    Lapsed,
    NotHeld,
}

fn verdict(answer: &Answer) -> Verdict {
    let granted = |granted: &segvm_home::lease::Granted| {
        Verdict::Granted(granted.token.number(), granted.head)
    };
    let refused = |refusal: &CommitRefusal| match refusal {
        CommitRefusal::Held(grant) => Verdict::Held(grant.token.number()),
        CommitRefusal::Orphaned(_) => Verdict::Orphaned,
        CommitRefusal::Moved { .. } => Verdict::Moved,
        CommitRefusal::Lapsed { .. } => Verdict::Lapsed,
        other => panic!("{other:?}"),
    };
    match answer {
        Answer::Acquire(Ok(lease)) | Answer::HandOver(Ok(lease)) => granted(lease),
        Answer::Acquire(Err(AcquireRefusal::Held(grant))) => Verdict::Held(grant.token.number()),
        Answer::Acquire(Err(AcquireRefusal::Orphaned(_)))
        | Answer::Renew(Err(RenewRefusal::Orphaned(_))) => Verdict::Orphaned,
        Answer::Acquire(Err(AcquireRefusal::Moved { .. })) => Verdict::Moved,
        Answer::Renew(Err(RenewRefusal::Lapsed { .. })) => Verdict::Lapsed,
        Answer::Renew(Ok(())) | Answer::Release(Ok(())) | Answer::Ended(Ok(())) | Answer::Tick => {
            Verdict::Done
        }
        Answer::Release(Err(_)) | Answer::Ended(Err(_)) => Verdict::NotHeld,
        Answer::Steal(stolen) => Verdict::Stolen(
            stolen.granted.token.number(),
            stolen.from.as_ref().map(|grant| grant.token.number()),
        ),
        Answer::Commit(Ok(Committed::New)) => Verdict::Done,
        Answer::Commit(Ok(Committed::Already)) => Verdict::Already,
        Answer::Commit(Err(refusal)) | Answer::HandOver(Err(refusal)) => refused(refusal),
        other => panic!("{other:?}"),
    }
}

/// Time as the home lived it: what its clock went forward, added up.
type Lived = Duration;

#[derive(Debug)]
struct PastGrant {
    token: u64,
    /// `None`: it does not end by itself.
    ends: Option<Lived>,
    over: bool,
    stolen: bool,
}

#[derive(Debug, Default)]
struct Twin {
    line: Vec<CommitId>,
    grants: Vec<PastGrant>,
    lived: Lived,
    clock: Timestamp,
}

impl Twin {
    fn outstanding(&self) -> Vec<u64> {
        let lasts = |grant: &&PastGrant| {
            !grant.over && !grant.stolen && grant.ends.is_none_or(|ends| self.lived < ends)
        };
        self.grants
            .iter()
            .filter(lasts)
            .map(|grant| grant.token)
            .collect()
    }

    fn was_stolen(&self, token: u64) -> bool {
        self.grants
            .iter()
            .any(|grant| grant.stolen && grant.token >= token)
            || token == 0
    }

    fn grant(&mut self, term: Term) -> u64 {
        let token = 1 + self.grants.len() as u64;
        let ends = match term {
            Term::For(term) => Some(self.lived + term),
            Term::WhileHeld => None,
        };
        self.grants.push(PastGrant {
            token,
            ends,
            over: false,
            stolen: false,
        });
        token
    }

    fn end(&mut self, token: u64) -> Verdict {
        if !self.outstanding().contains(&token) {
            return Verdict::NotHeld;
        }
        for grant in &mut self.grants {
            grant.over |= grant.token == token;
        }
        Verdict::Done
    }

    /// The rule, word for word, and why not where it says no.
    fn may_commit(&self, checkout: Checkout) -> Option<Verdict> {
        let token = checkout.token.map(Token::number);
        let outstanding = self.outstanding();
        let current = token.is_some_and(|token| outstanding.contains(&token));
        let no_other_commit = self.line.last() == checkout.base.as_ref();
        let no_lease = outstanding.is_empty();
        let by_the_rule = current || (no_other_commit && no_lease);
        // The two points in which the home is stricter.
        let stolen = token.is_some_and(|token| self.was_stolen(token));
        if by_the_rule && no_other_commit && !stolen {
            return None;
        }
        Some(if stolen {
            Verdict::Orphaned
        } else if no_other_commit {
            Verdict::Held(outstanding[0])
        } else if token.is_some() && !current {
            Verdict::Orphaned
        } else {
            Verdict::Moved
        })
    }

    fn step(&mut self, event: &Event, now: Timestamp) -> Verdict {
        if now > self.clock {
            self.lived += now.since(self.clock);
        }
        self.clock = now;
        let head = self.line.last().copied();
        match event {
            Event::Acquire { term, checkout, .. } => {
                let token = checkout.and_then(|checkout| checkout.token);
                if token.is_some_and(|token| self.was_stolen(token.number())) {
                    return Verdict::Orphaned;
                }
                if let Some(&token) = self.outstanding().first() {
                    return Verdict::Held(token);
                }
                match checkout {
                    Some(checkout) if checkout.base != head && checkout.token.is_some() => {
                        Verdict::Orphaned
                    }
                    Some(checkout) if checkout.base != head => Verdict::Moved,
                    _ => Verdict::Granted(self.grant(*term), head),
                }
            }
            Event::Renew { token, term } => {
                let token = token.number();
                if self.was_stolen(token) {
                    return Verdict::Orphaned;
                }
                if !self.outstanding().contains(&token) {
                    return Verdict::Lapsed;
                }
                let lived = self.lived;
                for grant in &mut self.grants {
                    if grant.token == token {
                        grant.ends = match term {
                            Term::For(term) => Some(lived + *term),
                            Term::WhileHeld => None,
                        };
                    }
                }
                Verdict::Done
            }
            Event::Release { token } | Event::Ended { token } => self.end(token.number()),
            Event::Steal { term, .. } => {
                let from = self.outstanding().first().copied();
                for grant in &mut self.grants {
                    grant.stolen = true;
                }
                Verdict::Stolen(self.grant(*term), from)
            }
            Event::Commit { checkout, commit } => {
                if head == Some(*commit) {
                    return Verdict::Already;
                }
                if let Some(refused) = self.may_commit(*checkout) {
                    return refused;
                }
                self.line.push(*commit);
                Verdict::Done
            }
            Event::HandOver {
                checkout,
                commit,
                term,
                ..
            } => {
                if let Some(refused) = self.may_commit(*checkout) {
                    return refused;
                }
                let token = checkout.token.map_or(0, Token::number);
                if self.end(token) == Verdict::NotHeld {
                    return Verdict::Lapsed;
                }
                if let Some(commit) = commit
                    && head != Some(*commit)
                {
                    self.line.push(*commit);
                }
                let head = self.line.last().copied();
                Verdict::Granted(self.grant(*term), head)
            }
            Event::Tick => Verdict::Done,
        }
    }
}

fn token() -> impl Strategy<Value = Token> {
    (0..6_u64).prop_map(Token::new)
}

fn checkout() -> impl Strategy<Value = Checkout> {
    let base = proptest::option::weighted(0.8, (0..4_u32).prop_map(commit));
    (proptest::option::of(token()), base).prop_map(|(token, base)| Checkout { token, base })
}

fn term() -> impl Strategy<Value = Term> {
    prop_oneof![
        3 => (0..30_u64).prop_map(|secs| Term::For(Duration::from_secs(secs))),
        1 => Just(Term::WhileHeld),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let who = || (1..4_u32).prop_map(holder);
    prop_oneof![
        3 => (who(), term(), proptest::option::of(checkout()))
            .prop_map(|(holder, term, checkout)| Event::Acquire { holder, term, checkout }),
        1 => (token(), term()).prop_map(|(token, term)| Event::Renew { token, term }),
        1 => token().prop_map(|token| Event::Release { token }),
        1 => token().prop_map(|token| Event::Ended { token }),
        1 => (who(), term()).prop_map(|(holder, term)| Event::Steal { holder, term }),
        4 => (checkout(), (0..4_u32).prop_map(commit))
            .prop_map(|(checkout, commit)| Event::Commit { checkout, commit }),
        1 => (checkout(), proptest::option::of((0..4_u32).prop_map(commit)), who(), term())
            .prop_map(|(checkout, commit, to, term)| Event::HandOver { checkout, commit, to, term }),
        1 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_rules_answer_as_their_twin_does(
        events in proptest::collection::vec((event(), -20..40_i64), 1..60),
    ) {
        let (mut state, mut twin, mut now) = (State::default(), Twin::default(), 0);
        for (event, passed) in &events {
            now += passed;
            let before = state.clone();
            let (next, answer) = state.step(event, at(now));
            let wanted = twin.step(event, at(now));
            prop_assert_eq!(verdict(&answer), wanted, "{:?} at {}: {:?}", event, now, answer);
            state = next;
            prop_assert_eq!(state.head(), twin.line.last().copied());
            let outstanding: Vec<u64> =
                state.outstanding().iter().map(|grant| grant.token.number()).collect();
            prop_assert_eq!(outstanding, twin.outstanding());
            prop_assert!(state.last() >= before.last() && state.fenced() >= before.fenced());
            prop_assert_eq!(state.last().number(), twin.grants.len() as u64);
        }
    }
}
