//! Every world of two writers, one reader and one image, whatever happens in whatever order.
//!
//! Two searches. One goes through all sequences of events up to a depth, worlds told apart by everything in them. The
//! other goes on until there is no new world, worlds told apart by what the rules can tell apart: whether a token is
//! the newest, and whether it is fenced; whether a base or an unanswered commit is the head; how much of the term is
//! left. There are finitely many of those, so this one covers sequences of any length.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use segvm_blockcache::CommitId;
use segvm_home::lease::{Answer, Checkout, CommitRefusal, Committed, Event, State, Term, Token};

use crate::{at, commit, holder};

const WRITERS: usize = 2;
const CLIENTS: usize = 3;
/// In seconds; time passes by one, by more than a term, and back.
const TERM: u64 = 2;
const TIMES: [i64; 3] = [1, 5, -7];
/// Depth of the first search.
const DEPTH: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Client {
    /// Whether it has the image's memory.
    open: bool,
    token: Option<Token>,
    base: Option<CommitId>,
    /// A commit whose answer was lost: it is sent again before anything else is.
    unanswered: Option<CommitId>,
    /// Whether somebody stole its lease.
    stolen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    state: State,
    clients: [Client; CLIENTS],
    now: i64,
    /// Every commit that was accepted, in order, and what its sender had before it.
    line: Vec<(CommitId, Option<CommitId>)>,
    /// Every token that was granted.
    tokens: Vec<Token>,
    made: u32,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Acquire(usize),
    AcquireAgain(usize),
    Renew(usize),
    Release(usize),
    /// The home sees that the client is gone; the client may not know.
    Ended(usize),
    Steal(usize),
    Read(usize),
    Commit(usize),
    /// As commit, but the answer never comes.
    CommitUnanswered(usize),
    HandOver(usize, usize),
    Close(usize),
    Time(i64),
}

fn acts() -> Vec<Act> {
    let mut acts: Vec<Act> = TIMES.map(Act::Time).to_vec();
    for client in 0..CLIENTS {
        acts.extend([
            Act::Read(client),
            Act::Commit(client),
            Act::CommitUnanswered(client),
            Act::Close(client),
        ]);
    }
    for client in 0..WRITERS {
        acts.extend([
            Act::Acquire(client),
            Act::AcquireAgain(client),
            Act::Renew(client),
            Act::Release(client),
            Act::Ended(client),
            Act::Steal(client),
            Act::HandOver(client, 1 - client),
        ]);
    }
    acts
}

impl World {
    fn new() -> Self {
        Self {
            state: State::default(),
            clients: [Client::default(); CLIENTS],
            now: 0,
            line: Vec::new(),
            tokens: Vec::new(),
            made: 0,
        }
    }

    /// The world after an act; `None` where the act makes no sense.
    fn after(&self, act: Act) -> Option<Self> {
        let mut next = self.clone();
        next.act(act)?;
        next.check(self, act);
        Some(next)
    }

    fn ask(&mut self, event: &Event) -> Answer {
        let (state, answer) = self.state.step(event, at(self.now));
        self.state = state;
        answer
    }

