//! Small blocks: spans of one unit, all objects of one size, a list of free ones in each.

use std::ptr::NonNull;

use super::{
    HeapError,
    core::{Core, address, index, word},
    layout::{Class, KIND_SPAN, Span},
};

/// What the second word of a free object holds, mixed with its address.
const MARK: u64 = 0xf4ee_f4ee_f4ee_f4ee;

impl Core {
    pub(super) fn take_small(&mut self, class: Class) -> Result<NonNull<u8>, HeapError> {
        let at = match self.open_spans(class) {
            0 => self.add_span(class)?,
            at => at,
        };
        let base = self.address_of(at);
        let span = self.span(at);
        span.used += 1;
        let full = span.used == span.capacity;
        let object = if span.free == 0 {
            let offset = span.fresh as usize * class.size();
            span.fresh += 1;
            // SAFETY: a span with room and an empty list has a fresh object: `fresh < capacity`, so it ends in the unit.
            unsafe { base.byte_add(offset) }
        } else {
            let free = span.free;
            let object = self.place(free);
            let words = self.free_object(object);
            let next = words[0];
            // So that freeing it unwritten does not look like freeing it twice.
            words[1] = 0;
            self.span(at).free = next;
            object
        };
        if full {
            self.close_span(class, at);
        }
        let header = self.header();
        header.allocated += word(class.size());
        header.blocks += 1;
        Ok(object)
    }

    pub(super) fn give_small(&mut self, object: NonNull<u8>, class: Class) {
        let at = self.unit_of(object);
        self.refuse_foreign(at, object, class);
        let mark = MARK ^ address(object);
        if self.free_object(object)[1] == mark {
            self.refuse_double(at, object);
        }
        let span = self.span(at);
        let was_full = span.used == span.capacity;
        span.used -= 1;
        let empty = span.used == 0;
        let next = std::mem::replace(&mut span.free, address(object));
        *self.free_object(object) = [next, mark];
        let header = self.header();
        header.allocated -= word(class.size());
        header.blocks -= 1;
        if was_full {
            self.open_span(class, at);
        } else if empty && self.has_company(at) {
            // One empty span of a class stays: a program that takes and gives one block does not make spans.
            self.close_span(class, at);
            self.give_units(at, 1);
        }
    }

    fn add_span(&mut self, class: Class) -> Result<u32, HeapError> {
        let at = self.take_units(1, KIND_SPAN)?;
        *self.span(at) = Span {
            class: index(class.index()),
            used: 0,
            fresh: 0,
            capacity: index(class.capacity()),
            free: 0,
            prev: 0,
            next: 0,
            zero: [0; 2],
        };
        self.open_span(class, at);
        Ok(at)
    }

    pub(super) fn open_spans(&mut self, class: Class) -> u32 {
        *self.open_list(class)
    }

    #[expect(clippy::indexing_slicing, reason = "a class is below CLASSES")]
    fn open_list(&mut self, class: Class) -> &mut u32 {
        &mut self.header().open_spans[class.index()]
    }

    fn has_company(&mut self, at: u32) -> bool {
        let span = self.span(at);
        span.prev != 0 || span.next != 0
    }

    fn open_span(&mut self, class: Class, at: u32) {
        let next = std::mem::replace(self.open_list(class), at);
        let span = self.span(at);
        (span.prev, span.next) = (0, next);
        if next != 0 {
            self.span(next).prev = at;
        }
    }

    fn close_span(&mut self, class: Class, at: u32) {
        let span = self.span(at);
        let (prev, next) = (span.prev, span.next);
        (span.prev, span.next) = (0, 0);
        match prev {
            0 => *self.open_list(class) = next,
            prev => self.span(prev).next = next,
        }
        if next != 0 {
            self.span(next).prev = prev;
        }
    }

    /// Freeing with another size, or what was never taken, would corrupt the heap silently.
    fn refuse_foreign(&mut self, at: u32, object: NonNull<u8>, class: Class) {
        let offset = object.addr().get() - self.address_of(at).addr().get();
        let span = self.span(at);
        let fits = span.class as usize == class.index() && span.used > 0;
        debug_assert!(offset.is_multiple_of(class.size()));
        assert!(
            fits,
            "{object:?} is no live block of {} bytes of this heap",
            class.size()
        );
    }

    /// The mark may be the program's own bytes: only the list tells.
    #[cold]
    fn refuse_double(&mut self, at: u32, object: NonNull<u8>) {
        let (mut free, mut left) = (self.span(at).free, self.span(at).capacity);
        while free != 0 && left > 0 {
            assert!(free != address(object), "{object:?} was freed twice");
            let place = self.place(free);
            free = self.free_object(place)[0];
            left -= 1;
        }
    }
}
