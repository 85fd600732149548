//! The segments of a session, and the heaps and roots in them: found by name, made when first asked for.

use std::sync::Arc;

use segvm_blockcache::{Layout, Tree};
use segvm_home::SegmentKind;
use segvm_os::PageRange;

use super::{
    Session,
    error::{Error, OpenError},
};
use crate::{
    dirty::{Share, Tracker},
    gate::Kind,
    heap::{Heap, HeapOptions},
    persist::Persist,
    region::{Attribute, Region},
    root::{HeapShared, Root},
    segment::{
        Segment, SegmentOptions,
        ranges::Owner,
        space::SegmentSpace,
        state::{Shared, State as SegmentState},
    },
    world::World,
};

/// The segment that roots live in unless the program says otherwise.
pub(crate) const HEAP: &str = HeapShared::USUAL;

impl Session {
    /// Finds a root by name in the session's heap; one that is not there yet begins as all zeros, which is the empty
    /// value of every type that can live there.
    ///
    /// - **Errors**: [`Error::Root`] if it was made as another type.
    pub fn root<T: Persist>(&self, name: &str) -> Result<Root<T>, Error> {
        Ok(self.heap(HEAP)?.root(name)?)
    }

    /// The heap in the segment of that name, made if it is not there. Roots found by [`root`](Session::root) are in the one
    /// named `heap`.
    pub fn heap(&self, segment: &str) -> Result<Arc<HeapShared>, OpenError> {
        self.heap_with(segment, HeapOptions::new())
    }

    /// As [`heap`](Session::heap), with options for when it is made.
    ///
    /// - **Errors**: [`OpenError::OtherSegment`] where it was made without what is asked for: it holds what was freed so far.
    pub fn heap_with(
        &self,
        segment: &str,
        options: HeapOptions,
    ) -> Result<Arc<HeapShared>, OpenError> {
        self.core.check_process()?;
        // A checkpoint between a segment's making and its heap's would save a heap without a header. The pass comes before
        // the lock: whoever waits for the gate holds no lock.
        let gate = &self.core.gate;
        let _pass = gate.enter(Kind::Write, gate.label(segment))?;
        let mut heaps = self.core.heaps.lock();
        if let Some(heap) = heaps.get(segment) {
            self.check_heap(segment, heap.heap(), options)?;
            return Ok(Arc::clone(heap));
        }
        let in_heap = |source| OpenError::Heap {
            segment: segment.to_owned(),
            source,
        };
        let known = self.core.segments.lock().get(segment).cloned();
        let shared = match known {
            Some(shared) => {
                self.check_kind(&shared, SegmentKind::Heap)?;
                shared
            }
            None => self.create(segment, SegmentKind::Heap, &SegmentOptions::default())?,
        };
        let heap = match shared.len() {
            // Just made; or once, when the system refused memory for the heap.
            0 => {
                let space = SegmentSpace::boxed(shared);
                Heap::create_with(space, seed(&self.core.world), options).map_err(in_heap)?
            }
            _ => Heap::open(SegmentSpace::boxed(shared)).map_err(in_heap)?,
        };
        self.check_heap(segment, &heap, options)?;
        let heap = HeapShared::new(
            heap,
            Arc::clone(&self.core.gate),
            self.core.image().to_string(),
            segment.to_owned(),
        );
        heaps.insert(segment.to_owned(), Arc::clone(&heap));
        Ok(heap)
    }

    fn check_heap(
        &self,
        segment: &str,
        heap: &Heap,
        options: HeapOptions,
    ) -> Result<(), OpenError> {
        if options == HeapOptions::new() || options == heap.options() {
            return Ok(());
        }
        Err(OpenError::OtherSegment {
            image: self.image(),
            segment: segment.to_owned(),
            has: "a heap in which freed bytes stay".to_owned(),
            wanted: "HeapOptions::zero_on_free".to_owned(),
        })
    }

    /// A segment of raw bytes by name: at least `len` long, made with default options if it is not there.
    pub fn segment(&self, name: &str, len: usize) -> Result<Segment, OpenError> {
        self.segment_with(name, len, &SegmentOptions::default())
    }