    fn act(&mut self, act: Act) -> Option<()> {
        let term = Term::For(Duration::from_secs(TERM));
        let who = |client: usize| holder(u32::try_from(client).unwrap());
        match act {
            Act::Time(passed) => {
                self.now += passed;
                self.ask(&Event::Tick);
            }
            Act::Read(client) => {
                let base = self.state.head();
                self.clients[client] = Client {
                    open: true,
                    base,
                    ..Client::default()
                };
            }
            Act::Close(client) => self.clients[client] = Client::default(),
            Act::Acquire(client) => {
                let event = Event::Acquire {
                    holder: who(client),
                    term,
                    checkout: None,
                };
                if let Answer::Acquire(Ok(granted)) = self.ask(&event) {
                    self.opened(client, granted.token, granted.head);
                }
            }
            Act::AcquireAgain(client) => {
                let Checkout { token, base } = self.ready(client)?;
                let event = Event::Acquire {
                    holder: who(client),
                    term,
                    checkout: Some(Checkout { token, base }),
                };
                if let Answer::Acquire(Ok(granted)) = self.ask(&event) {
                    assert!(!self.clients[client].stolen, "an orphan came back");
                    assert_eq!(granted.head, base, "its memory is not the head");
                    self.opened(client, granted.token, base);
                }
            }
            Act::Renew(client) => {
                let token = self.clients[client].token?;
                let stolen = self.clients[client].stolen;
                let answer = self.ask(&Event::Renew { token, term });
                assert!(!stolen || matches!(answer, Answer::Renew(Err(_))));
            }
            Act::Release(client) => {
                let token = self.clients[client].token?;
                self.ask(&Event::Release { token });
            }
            Act::Ended(client) => {
                let token = self.clients[client].token?;
                self.ask(&Event::Ended { token });
            }
            Act::Steal(client) => {
                let event = Event::Steal {
                    holder: who(client),
                    term,
                };
                let Answer::Steal(stolen) = self.ask(&event) else {
                    unreachable!("steal is never refused")
                };
                if let Some(from) = stolen.from {
                    for other in &mut self.clients {
                        other.stolen |= other.token == Some(from.token);
                    }
                }
                self.opened(client, stolen.granted.token, stolen.granted.head);
            }
            Act::Commit(client) => {
                let commit = self.send(client)?;
                if let Some(answer) = commit {
                    let mine = &mut self.clients[client];
                    mine.base = Some(answer);
                    mine.unanswered = None;
                }
            }
            Act::CommitUnanswered(client) => {
                self.send(client)?;
            }
            Act::HandOver(from, to) => {
                let checkout = self.ready(from)?;
                let event = Event::HandOver {
                    checkout,
                    commit: Some(self.make()),
                    to: who(to),
                    term,
                };
                if let Answer::HandOver(Ok(granted)) = self.ask(&event) {
                    let head = granted.head.unwrap();
                    assert!(!self.clients[from].stolen);
                    self.line.push((head, checkout.base));
                    self.clients[from].base = Some(head);
                    self.opened(to, granted.token, granted.head);
                }
            }
        }
        Some(())
    }

    fn make(&mut self) -> CommitId {
        self.made += 1;
        commit(self.made)
    }

    /// What an open client that waits for no answer can show.
    fn ready(&self, client: usize) -> Option<Checkout> {
        let Client {
            open,
            token,
            base,
            unanswered,
            ..
        } = self.clients[client];
        (open && unanswered.is_none()).then_some(Checkout { token, base })
    }

