use std::{
    alloc::Layout,
    any::TypeId,
    collections::HashMap,
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RecursiveRwLock};

use super::{Mismatch, Root, RootError};
use crate::{
    gate::{Gate, Kind, Label},
    heap::{Heap, HeapError, RootEntry, RootType},
    persist::Persist,
    schema::{Schema, SchemaError},
};

/// What the roots of one heap share: the heap, the gate, and the locks, all of them in the process, none in the image.
pub struct HeapShared {
    heap: Heap,
    gate: Arc<Gate>,
    image: Arc<str>,
    segment: Arc<str>,
    /// The roots that this process has opened. Taken before the heap's lock, and after a pass.
    open: Mutex<HashMap<String, Arc<State>>>,
}

/// One open root, whatever handles to it there are.
pub(super) struct State {
    /// Tells roots apart in the table that each thread keeps of those it reads.
    pub(super) id: u64,
    name: Arc<str>,
    pub(super) label: Label,
    /// The type that asked for it first.
    of: TypeId,
    wanted: Wanted,
    /// Where the value lies; null after a restore that did not find it. Changed only while the gate is closed to everybody.
    place: AtomicPtr<u8>,
    /// The writer's thread, by [`super::guard::this_thread`]; 0 while there is none.
    pub(super) writer: AtomicU64,
    /// Taken after a pass. In the process: a lock in an image would be held for ever after a resume.
    pub(super) lock: RecursiveRwLock<()>,
}

impl State {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn place(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.place.load(Ordering::Acquire))
    }
}

/// The type that a program wants a root to be of.
pub(crate) struct Wanted {
    pub(crate) schema: Schema,
    fingerprint: [u8; 32],
    layout: Layout,
    described: Vec<u8>,
}

impl Wanted {
    pub(crate) fn of<T: Persist>() -> Result<Self, SchemaError> {
        let schema = Schema::of::<T>();
        Ok(Self {
            fingerprint: schema.fingerprint(),
            layout: Layout::new::<T>(),
            described: schema.encode()?,
            schema,
        })
    }

    pub(crate) fn as_type(&self) -> RootType<'_> {
        RootType {
            layout: self.layout,
            fingerprint: self.fingerprint,
            described: &self.described,
        }
    }

    pub(crate) fn is(&self, entry: &RootEntry) -> bool {
        entry.schema == self.fingerprint && entry.layout == self.layout
    }
}

impl HeapShared {
    /// The segment whose roots a program opens without naming it.
    pub(crate) const USUAL: &str = "heap";

    /// Binds a heap to the gate of its session. The names are for messages.
    #[must_use]
    pub fn new(heap: Heap, gate: Arc<Gate>, image: String, segment: String) -> Arc<Self> {
        Arc::new(Self {
            heap,
            gate,
            image: image.into(),
            segment: segment.into(),
            open: Mutex::new(HashMap::new()),
        })
    }

    /// Finds the root `name`, or makes it: all zeros, which is the default of every type.
    ///
    /// - **Blocks**: while a checkpoint copies its residue.
    /// - **Errors**: [`RootError::WrongType`] where the root holds another type, [`RootError::Heap`] where the heap is
    ///   full or the name is not one, [`RootError::Gate`] after the session's end.
    pub fn root<T: Persist>(self: &Arc<Self>, name: &str) -> Result<Root<T>, RootError> {
        let image = || Arc::clone(&self.image);
        let label = self.gate.label(name);
        let _pass = self
            .gate
            .enter(Kind::Write, label)
            .map_err(|source| RootError::Gate {
                name: name.into(),
                image: image(),
                source,
            })?;
        let mut open = self.open.lock();
        // Programs ask again and again: what was compared once is not written down anew.
        let again = |state: &&Arc<State>| state.of == TypeId::of::<T>() && state.place().is_some();
        if let Some(state) = open.get(name).filter(again) {
            return Ok(self.handle(state));
        }
        let wanted = Wanted::of::<T>().map_err(|source| RootError::Schema {
            name: name.into(),
            image: image(),
            source,
        })?;
        let in_heap = |source| RootError::Heap {
            name: name.into(),
            image: image(),
            source,
        };
        let entry = self
            .heap
            .root_or_new(name, wanted.as_type())
            .map_err(in_heap)?;
        // Who has it open already holds what is in memory to be of its type.
        let taken = open
            .get(name)
            .is_some_and(|state| state.wanted.fingerprint != wanted.fingerprint);
        if taken || !self.becomes(name, &entry, &wanted).map_err(in_heap)? {
            return Err(RootError::WrongType {
                name: name.into(),
                mismatch: Box::new(self.mismatch(name, &entry, wanted.schema)),
            });
        }
        let state = open.entry(name.into()).or_insert_with(|| {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            Arc::new(State {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                name: name.into(),
                label,
                of: TypeId::of::<T>(),
                wanted,
                place: AtomicPtr::new(entry.place.as_ptr()),
                writer: AtomicU64::new(0),
                lock: RecursiveRwLock::new(()),
            })
        });
        Ok(self.handle(state))
    }

