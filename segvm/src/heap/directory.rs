//! Roots by name: a table in the heap itself.

use std::{alloc::Layout, mem, ptr::NonNull, slice};

use super::{
    HeapError,
    core::{address, usize_of, word},
    locks::Roots,
    threads,
};
use crate::schema::MOST_BYTES;

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

/// A type as the directory is told of it.
#[derive(Debug, Clone, Copy)]
pub struct RootType<'a> {
    /// Size and alignment of a value.
    pub layout: Layout,
    /// What it is compared by.
    pub fingerprint: [u8; 32],
    /// What it looks like, kept beside the root for whoever has not the program; nothing is kept of nothing.
    pub described: &'a [u8],
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
    /// Address of a block: the length of the schema (8), the schema. 0 where none is kept.
    described: u64,
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

    /// What is kept of the type of the root `name`.
    pub(super) fn described(&self, name: &str) -> Option<Vec<u8>> {
        let name = padded(name)?;
        let entry = self.entries().iter().find(|entry| entry.name == name)?;
        if entry.described == 0 {
            return None;
        }
        let block = self.core.place(entry.described);
        // SAFETY: a live block of this heap that begins with a length; blocks are aligned to 16.
        let len = unsafe { block.cast::<u64>().read() };
        let len = usize::try_from(len).ok().filter(|&len| len <= MOST_BYTES)?;
        // SAFETY: the length is followed by as many bytes, in the same block.
        let bytes = unsafe { block.byte_add(8) };
        // SAFETY: they were written when the block was taken; who gives it back has `&mut self`.
        Some(unsafe { slice::from_raw_parts(bytes.as_ptr(), len) }.to_vec())
    }

    /// Keeps what a type looks like; answers where, or 0 for nothing.
    fn describe(&self, described: &[u8]) -> Result<u64, HeapError> {
        if described.is_empty() {
            return Ok(0);
        }
        let block = self
            .core
            .take(described_layout(described.len()), threads::number())?;
        // SAFETY: just taken, aligned to 16, with room for a length in front.
        unsafe { block.cast::<u64>().write(word(described.len())) };
        // SAFETY: the bytes follow the length, in the same block.
        let bytes = unsafe { block.byte_add(8) };
        // SAFETY: the block was just taken for so many bytes, and nothing else knows it.
        unsafe { bytes.copy_from_nonoverlapping(NonNull::from(described).cast(), described.len()) };
        Ok(address(block))
    }

    /// Gives the root `name`, which is there, another type, and another place where one is given; answers where its value was.
    ///
    /// The value that was there is the caller's, and so is the promise that one of the new type lies in the new place.
    pub(super) fn replace(
        &mut self,
        name: &str,
        of: RootType<'_>,
        place: Option<NonNull<u8>>,
    ) -> Result<RootEntry, HeapError> {
        let named = padded(name).ok_or_else(|| HeapError::RootName { name: name.into() })?;
        let entries = self.entries();
        let at = entries.iter().position(|entry| entry.name == named);
        let Some((at, was)) = at.and_then(|at| Some((at, *entries.get(at)?))) else {
            return Err(HeapError::NoRoot { name: name.into() });
        };
        let described = self.describe(of.described)?;
        let new = Entry {
            place: place.map_or(was.place, address),
            size: word(of.layout.size()),
            align: word(of.layout.align()),
            described,
            schema: of.fingerprint,
            ..was
        };
        let entries = self.core.place(self.core.header().roots.get());
        // SAFETY: entry `at` of the directory's block, which has more of them.
        let entry = unsafe { entries.cast::<Entry>().add(at) };
        // SAFETY: as above; aligned to 16 like every block and entry, and no reference to it exists any more.
        unsafe { entry.write(new) };
        if was.described != 0 {
            let block = self.core.place(was.described);
            // SAFETY: a live block that begins with a length, out of the directory since just now.
            let len = unsafe { block.cast::<u64>().read() };
            self.core.give(block, described_layout(usize_of(len)));
        }
        Ok(RootEntry {
            place: self.core.place(was.place),
            layout: Layout::from_size_align(usize_of(was.size), usize_of(was.align))
                .unwrap_or(of.layout),
            schema: was.schema,
        })
    }

    /// Makes a root, which must not be there yet: zeros.
    pub(super) fn add(&mut self, name: &str, of: RootType<'_>) -> Result<RootEntry, HeapError> {
        let (layout, schema) = (of.layout, of.fingerprint);
        let padded = padded(name).ok_or_else(|| HeapError::RootName { name: name.into() })?;
        let header = self.core.header();
        let len = usize_of(header.roots_len.get());
        if header.roots_len.get() == header.roots_cap.get() {
            self.grow()?;
        }
        let described = self.describe(of.described)?;
        let place = self.core.take_zeroed(layout, threads::number())?;
        let entries = self.core.place(header.roots.get()).cast::<Entry>();
        // SAFETY: `len < roots_cap`, so the entry lies in the directory's block.
        let end = unsafe { entries.add(len) };
        let entry = Entry {
            name: padded,
            place: address(place),
            size: word(layout.size()),
            align: word(layout.align()),
            described,
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

fn described_layout(len: usize) -> Layout {
    Layout::from_size_align(8 + len, 8).expect("a schema is smaller than the address space")
}

fn array(entries: usize) -> Layout {
    Layout::array::<Entry>(entries).expect("a directory is smaller than the address space")
}
