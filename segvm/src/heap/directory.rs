//! Roots by name: a table in the heap itself.

use std::{alloc::Layout, mem, ptr::NonNull, slice};

use super::{
    HeapError,
    core::{address, usize_of, word},
    locks::Roots,
    threads,
};

/// The longest name of a root, in bytes.
pub const MAX_NAME: usize = 64;

/// A root as the directory knows it.
#[derive(Debug, Clone, Copy)]
pub struct RootEntry {
    /// Where the value lies.
    pub place: NonNull<u8>,
    /// Its size and alignment.
    pub layout: Layout,
    /// The fingerprint of its type.
    pub schema: [u8; 32],
}

/// An entry in the segment.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    /// Padded with zeros.
    name: [u8; MAX_NAME],
    place: u64,
    size: u64,
    align: u64,
    zero: u64,
    schema: [u8; 32],
}

const _: () = assert!(mem::size_of::<Entry>() == 128);

fn padded(name: &str) -> Option<[u8; MAX_NAME]> {
    let mut out = [0; MAX_NAME];
    let fits = !name.is_empty() && !name.contains('\0');
    out.get_mut(..name.len())
        .filter(|_| fits)?
        .copy_from_slice(name.as_bytes());
    Some(out)
}

pub(super) fn check_name(name: &str) -> Result<(), HeapError> {
    match padded(name) {
        Some(_) => Ok(()),
        None => Err(HeapError::RootName { name: name.into() }),
    }
}

impl Roots<'_> {
    fn entries(&self) -> &[Entry] {
        let header = self.core.header();
        let (at, len) = (header.roots.get(), usize_of(header.roots_len.get()));
        if len == 0 {
            return &[];
        }
        let place = self.core.place(at);
        // SAFETY: the directory is a live block of this heap with room for `roots_cap >= roots_len` entries, of which
        // the first `roots_len` were written; blocks are aligned to 16; who writes it has `&mut self`, and there is one
        // `Roots` at a time.
        unsafe { slice::from_raw_parts(place.cast::<Entry>().as_ptr(), len) }
    }

    pub(super) fn find(&self, name: &str) -> Option<RootEntry> {
        let name = padded(name)?;
        let entry = self.entries().iter().find(|entry| entry.name == name)?;
        Some(RootEntry {
            place: self.core.place(entry.place),
            layout: Layout::from_size_align(usize_of(entry.size), usize_of(entry.align)).ok()?,
            schema: entry.schema,
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        let name = |entry: &Entry| {
            let text = String::from_utf8_lossy(&entry.name);
            text.trim_end_matches('\0').to_owned()
        };
        self.entries().iter().map(name).collect()
    }

    /// Makes a root, which must not be there yet: `layout` bytes of zeros.
    pub(super) fn add(
        &mut self,
        name: &str,
        layout: Layout,
        schema: [u8; 32],
    ) -> Result<RootEntry, HeapError> {
        let padded = padded(name).ok_or_else(|| HeapError::RootName { name: name.into() })?;
        let header = self.core.header();
        let len = usize_of(header.roots_len.get());
        if header.roots_len.get() == header.roots_cap.get() {
            self.grow()?;
        }
        let place = self.core.take_zeroed(layout, threads::number())?;
        let entries = self.core.place(header.roots.get()).cast::<Entry>();
        // SAFETY: `len < roots_cap`, so the entry lies in the directory's block.
        let end = unsafe { entries.add(len) };
        let entry = Entry {
            name: padded,
            place: address(place),
            size: word(layout.size()),
            align: word(layout.align()),
            zero: 0,
            schema,
        };
        // SAFETY: as above; aligned to 16 like every block and entry, and no reference to it exists.
        unsafe { end.write(entry) };
        header.roots_len.set(word(len + 1));
        Ok(RootEntry {
            place,
            layout,
            schema,
        })
    }

    fn grow(&mut self) -> Result<(), HeapError> {
        let header = self.core.header();
        let (old, len) = (header.roots.get(), usize_of(header.roots_len.get()));
        let cap = (2 * len).max(8);
        let to = self.core.take(array(cap), threads::number())?;
        if len > 0 {
            let from = self.core.place(old).cast::<Entry>();
            // SAFETY: `from` holds `len` entries, `to` has room for more and was free until now.
            unsafe { from.copy_to_nonoverlapping(to.cast(), len) };
            self.core.give(from.cast(), array(len));
        }
        header.roots.set(address(to));
        header.roots_cap.set(word(cap));
        Ok(())
    }
}

fn array(entries: usize) -> Layout {
    Layout::array::<Entry>(entries).expect("a directory is smaller than the address space")
}
