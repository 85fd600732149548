//! Every place that has an id, one after the other: a copy that is bad is no reason to give up where another is good.

use std::{collections::HashSet, error::Error, fmt, path::PathBuf};

use super::{Store, StoreError};
use crate::{pack::format::Kind, unit::Place};

/// So many bad copies are told of, each once: whoever has more is not told anything new.
const TOLD: usize = 1024;

/// A copy that was bad where another one was good: nothing is lost, and something is wrong with the disk.
#[derive(Debug)]
pub struct BadCopy {
    /// The pack that has it.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was met there.
    pub why: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for BadCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; another copy was read instead: `segvm fsck --deep` finds what else is bad",
            self.why
        )
    }
}

type Listener = Box<dyn Fn(&BadCopy) + Send + Sync>;

/// Who is told of bad copies, and of which it was.
#[derive(Default)]
pub(super) struct Listeners {
    /// Called with this lock held, and no other of the store.
    listener: Option<Listener>,
    told: HashSet<(PathBuf, u64)>,
}

/// What came of asking every place.
pub(super) enum Asked<T, E> {
    /// One is good; those that were asked before it are not.
    Good(T, Vec<(Place, E)>),
    /// None is good, or there is none; a pack that may have it could not be looked into.
    None(Vec<E>, Option<StoreError>),
}

/// What is known while places are asked.
struct Asking<E> {
    bad: Vec<(Place, E)>,
    /// The first pack that could not be looked into.
    closed: Option<StoreError>,
}

impl<E> Asking<E> {
    /// `Some` ends it.
    fn ask<T>(
        &mut self,
        place: Place,
        attempt: &mut impl FnMut(Place) -> Result<T, E>,
    ) -> Option<T> {
        if self.bad.iter().any(|(asked, _)| *asked == place) {
            return None;
        }
        match attempt(place) {
            Ok(good) => Some(good),
            Err(error) => {
                self.bad.push((place, error));
                None
            }
        }
    }
}

impl Store {
    /// Has `listener` told of each copy that was bad where another one was good, once; instead of whoever was before.
    pub fn on_bad_copy(&self, listener: impl Fn(&BadCopy) + Send + Sync + 'static) {
        self.bad_copies.lock().listener = Some(Box::new(listener));
    }

    pub(super) fn tell(&self, place: &Place, why: impl Into<Box<dyn Error + Send + Sync>>) {
        let (path, offset) = (self.pack_path(place.pack), place.offset);
        let mut bad = self.bad_copies.lock();
        if bad.told.len() < TOLD && bad.told.insert((path.clone(), offset)) {
            let why = why.into();
            if let Some(listener) = &bad.listener {
                listener(&BadCopy { path, offset, why });
            }
        }
    }

    /// Tries every place that has an id: packs of this process, sealed ones, those that are read along; and looks again for packs
    /// that appeared since.
    pub(super) fn ask_all<T, E>(
        &self,
        kind: Kind,
        id: &[u8; 32],
        mut attempt: impl FnMut(Place) -> Result<T, E>,
    ) -> Asked<T, E> {
        let mut asking = Asking {
            bad: Vec::new(),
            closed: None,
        };
        let first = self.find_open(kind, id);
        let good = first.and_then(|place| asking.ask(place, &mut attempt));
        let good = good.or_else(|| self.ask_sealed(kind, id, &mut asking, &mut attempt));
        let good = good.or_else(|| {
            let along = self.find_along(kind, id);
            along.and_then(|place| asking.ask(place, &mut attempt))
        });
        let good = good.or_else(|| {
            if let Some(closed) = self.list_packs().unwrap_or_else(Some) {
                asking.closed.get_or_insert(closed);
            }
            self.ask_sealed(kind, id, &mut asking, &mut attempt)
        });
        match good {
            Some(good) => Asked::Good(good, asking.bad),
            None => {
                let bad = asking.bad.into_iter().map(|(_, error)| error);
                Asked::None(bad.collect(), asking.closed)
            }
        }
    }

    fn ask_sealed<T, E>(
        &self,
        kind: Kind,
        id: &[u8; 32],
        asking: &mut Asking<E>,
        attempt: &mut impl FnMut(Place) -> Result<T, E>,
    ) -> Option<T> {
        let known = self.known();
        for pack in known.candidates(id) {
            match pack.find(&**self.disk(), kind, id) {
                Ok(Some(place)) => {
                    let good = asking.ask(place, attempt);
                    if good.is_some() {
                        return good;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let closed = StoreError::sealed(error, pack.id, pack.path.clone());
                    asking.closed.get_or_insert(closed);
                }
            }
        }
        None
    }
}
