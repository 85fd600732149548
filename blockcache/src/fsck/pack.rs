//! The structure of one pack: header, seal, batch headers, directories, index.

use std::{io, ops::Range, path::Path, sync::Arc};

use super::{
    batches::{Batches, Step},
    book::{Book, Number},
    deep::{Cutter, Job},
    found::{Found, cut, cut_bad_ranges, gather},
    report::{Report, Severity, What},
};
use crate::{
    disk::DiskFile,
    id::PackId,
    pack::{
        format::{Entry, FIRST_BATCH, PAGE, PAGE_LEN, SEAL_AT, Seal, check_pack_header, len64},
        index::Index,
        sealed::{Bytes, SealedError, load_index},
        walk::WalkError,
    },
    root::ImageMark,
    store::catalog::Held,
};

/// Where a check of packs leaves what it learns.
pub(super) struct Scene<'a> {
    pub(super) book: &'a mut Book,
    pub(super) report: &'a mut Report,
    /// Takes what has to be hashed; none where only the structure is checked.
    pub(super) jobs: Option<&'a mut dyn FnMut(Job)>,
}

/// A pack file that is being checked.
pub(super) struct PackFile<'a> {
    pub(super) id: PackId,
    pub(super) path: &'a Path,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    /// What records say of it.
    pub(super) marks: Vec<&'a ImageMark>,
    /// The number it will have in the catalog.
    pub(super) number: usize,
}

/// How a pack ends.
enum Sealed {
    Yes(Seal),
    No,
    Damaged,
}