    /// As [`segment`](Session::segment), with options for when it is made.
    ///
    /// - **Errors**: [`OpenError::OtherSegment`] if it exists with another block size, base or kind,
    ///   [`OpenError::OtherFingerprint`] if its bytes are recorded to mean something else.
    pub fn segment_with(
        &self,
        name: &str,
        len: usize,
        options: &SegmentOptions,
    ) -> Result<Segment, OpenError> {
        self.core.check_process()?;
        let known = self.core.segments.lock().get(name).cloned();
        let shared = match known {
            Some(shared) => {
                self.check_kind(&shared, SegmentKind::Raw)?;
                options.check(&self.image(), &shared)?;
                shared
            }
            None => self.create(name, SegmentKind::Raw, options)?,
        };
        let segment = Segment::new(Arc::clone(&self.core), shared);
        segment.grow(len)?;
        Ok(segment)
    }

    /// A segment of raw bytes that is one region from its first byte on, at least `len` long when it is made: a cache or a
    /// secret beside the heap, which owns all of its own segment.
    ///
    /// - **Errors**: [`OpenError::Region`] if the segment is in use as something else; or has a region of another length.
    pub fn region(&self, name: &str, len: usize, attribute: Attribute) -> Result<Region, Error> {
        let segment = self.segment(name, 0)?;
        let len = len
            .max(1)
            .checked_next_multiple_of(segment.block_size().bytes())
            .unwrap_or(len);
        Ok(segment.region(0, len, attribute)?)
    }

    fn check_kind(&self, shared: &Shared, wanted: SegmentKind) -> Result<(), OpenError> {
        if shared.kind == wanted {
            return Ok(());
        }
        Err(OpenError::OtherSegment {
            image: self.image(),
            segment: shared.name.clone(),
            has: format!("{:?} content", shared.kind),
            wanted: format!("{wanted:?} content"),
        })
    }

    fn create(
        &self,
        name: &str,
        kind: SegmentKind,
        options: &SegmentOptions,
    ) -> Result<Arc<Shared>, OpenError> {
        let world = &self.core.world;
        let owner = self.owner_of(name);
        let size = options.size(name, world.kernel.page_size())?;
        let len = options.reserved(size);
        // Before the range is claimed: one that is claimed has a segment, or stays out of reach for the process's life.
        let tracker = self.tracker()?;
        let tree = Tree::new(size, 0).map_err(|source| OpenError::Tree {
            segment: name.to_owned(),
            source,
        })?;
        let range = match options.base_address() {
            Some(base) => {
                let range =
                    PageRange::new(world.kernel.page_size(), base, len).ok_or_else(|| {
                        OpenError::BadRecord {
                            segment: name.to_owned(),
                        }
                    })?;
                world.ranges.claim(&*world.kernel, range, &owner)?;
                range
            }
            None => world.ranges.claim_any(&*world.kernel, len, &owner)?,
        };
        let shared = Arc::new(Shared::new(
            Arc::clone(&world.kernel),
            tracker.watch(),
            name.to_owned(),
            kind,
            size,
            options.meaning(),
            range,
        ));
        self.enlist(
            SegmentState {
                shared: Arc::clone(&shared),
                tracker,
                tree,
                layout: Layout::new(size),
                collected_len: 0,
                pending: Vec::new(),
                ahead: Vec::new(),
                collected: Vec::new(),
                undo: Vec::new(),
            },
            false,
        );
        Ok(shared)
    }

    pub(super) fn owner_of(&self, segment: &str) -> Owner {
        Owner {
            store: self.core.store.root().to_owned(),
            image: self.core.image().to_string(),
            segment: segment.to_owned(),
        }
    }

    pub(super) fn tracker(&self) -> Result<Tracker, OpenError> {
        let kernel = &self.core.world.kernel;
        let share = Share::new(Arc::clone(&self.core.maps));
        Ok(Tracker::new(
            Arc::clone(kernel),
            Arc::from(kernel.watch()?),
            share,
        ))
    }

    /// Makes a segment part of the session.
    pub(super) fn enlist(&self, segment: SegmentState, attached: bool) {
        let shared = Arc::clone(&segment.shared);
        self.core
            .segments
            .lock()
            .insert(shared.name.clone(), shared);
        if attached {
            if let Some(state) = self.core.state.lock().as_mut() {
                state.segments.push(segment);
            }
        } else {
            // Not by the state lock: a checkpoint may hold it while it waits for a guard of this very thread.
            self.core.arrivals.lock().push(segment);
        }
    }
}

/// A number for a new heap's hash tables: another one for each heap, good enough against accidents.
fn seed(world: &World) -> u64 {
    let time = (world.now)()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), time)
}