    /// Sends the client's commit, a new one or once more; the commit where it was accepted.
    fn send(&mut self, client: usize) -> Option<Option<CommitId>> {
        let Client {
            open,
            token,
            base,
            unanswered,
            stolen,
        } = self.clients[client];
        if !open {
            return None;
        }
        let commit = unanswered.unwrap_or_else(|| self.make());
        self.clients[client].unanswered = Some(commit);
        let checkout = Checkout { token, base };
        // The rule, in its own words.
        let head = self.state.head();
        let outstanding = self.state.outstanding().map(|grant| grant.token);
        let current = token.is_some() && token == outstanding;
        let by_the_rule = current || (base == head && outstanding.is_none());
        match self.ask(&Event::Commit { checkout, commit }) {
            Answer::Commit(Ok(Committed::New)) => {
                assert!(by_the_rule, "accepted against the rule");
                assert!(!stolen, "a stolen holder committed");
                self.line.push((commit, base));
                Some(Some(commit))
            }
            Answer::Commit(Ok(Committed::Already)) => {
                assert_eq!(head, Some(commit));
                Some(Some(commit))
            }
            Answer::Commit(Err(refusal)) => {
                let orphaned = matches!(refusal, CommitRefusal::Orphaned(_));
                assert!(!stolen || orphaned, "a stolen holder was told {refusal}");
                assert!(
                    stolen || !by_the_rule || self.is_fenced(token),
                    "refused against the rule: {refusal}"
                );
                Some(None)
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn is_fenced(&self, token: Option<Token>) -> bool {
        token.is_some_and(|token| token <= self.state.fenced())
    }

    fn opened(&mut self, client: usize, token: Token, base: Option<CommitId>) {
        assert!(
            self.tokens.last().is_none_or(|last| *last < token),
            "a token again, or a lower one"
        );
        self.tokens.push(token);
        self.clients[client] = Client {
            open: true,
            token: Some(token),
            base,
            ..Client::default()
        };
    }

    /// What holds in every world, and what no step may do.
    fn check(&self, before: &Self, act: Act) {
        let mut head = None;
        for (commit, base) in &self.line {
            assert_eq!(*base, head, "the line forks after {act:?}");
            head = Some(*commit);
        }
        assert_eq!(self.state.head(), head, "a commit was lost by {act:?}");
        assert!(self.line.starts_with(&before.line), "{act:?}");
        assert!(self.state.last() >= before.state.last());
        assert!(self.state.fenced() >= before.state.fenced());
        assert!(self.state.fenced() <= self.state.last());
        if let Some(grant) = self.state.outstanding() {
            assert_eq!(grant.token, self.state.last(), "not the newest grant");
        }
        if let Some(Term::For(left)) = self.state.left() {
            assert!(left <= Duration::from_secs(TERM), "longer than its term");
        }
        if let Act::Time(passed) = act {
            assert_eq!(self.line, before.line);
            assert_eq!(self.state.last(), before.state.last());
            let lost = before.state.outstanding().is_some() && self.state.outstanding().is_none();
            assert!(!lost || passed > 0, "a clock that went back ended a lease");
            assert!(
                before.state.outstanding().is_some() || self.state.outstanding().is_none(),
                "time gave a lease back"
            );
        }
    }

    /// All that the rules can tell apart. The number of a token or a commit is not among it.
    fn shape(&self) -> impl Hash + Eq + use<> {
        let head = self.state.head();
        let client = |client: &Client| {
            let token = client
                .token
                .map(|token| (token == self.state.last(), token <= self.state.fenced()));
            let unanswered = client.unanswered.map(|commit| Some(commit) == head);
            (
                client.open,
                token,
                client.base == head,
                unanswered,
                client.stolen,
            )
        };
        (self.state.left(), self.clients.each_ref().map(client))
    }
}

fn search<K: Hash + Eq>(key: impl Fn(&World) -> K, depth: usize) -> (usize, usize, usize) {
    let (acts, mut steps, mut reached) = (acts(), 0, 0);
    let first = World::new();
    let mut seen = HashSet::from([key(&first)]);
    let mut queue = VecDeque::from([(first, 0)]);
    while let Some((world, at)) = queue.pop_front() {
        reached = at;
        if at == depth {
            continue;
        }
        for act in &acts {
            let Some(next) = world.after(*act) else {
                continue;
            };
            steps += 1;
            if seen.insert(key(&next)) {
                queue.push_back((next, at + 1));
            }
        }
    }
    (seen.len(), steps, reached)
}

#[test]
fn every_sequence_up_to_a_depth_keeps_the_rules() {
    let (worlds, steps, reached) = search(World::clone, DEPTH);
    println!("{worlds} worlds, {steps} steps, depth {reached}");
    assert_eq!(reached, DEPTH);
}

#[test]
fn every_sequence_of_any_length_keeps_the_rules() {
    let (worlds, steps, reached) = search(World::shape, usize::MAX);
    println!("{worlds} shapes of worlds, {steps} steps, the last one new at depth {reached}");
    assert!(worlds > 1000, "the search is blind: {worlds}");
}
