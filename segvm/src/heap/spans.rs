//! Small blocks: spans of one unit, all objects of one size, a list of free ones in each. A span belongs to a shard.

use std::ptr::NonNull;

use super::{
    cell::Cell32,
    core::{address, index},
    layout::{CLASSES, Class, GRAIN, Span, UNIT},
    locks::Shard,
    shards::clear,
};

/// What the second word of a free object holds, mixed with its address.
const MARK: u64 = 0xf4ee_f4ee_f4ee_f4ee;

impl Shard<'_> {
    /// Takes an object from a span with room, if this shard has one.
    #[inline(always)]
    pub(super) fn take(&self, class: Class) -> Option<NonNull<u8>> {
        match self.open_list(class).get() {
            0 => None,
            at => Some(self.take_from(at, class)),
        }
    }

    /// Takes an object from span `at` of this shard, which has room.
    #[inline(always)]
    pub(super) fn take_from(&self, at: u32, class: Class) -> NonNull<u8> {
        let span = self.span(at);
        let used = span.used.get() + 1;
        span.used.set(used);
        let object = match span.free.get() {
            0 => {
                let fresh = span.fresh.get();
                let offset = fresh as usize * class.size();
                assert!(
                    offset + class.size() <= UNIT,
                    "span {at} is full and among those with room"
                );
                span.fresh.set(fresh + 1);
                // SAFETY: within the unit, as just checked, and that within the usable length.
                unsafe { self.core.address_of(at).byte_add(offset) }
            }
            free => {
                let object = FreeObject(self.core.place(free));
                span.free.set(object.next());
                // So that freeing it unwritten does not look like freeing it twice.
                object.set_mark(0);
                object.0
            }
        };
        if used == span.capacity.get() {
            self.close_span(class, at);
        }
        object
    }

    /// Gives an object back to its span `at`, which this shard owns and whose state is `span`.
    #[inline(always)]
    pub(super) fn give(&self, at: u32, span: &Span, object: NonNull<u8>, class: Class) {
        refuse_foreign(span, object, class);
        let free = FreeObject(object);
        let mark = MARK ^ address(object);
        if free.mark() == mark {
            self.refuse_double(at, object);
        }
        if self.core.zero_on_free {
            // SAFETY: all of the object, whatever size it was taken for; it is freed, and nobody refers to it.
            unsafe { clear(object, class.size()) };
        }
        let was = span.used.get();
        span.used.set(was - 1);
        free.set_next(span.free.replace(address(object)));
        free.set_mark(mark);
        if was == span.capacity.get() {
            self.open_span(class, at);
        } else if was == 1 && (span.prev.get() != 0 || span.next.get() != 0) {
            // One empty span of a class stays: a program that takes and gives one block does not make spans.
            self.give_span(class, at);
        }
    }

    /// Makes unit `at`, which nobody has, a span of this shard.
    pub(super) fn add_span(&self, class: Class, at: u32) {
        let unit = self.core.unit(at);
        let span = &unit.span;
        span.class.set(index(class.index()));
        span.used.set(0);
        span.fresh.set(0);
        span.capacity.set(index(class.capacity()));
        span.free.set(0);
        unit.owner.set(self.number + 1);
        self.open_span(class, at);
    }

    /// Gives an empty span back to the units that anybody can have.
    fn give_span(&self, class: Class, at: u32) {
        self.close_span(class, at);
        if self.core.zero_on_free {
            self.forget_links(class, at);
        }
        self.core.unit(at).owner.set(0);
        self.core.central().give_units(at, 1);
    }

    /// Makes a whole unit zeros of an empty span whose objects are, but for the allocator's two words.
    fn forget_links(&self, class: Class, at: u32) {
        for object in 0..self.span(at).fresh.get() as usize {
            let offset = object * class.size();
            // SAFETY: within the unit, since it was handed out once, and that within the usable length.
            let object = unsafe { self.core.address_of(at).byte_add(offset) };
            // SAFETY: an object has two words at least; it is free, and its span in no list.
            unsafe { clear(object, GRAIN) };
        }
    }

    /// Gives back every span that has no object in it, those included that were kept for the next.
    ///
    /// - **Cost**: O(spans with room).
    pub(super) fn give_empty_spans(&self) {
        for class in Class::all() {
            let mut at = self.open_list(class).get();
            while at != 0 {
                let span = self.span(at);
                let next = span.next.get();
                if span.used.get() == 0 {
                    self.give_span(class, at);
                }
                at = next;
            }
        }
    }

    /// Takes over span `at` of `other`, which has room.
    pub(super) fn adopt(&self, other: &Shard<'_>, class: Class, at: u32) {
        other.close_span(class, at);
        self.core.unit(at).owner.set(self.number + 1);
        self.open_span(class, at);
    }

    #[expect(clippy::indexing_slicing, reason = "a class is below CLASSES")]
    #[inline]
    pub(super) fn open_list(&self, class: Class) -> &Cell32 {
        &self.lists.open_spans[class.index()]
    }

    #[inline]
    pub(super) fn span(&self, at: u32) -> &Span {
        &self.core.unit(at).span
    }

    fn open_span(&self, class: Class, at: u32) {
        let next = self.open_list(class).replace(at);
        let span = self.span(at);
        span.prev.set(0);
        span.next.set(next);
        if next != 0 {
            self.span(next).prev.set(at);
        }
    }

    fn close_span(&self, class: Class, at: u32) {
        let span = self.span(at);
        let (prev, next) = (span.prev.replace(0), span.next.replace(0));
        match prev {
            0 => self.open_list(class).set(next),
            prev => self.span(prev).next.set(next),
        }
        if next != 0 {
            self.span(next).prev.set(prev);
        }
    }

    /// The mark may be the program's own bytes: only the list tells.
    #[cold]
    fn refuse_double(&self, at: u32, object: NonNull<u8>) {
        let span = self.span(at);
        let (mut free, mut left) = (span.free.get(), span.capacity.get());
        while free != 0 && left > 0 {
            assert!(free != address(object), "{object:?} was freed twice");
            free = FreeObject(self.core.place(free)).next();
            left -= 1;
        }
    }
}

