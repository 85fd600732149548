//! What should be there, and how sure that is.

use std::{collections::BTreeMap, path::Path, path::PathBuf, rc::Rc, sync::Arc};

use segvm::{OpenError, Segment, SegmentOptions, Session, SessionOptions};
use segvm_blockcache::{BlockSize, disk::CrashDisk};
use segvm_home::DirHome;
use segvm_os::ModelKernel;

use crate::{Counts, support::Rng};

pub(crate) const LEN: usize = 192 << 10;
const STORE: &str = "/store";

pub(crate) type Bytes = Rc<Vec<u8>>;

/// A commit of an image's line.
pub(crate) struct Entry {
    pub(crate) commit: String,
    pub(crate) bytes: Bytes,
    /// Whether it was promised. If not, it was seen after a death, and the next power cut may take it.
    pub(crate) durable: bool,
}

/// An image as it should be.
#[derive(Default)]
pub(crate) struct Image {
    /// Oldest first.
    pub(crate) line: Vec<Entry>,
    /// By name: commit, and what it holds; and whether the tag was promised.
    pub(crate) tags: BTreeMap<String, (String, Bytes, bool)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Role {
    Writer,
    /// Somebody died while stealing from it.
    Unsure,
    /// Stolen from; told or not.
    Orphan,
    Reader,
}

/// A process as it should be.
pub(crate) struct Process {
    pub(crate) session: Session,
    pub(crate) segment: Segment,
    pub(crate) image: String,
    pub(crate) role: Role,
    pub(crate) memory: Vec<u8>,
    /// The commit that a reader's memory continues.
    pub(crate) base: Option<String>,
}

/// What may have happened to an image although nobody was told.
#[derive(Default)]
pub(crate) struct Unsure {
    pub(crate) image: String,
    /// A commit more, with this content.
    pub(crate) commit: Option<Bytes>,
    /// A tag more.
    pub(crate) tag: Option<String>,
    /// It is gone.
    pub(crate) removed: bool,
}

/// A death that was said beforehand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Death {
    Kill,
    PowerCut,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) disk: CrashDisk,
    pub(crate) images: BTreeMap<String, Image>,
    /// Images whose removal was seen and not promised: the next power cut may bring them back, whole.
    pub(crate) ghosts: BTreeMap<String, Image>,
    pub(crate) processes: Vec<Process>,
    pub(crate) made: usize,
    pub(crate) did: Counts,
    /// At which operation the power goes, and for whom.
    pub(crate) doom: Option<(u64, Death)>,
}

/// The step ended with its process, or with everybody.
pub(crate) struct Died;

impl World {
    pub(crate) fn new(mut rng: Rng) -> Self {
        Self {
            disk: CrashDisk::new(rng.next()),
            rng,
            images: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            processes: Vec::new(),
            made: 0,
            did: Counts::new(),
            doom: None,
        }
    }

    pub(crate) fn did(&mut self, what: &str) {
        *self.did.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn new_name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }

    pub(crate) fn home(&self) -> DirHome {
        DirHome::open(Arc::new(self.disk.clone()), PathBuf::from(STORE))
    }

    pub(crate) fn store() -> &'static Path {
        Path::new(STORE)
    }

    /// Options for a process of its own.
    pub(crate) fn process(&self) -> SessionOptions {
        let kernel = Arc::new(ModelKernel::new());
        let world = segvm::World::with(kernel, Arc::new(self.disk.clone()));
        SessionOptions::new().store(Self::store()).world(world)
    }

    pub(crate) fn newest(&self, image: &str) -> Option<&Entry> {
        self.images.get(image)?.line.last()
    }

    pub(crate) fn has(&self, image: &str, role: Role) -> bool {
        let mut all = self.processes.iter();
        all.any(|process| process.image == image && process.role == role)
    }

    pub(crate) fn pick_image(&mut self) -> Option<String> {
        let names: Vec<_> = self.images.keys().cloned().collect();
        let at = self.rng.below(names.len().max(1));
        names.get(at).cloned()
    }

    /// A commit that was promised. What came before it was made durable with it.
    pub(crate) fn promised(&mut self, image: &str, commit: String, bytes: Bytes) {
        let line = &mut self.images.entry(image.to_owned()).or_default().line;
        line.push(Entry {
            commit,
            bytes,
            durable: true,
        });
        line.iter_mut().for_each(|entry| entry.durable = true);
    }

    /// A session was told that this commit is durable.
    pub(crate) fn confirmed(&mut self, image: &str, commit: &str) {
        let Some(of) = self.images.get_mut(image) else {
            return;
        };
        if let Some(at) = of.line.iter().position(|entry| entry.commit == commit) {
            of.line[..=at]
                .iter_mut()
                .for_each(|entry| entry.durable = true);
        }
    }

    /// Whether the power is gone.
    pub(crate) fn is_dark(&self) -> bool {
        self.doom.is_some_and(|(at, _)| self.disk.operations() > at)
    }
}

pub(crate) fn segment(session: &Session) -> Result<Segment, OpenError> {
    let small = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(LEN);
    session.segment_with("memory", LEN, &small)
}

pub(crate) fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    segment.read(0, &mut bytes).unwrap();
    bytes
}
