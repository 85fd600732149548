use std::{
    alloc::Layout,
    any::type_name,
    collections::HashMap,
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RecursiveRwLock};

use super::{Root, RootError};
use crate::{
    gate::{Gate, Kind, Label},
    heap::{Heap, RootEntry},
    persist::{Persist, Schema},
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
    schema: [u8; 32],
    text: String,
    layout: Layout,
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

    fn accepts(&self, entry: &RootEntry) -> bool {
        entry.schema == self.schema && entry.layout == self.layout
    }
}

impl HeapShared {
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
        let schema = Schema::of::<T>();
        let (fingerprint, layout) = (schema.fingerprint(), Layout::new::<T>());
        let mut open = self.open.lock();
        let entry = self
            .heap
            .root_or_new(name, layout, fingerprint)
            .map_err(|source| RootError::Heap {
                name: name.into(),
                image: image(),
                source,
            })?;
        if entry.schema != fingerprint || entry.layout != layout {
            let known = open.get(name).map(|state| state.text.clone());
            return Err(RootError::WrongType {
                name: name.into(),
                image: image(),
                wanted: format!("{} = {schema}", type_name::<T>()),
                found: known.unwrap_or_else(|| hex(&entry.schema)),
            });
        }
        let state = open.entry(name.into()).or_insert_with(|| {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            Arc::new(State {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                name: name.into(),
                label,
                schema: fingerprint,
                text: schema.to_string(),
                layout,
                place: AtomicPtr::new(entry.place.as_ptr()),
                writer: AtomicU64::new(0),
                lock: RecursiveRwLock::new(()),
            })
        });
        Ok(Root {
            shared: Arc::clone(self),
            state: Arc::clone(state),
            of: std::marker::PhantomData,
        })
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
                    .root_or_new(&state.name, state.layout, state.schema)
                    .ok(),
                Err(_) => None,
            };
            let place = entry.filter(|entry| state.accepts(entry));
            let place = place.map_or(std::ptr::null_mut(), |entry| entry.place.as_ptr());
            state.place.store(place, Ordering::Release);
        }
        valid
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

fn hex(bytes: &[u8; 32]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(64);
    for byte in bytes {
        let _never = write!(out, "{byte:02x}");
    }
    out
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