/// Freeing with another size, or what was never taken, would corrupt the heap silently.
#[inline(always)]
fn refuse_foreign(span: &Span, object: NonNull<u8>, class: Class) {
    debug_assert!((object.addr().get() % UNIT).is_multiple_of(class.size()));
    let fits = span.class.get() as usize == class.index() && span.used.get() > 0;
    assert!(
        fits,
        "{object:?} is no live block of {} bytes of this heap",
        class.size()
    );
}

/// An object that nobody uses, in a span whose shard is held: the next one's address, and the mark.
///
/// Its place is that of an object: at least 16 bytes, aligned to 16, in a usable unit.
pub(super) struct FreeObject(pub(super) NonNull<u8>);

impl FreeObject {
    #[inline]
    pub(super) fn next(&self) -> u64 {
        // SAFETY: the place of an object; it is the allocator's, whose shard is held, so that nobody writes meanwhile.
        unsafe { self.0.cast::<u64>().read() }
    }

    #[inline]
    fn set_next(&self, to: u64) {
        // SAFETY: as in `next`, and nobody reads meanwhile.
        unsafe { self.0.cast::<u64>().write(to) };
    }

    #[inline]
    fn mark_place(&self) -> NonNull<u64> {
        // SAFETY: the second of the two words of an object.
        unsafe { self.0.cast::<u64>().add(1) }
    }

    #[inline]
    fn mark(&self) -> u64 {
        // SAFETY: as in `next`.
        unsafe { self.mark_place().read() }
    }

    #[inline]
    fn set_mark(&self, to: u64) {
        // SAFETY: as in `set_next`.
        unsafe { self.mark_place().write(to) };
    }
}

const _: () = assert!(CLASSES <= u8::MAX as usize);