    fn handle<T: Persist>(self: &Arc<Self>, state: &Arc<State>) -> Root<T> {
        Root {
            shared: Arc::clone(self),
            state: Arc::clone(state),
            of: std::marker::PhantomData,
        }
    }

    /// Looks everything up again after the memory below was replaced by another checkpoint's. Roots that were not there
    /// yet are made again; those that held another type then are refused by their guards.
    ///
    /// The caller has closed the gate to everybody.
    ///
    /// - **Errors**: as [`Heap::open`]; every guard is then refused.
    pub fn reopen(&self) -> Result<(), crate::heap::HeapError> {
        let open = self.open.lock();
        let valid = self.heap.revalidate();
        for state in open.values() {
            let entry = match valid {
                Ok(()) => self
                    .heap
                    .root_or_new(&state.name, state.wanted.as_type())
                    .ok(),
                Err(_) => None,
            };
            let place = entry.filter(|entry| {
                let is = self.becomes(&state.name, entry, &state.wanted);
                is.unwrap_or(false)
            });
            let place = place.map_or(std::ptr::null_mut(), |entry| entry.place.as_ptr());
            state.place.store(place, Ordering::Release);
        }
        valid
    }

    /// Tells whether a root is of that type, or was: names that have changed since are written anew.
    ///
    /// The caller has `open`, and a pass or the gate closed; no handle to the root is of another type.
    fn becomes(&self, name: &str, entry: &RootEntry, wanted: &Wanted) -> Result<bool, HeapError> {
        if wanted.is(entry) {
            return Ok(true);
        }
        if !self.is_or_was(name, entry, wanted) {
            return Ok(false);
        }
        // SAFETY: only names differ, and variants that no stored value has: each value is one of the wanted type.
        unsafe { self.heap.retype_root(name, wanted.as_type()) }?;
        Ok(true)
    }

    /// Tells whether a root's value is one of that type, under these names or earlier ones.
    pub(crate) fn is_or_was(&self, name: &str, entry: &RootEntry, wanted: &Wanted) -> bool {
        let fits = |stored: Schema| stored.fits(&wanted.schema) && entry.layout == wanted.layout;
        wanted.is(entry) || self.stored(name).is_some_and(fits)
    }

    /// What a root is, as it is stored.
    pub(crate) fn stored(&self, name: &str) -> Option<Schema> {
        Schema::decode(&self.heap.root_described(name)?).ok()
    }

    pub(crate) fn mismatch(&self, name: &str, entry: &RootEntry, wanted: Schema) -> Mismatch {
        Mismatch {
            root: name.to_owned(),
            image: self.image(),
            segment: Arc::clone(&self.segment),
            wanted,
            found: self.stored(name),
            fingerprint: entry.schema,
        }
    }

    /// The heap. Who takes or gives blocks holds a pass of the gate.
    #[must_use]
    pub const fn heap(&self) -> &Heap {
        &self.heap
    }

    /// The session's gate.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(super) fn image(&self) -> Arc<str> {
        Arc::clone(&self.image)
    }
}

impl fmt::Debug for HeapShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapShared")
            .field("image", &self.image)
            .field("segment", &self.segment)
            .field("heap", &self.heap)
            .finish_non_exhaustive()
    }
}
