//! What a subscriber of `tracing` is told: which spans, in which order, inside which, and their fields.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use segvm::{Rounds, SegmentOptions, Session, SessionOptions};
use segvm_blockcache::{
    Alone,
    disk::RealDisk,
    gc::{Options, collect},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// A span that was begun.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    inside: Option<usize>,
    closed: bool,
}

/// Keeps the spans of one thread.
#[derive(Clone, Default)]
struct Collector {
    seen: Arc<Mutex<Vec<Seen>>>,
    stack: Arc<Mutex<Vec<usize>>>,
    misnested: Arc<AtomicUsize>,
}

impl Collector {
    fn at(id: &Id) -> usize {
        usize::try_from(id.into_u64()).unwrap() - 1
    }

    /// All that was begun since the last time, as an indented list, and the spans themselves.
    fn take(&self) -> (String, Vec<Seen>) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(self.stack.lock().unwrap().is_empty());
        assert_eq!(self.misnested.load(Ordering::Relaxed), 0);
        assert!(seen.iter().all(|span| span.closed), "{seen:?}");
        let mut depths: Vec<usize> = Vec::new();
        let mut tree = String::new();
        for span in &seen {
            let depth = span.inside.map_or(0, |inside| depths[inside] + 1);
            depths.push(depth);
            tree += &format!("{:1$}{2}\n", "", 2 * depth, span.name);
        }
        (tree, seen)
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "segvm"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen {
            name: span.metadata().name(),
            inside: self.stack.lock().unwrap().last().copied(),
            ..Seen::default()
        };
        span.record(&mut Fields(&mut seen.fields));
        let mut all = self.seen.lock().unwrap();
        all.push(seen);
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.seen.lock().unwrap();
        values.record(&mut Fields(&mut all[Self::at(span)].fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        self.stack.lock().unwrap().push(Self::at(span));
    }

    fn exit(&self, span: &Id) {
        if self.stack.lock().unwrap().pop() != Some(Self::at(span)) {
            self.misnested.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_close(&self, span: Id) -> bool {
        self.seen.lock().unwrap()[Self::at(&span)].closed = true;
        true
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn open(store: &std::path::Path) -> Session {
    SessionOptions::new()
        .store(store)
        .on_flush("lets-go", |_| ())
        .on_resume("comes-back", |_| ())
        .open("traced")
        .unwrap()
}

fn field<'a>(seen: &'a [Seen], name: &str, field: &str) -> &'a str {
    let span = seen.iter().find(|span| span.name == name);
    let span = span.unwrap_or_else(|| panic!("no span {name}: {seen:?}"));
    let value = span.fields.get(field);
    value.unwrap_or_else(|| panic!("no field {field}: {span:?}"))
}

fn number(seen: &[Seen], name: &str, of: &str) -> u64 {
    field(seen, name, of).parse().unwrap()
}

const LEN: usize = 8 << 20;

#[test]
fn a_life_as_spans() {
    let store = tempfile::tempdir().unwrap();
    let collector = Collector::default();
    tracing::subscriber::with_default(collector.clone(), || life(store.path(), &collector));
}

fn life(store: &std::path::Path, collector: &Collector) {
    let session = open(store);
    let (tree, seen) = collector.take();
    assert_eq!(tree, "open\n  plan\n");
    assert_eq!(field(&seen, "open", "image"), "traced");
    assert_eq!(number(&seen, "open", "sequence"), 0);

    let options = SegmentOptions::default().reserve(LEN);
    let segment = session.segment_with("data", LEN, &options).unwrap();
    segment.write(0, &vec![7; LEN]).unwrap();
    session.checkpoint_with(Rounds::Auto).unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(
        tree,
        "checkpoint\n  hook\n  scan\n  round\n    store\n  scan\n  pause\n  residue\n    store\n  publish\n"
    );
    assert_eq!(field(&seen, "hook", "hook"), "lets-go");
    assert_eq!(number(&seen, "checkpoint", "sequence"), 1);
    assert_eq!(field(&seen, "checkpoint", "changed"), "true");
    assert_eq!(number(&seen, "checkpoint", "rounds"), 1);
    assert!(number(&seen, "checkpoint", "bytes_written") > 0);
    assert!(number(&seen, "checkpoint", "took_us") >= number(&seen, "checkpoint", "pause_us"));
    assert_eq!(number(&seen, "round", "bytes"), LEN as u64);
    assert_eq!(number(&seen, "store", "bytes_dirty"), LEN as u64);
    assert_eq!(number(&seen, "pause", "pages"), 0);
    assert!(number(&seen, "pause", "waited_us") < 10_000_000);
    assert!(field(&seen, "publish", "commit").len() > 6);

    // Little is copied in the pause, without a round.
    segment.write(0, &[8]).unwrap();
    session.checkpoint().unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(
        tree,
        "checkpoint\n  hook\n  scan\n  pause\n  residue\n    store\n  publish\n"
    );
    assert_eq!(number(&seen, "pause", "pages"), 1);
    assert_eq!(number(&seen, "store", "blocks_dirty"), 1);

    session.restore("-1").unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(tree, "restore\n  hook\n");
    assert_eq!(field(&seen, "restore", "to"), "-1");
    assert_eq!(field(&seen, "hook", "kind"), "resume");

    session.branch("other").unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(tree, "branch\n");
    assert_eq!(field(&seen, "branch", "new"), "other");

    segment.write(5, &[9]).unwrap();
    drop(segment);
    session.suspend().unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(tree, "suspend\n  hook\n  store\n  publish\n  close\n");
    assert_eq!(number(&seen, "suspend", "sequence"), 3);

    let session = open(store);
    let (tree, seen) = collector.take();
    assert_eq!(tree, "open\n  plan\n  attach\n  hook\n");
    assert_eq!(number(&seen, "open", "bytes"), LEN as u64);
    assert_eq!(field(&seen, "attach", "segment"), "data");
    drop(session);
    drop(collector.take());

    let alone = Alone::open(Arc::new(RealDisk), store).unwrap();
    collect(&alone, &[], &[], Options::default(), &mut |_| ()).unwrap();
    let (tree, seen) = collector.take();
    assert_eq!(tree, "gc\n  mark\n");
    assert_eq!(number(&seen, "gc", "roots"), 0);
    assert!(number(&seen, "gc", "packs_freed") > 0);
}

#[test]
fn a_failed_hook_ends_its_spans() {
    let store = tempfile::tempdir().unwrap();
    let collector = Collector::default();
    tracing::subscriber::with_default(collector.clone(), || {
        let session = open(store.path());
        session.on_flush("fails", |_| Err::<(), _>(fmt::Error));
        drop(collector.take());
        assert!(session.checkpoint().is_err());
        let (tree, seen) = collector.take();
        assert_eq!(tree, "checkpoint\n  hook\n  hook\n  hook\n");
        assert!(!seen[0].fields.contains_key("sequence"));
    });
}