impl PackFile<'_> {
    /// Checks the pack; `None` for one that is neither sealed nor marked, of which nothing is to be trusted.
    pub(super) fn check(&self, scene: &mut Scene<'_>) -> Option<Held> {
        let header = self.page(0);
        let sealed = match self.page(SEAL_AT).map(|page| Seal::decode(&page, self.id)) {
            Ok(Ok(Some(seal))) => Sealed::Yes(seal),
            Ok(Ok(None)) => Sealed::No,
            Ok(Err(flaw)) => {
                self.harm(
                    scene,
                    SEAL_AT,
                    What::Seal {
                        pack: self.id,
                        flaw,
                    },
                );
                Sealed::Damaged
            }
            // A file of less than two pages has come to no batch.
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => Sealed::No,
            Err(source) => {
                self.harm(scene, SEAL_AT, What::Unreadable { source });
                Sealed::Damaged
            }
        };
        if matches!(sealed, Sealed::No) && self.marks.is_empty() {
            scene.report.unmarked.push(self.id);
            return None;
        }
        scene.report.packs += 1;
        match header {
            Ok(page) => {
                if let Err(flaw) = check_pack_header(&page, self.id) {
                    self.harm(
                        scene,
                        0,
                        What::PackHeader {
                            pack: self.id,
                            flaw,
                        },
                    );
                }
            }
            Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(source) => {
                self.harm(scene, 0, What::Unreadable { source });
            }
        }
        let index = match &sealed {
            Sealed::Yes(seal) => self.index(scene, seal),
            Sealed::No | Sealed::Damaged => None,
        };
        Some(Held {
            id: self.id,
            path: self.path.to_owned(),
            sealed: matches!(sealed, Sealed::Yes(_)),
            index: self.check_batches(scene, &sealed, index),
        })
    }

    fn page(&self, offset: u64) -> io::Result<[u8; PAGE]> {
        let mut page = [0; PAGE];
        self.file.read_at(offset, &mut page)?;
        Ok(page)
    }

    fn note(&self, scene: &mut Scene<'_>, severity: Severity, offset: u64, what: What) -> Number {
        scene.book.add(severity, Some(self.path), offset, what)
    }

    /// Something is wrong for which the store refuses the whole pack.
    fn harm(&self, scene: &mut Scene<'_>, offset: u64, what: What) -> Number {
        let number = self.note(scene, Severity::Harm, offset, what);
        scene.book.taint(self.number, 0..u64::MAX, number);
        for mark in &self.marks {
            // Nobody opens an image whose marked pack is refused.
            scene.book.image(mark.image.clone(), number);
        }
        number
    }

    /// The index on disk, every part of it checked. One that is damaged is made again by whoever needs it.
    fn index(&self, scene: &mut Scene<'_>, seal: &Seal) -> Option<Index<Bytes>> {
        let at = seal.batches_end;
        let mut bad = |offset, what| {
            let number = self.note(scene, Severity::Mendable, offset, what);
            scene.book.taint(self.number, 0..u64::MAX, number);
        };
        let pack = self.id;
        let index = match load_index(&*self.file, seal) {
            Ok(index) => index,
            Err(SealedError::Io { offset, source }) => {
                bad(offset, What::Unreadable { source });
                return None;
            }
            Err(SealedError::Damaged { offset, flaw }) => {
                bad(offset, What::Index { pack, flaw });
                return None;
            }
            Err(SealedError::NotSealed) => return None,
        };
        let entries_end = seal.entries_at() + seal.entries * len64(size_of::<Entry>());
        match self.zeros(entries_end..seal.file_len()) {
            Ok(true) => {}
            Ok(false) => {
                let flaw = "bytes behind its entries are not zero";
                bad(entries_end, What::Index { pack, flaw });
            }
            Err(source) => bad(entries_end, What::Unreadable { source }),
        }
        match index.check_all() {
            Ok(()) => Some(index),
            Err(flaw) => {
                bad(at, What::Index { pack, flaw });
                None
            }
        }
    }

    /// Whether a range of less than a page is zero.
    fn zeros(&self, range: Range<u64>) -> io::Result<bool> {
        let mut page = [0; PAGE];
        let len = usize::try_from(range.end - range.start).unwrap_or(PAGE);
        let bytes = page.split_at_mut(len.min(PAGE)).0;
        self.file.read_at(range.start, bytes)?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Checks batches and marks, and answers with an index of what can be found in the pack.
    fn check_batches(
        &self,
        scene: &mut Scene<'_>,
        sealed: &Sealed,
        mut index: Option<Index<Bytes>>,
    ) -> Index<Bytes> {
        let marked = self.marks.iter().map(|mark| mark.mark.len).max();
        let wanted = match sealed {
            Sealed::Yes(seal) => seal.batches_end,
            Sealed::No => marked.unwrap_or(FIRST_BATCH),
            Sealed::Damaged => self.len,
        };
        self.check_length(scene, sealed, wanted);
        let batches = Batches {
            file: &*self.file,
            pack: self.id,
            end: wanted.min(self.len),
            may_end_before: matches!(sealed, Sealed::Damaged),
        };

        let mut found = Found::default();
        let mut send = scene.jobs.take();
        let mut cutter = send
            .as_mut()
            .map(|send| Cutter::new(&mut **send, self.number, self.id, self.file.clone()));
        if let Some(cutter) = &mut cutter {
            cutter.skip_to(FIRST_BATCH);
        }
        let (end, sequence) = batches.walk(&mut |step| {
            let step_end = step.end();
            found.ends.push(step_end);
            match step {
                Step::Good(batch, entries) => {
                    found.batch(&entries, index.as_ref());
                    if let Some(cutter) = &mut cutter
                        && !cut(cutter, &batch, &entries)
                    {
                        found.overlaps.push(batch.directory());
                    }
                }
                Step::BadDirectory(batch, error) => {
                    found.bad.push((batch.offset..step_end, error, false));
                    if let Some(cutter) = &mut cutter {
                        cutter.skip_to(step_end);
                    }
                }
                Step::BadHeader(range, error) => {
                    if let Some(cutter) = &mut cutter {
                        cutter.skip_to(step_end);
                    }
                    found.bad.push((range, error, true));
                }
            }
        });
        if let Some(cutter) = &mut cutter {
            if let Some(index) = &index {
                cut_bad_ranges(cutter, &found, index);
            }
            cutter.send();
        }
        drop(cutter);
        scene.jobs = send;
        scene.report.batches += len64(found.ends.len());
        scene.report.blocks += found.blocks;
        scene.report.nodes += found.nodes;

        if let (Sealed::Yes(seal), Some(disk)) = (sealed, &index) {
            let complete = found.bad.is_empty() && self.len >= wanted;
            if let Some(flaw) = found.against(seal, disk, complete, sequence) {
                let pack = self.id;
                let number = self.note(
                    scene,
                    Severity::Mendable,
                    seal.batches_end,
                    What::Index { pack, flaw },
                );
                scene.book.taint(self.number, 0..u64::MAX, number);
                index = None;
            }
        }
        self.tell_bad(scene, found.bad, &found.overlaps, index.is_some());
        self.check_marks(scene, sealed, &found.ends, end);
        index.unwrap_or_else(|| gather(&batches, end))
    }

    fn check_length(&self, scene: &mut Scene<'_>, sealed: &Sealed, batches_end: u64) {
        let length = |wanted| What::Length {
            pack: self.id,
            len: self.len,
            wanted,
        };
        if self.len < batches_end {
            self.harm(scene, self.len, length(batches_end));
        } else if let Sealed::Yes(seal) = sealed
            && self.len > seal.file_len()
        {
            let wanted = seal.file_len();
            self.note(scene, Severity::Unreached, wanted, length(wanted));
        }
    }

    /// A batch that is not whole is made up for by an index that is; without one, nothing in the pack is found.
    fn tell_bad(
        &self,
        scene: &mut Scene<'_>,
        bad: Vec<(Range<u64>, WalkError, bool)>,
        overlaps: &[u64],
        indexed: bool,
    ) {
        let pack = self.id;
        for (range, error, header) in bad {
            let (offset, what) = match error {
                WalkError::Io { offset, source } => (offset, What::Unreadable { source }),
                WalkError::Damaged { offset, flaw } if header => {
                    (offset, What::BatchHeader { pack, flaw })
                }
                WalkError::Damaged { offset, flaw } => (offset, What::Directory { pack, flaw }),
            };
            if indexed {
                let number = self.note(scene, Severity::Mendable, offset, what);
                scene.book.taint(self.number, range, number);
            } else {
                self.harm(scene, offset, what);
            }
        }
        for &offset in overlaps {
            let flaw = "its entries overlap or are not in the order of their offsets";
            self.harm(scene, offset, What::Directory { pack, flaw });
        }
    }

    fn check_marks(&self, scene: &mut Scene<'_>, sealed: &Sealed, ends: &[u64], end: u64) {
        for mark in &self.marks {
            let len = mark.mark.len;
            let flaw = match sealed {
                Sealed::Yes(seal) if len <= seal.batches_end => continue,
                Sealed::Yes(_) => "the pack was sealed before",
                // What is wrong is told already.
                Sealed::Damaged => continue,
                Sealed::No if len < FIRST_BATCH || !len.is_multiple_of(PAGE_LEN) => {
                    "no batch can end there"
                }
                Sealed::No if len == FIRST_BATCH || ends.contains(&len) => continue,
                // The file is too short, or damaged on the way: told already.
                Sealed::No if len > end => continue,
                Sealed::No => "no batch ends there",
            };
            let (image, mark) = (mark.image.clone(), mark.mark);
            self.harm(scene, mark.len, What::Mark { image, mark, flaw });
        }
    }
}
