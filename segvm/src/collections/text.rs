use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::Deref,
    ptr,
    ptr::NonNull,
    slice, str,
};

use super::raw::{Raw, length};
use crate::{
    heap::Heap,
    persist::{Kind, Persist, SchemaBuilder, Source},
};

/// UTF-8 in a segment: what `String` is elsewhere. Read it as a `&str`; [`TextMut`] changes it.
#[repr(C)]
pub struct Text {
    raw: Raw<u8>,
    /// The first `len` bytes are UTF-8; not more than there is room for.
    len: u64,
}

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: the first `len` bytes were written (the field's invariant), and changes need a handle that borrows what this
        // is part of.
        let bytes = unsafe { slice::from_raw_parts(self.raw.place().as_ptr(), length(self.len)) };
        // SAFETY: they are UTF-8 (the field's invariant).
        unsafe { str::from_utf8_unchecked(bytes) }
    }

    /// How many bytes fit before memory is taken.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.raw.room()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Changes a [`Text`]; `write!` works on it.
pub struct TextMut<'a> {
    place: NonNull<Text>,
    heap: &'a Heap,
    own: PhantomData<&'a mut Text>,
}

impl TextMut<'_> {
    fn text(&mut self) -> &mut Text {
        // SAFETY: valid and this handle's alone (the promise of `project`); the handle is borrowed meanwhile.
        unsafe { self.place.as_mut() }
    }

    /// Makes it `text`.
    ///
    /// - **Panics**: where the heap is full; so does all that appends.
    pub fn set(&mut self, text: &str) {
        self.clear();
        self.push_str(text);
    }

    /// Appends `text`.
    pub fn push_str(&mut self, text: &str) {
        let (len, heap) = (self.len(), self.heap);
        self.text().raw.reserve(len, text.len(), heap);
        // SAFETY: there is room for `text.len()` bytes behind the first `len`.
        let end = unsafe { self.raw.place().add(len) };
        // SAFETY: as above; `text` is not in this handle's block, which nothing else borrows.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), end.as_ptr(), text.len()) };
        self.text().len += text.len() as u64;
    }

    /// Appends one character.
    pub fn push(&mut self, character: char) {
        self.push_str(character.encode_utf8(&mut [0; 4]));
    }

    /// Removes what is behind the first `len` bytes.
    ///
    /// - **Panics**: if `len` is within a character.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            assert!(
                self.is_char_boundary(len),
                "byte {len} is within a character"
            );
            self.text().len = len as u64;
        }
    }

    /// Removes all; the room stays.
    pub fn clear(&mut self) {
        self.text().len = 0;
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        let (len, heap) = (self.len(), self.heap);
        self.text().raw.reserve(len, more, heap);
    }

    /// Gives back the room that is not used.
    pub fn shrink_to_fit(&mut self) {
        let (len, heap) = (self.len(), self.heap);
        self.text().raw.resize(len, heap);
    }
}

impl fmt::Write for TextMut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

impl Deref for TextMut<'_> {
    type Target = Text;

    fn deref(&self) -> &Text {
        // SAFETY: valid and this handle's alone; changes need `&mut self`.
        unsafe { self.place.as_ref() }
    }
}

impl fmt::Debug for TextMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

// SAFETY: repr(C); zeros are the empty text; the handle hands out nothing but `&str`.
unsafe impl Persist for Text {
    type Mut<'a> = TextMut<'a>;

    unsafe fn project<'a>(place: NonNull<Self>, heap: &'a Heap) -> TextMut<'a> {
        TextMut {
            place,
            heap,
            own: PhantomData,
        }
    }

    unsafe fn drop_in(place: NonNull<Self>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        let mut text = unsafe { Self::project(place, heap) };
        text.clear();
        text.text().raw.release(heap);
    }

    fn describe(_schema: &mut SchemaBuilder) -> Kind {
        Kind::Text
    }
}

// SAFETY: makes a valid Text by its own handle.
unsafe impl Source<Text> for &str {
    unsafe fn fill(self, place: NonNull<Text>, heap: &Heap) {
        // SAFETY: writable memory for a Text (the caller's promise); zeros are the empty one.
        unsafe { place.write_bytes(0, 1) };
        // SAFETY: just made valid, and nothing else reaches it.
        let mut text = unsafe { Text::project(place, heap) };
        // Exactly: most texts that are copied in do not grow.
        text.text().raw.resize(self.len(), heap);
        text.push_str(self);
    }
}

// SAFETY: forwards to `&str`.
unsafe impl Source<Text> for String {
    unsafe fn fill(self, place: NonNull<Text>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.as_str().fill(place, heap) };
    }
}

// SAFETY: forwards to `&str`.
unsafe impl Source<Text> for &String {
    unsafe fn fill(self, place: NonNull<Text>, heap: &Heap) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.as_str().fill(place, heap) };
    }
}
