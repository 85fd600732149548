//! All packs of a store: their structure in the caller's thread, and, if deep, their hashes in others.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crossbeam_channel::bounded;

use super::{
    book::Book,
    deep::{Done, FaultKind, Job, work},
    pack::{PackFile, Scene},
    report::{Progress, Report, Severity, What},
};
use crate::{
    disk::{DiskFile, Open},
    id::{BlockId, NodeId, PackId},
    pack::format::Kind,
    root::ImageMark,
    store::{
        Store, StoreError,
        catalog::{Held, list_packs},
    },
};

/// A pack that is there, and how long it is; its file is opened again when its turn comes.
pub(super) struct Listed {
    id: PackId,
    path: PathBuf,
    pub(super) len: u64,
}

/// Lists the packs, and tells which marked ones are not there.
pub(super) fn list(
    store: &Store,
    marks: &[ImageMark],
    report: &mut Report,
    book: &mut Book,
) -> Result<Vec<Listed>, StoreError> {
    let dir = store.packs_dir();
    let (ids, strays) =
        list_packs(&**store.disk(), dir).map_err(|source| StoreError::io("list", dir, source))?;
    report
        .strays
        .extend(strays.into_iter().map(|name| dir.join(name)));
    for mark in marks.iter().filter(|mark| !ids.contains(&mark.mark.pack)) {
        let path = store.pack_path(mark.mark.pack);
        let what = What::Mark {
            image: mark.image.clone(),
            mark: mark.mark,
            flaw: "the pack is not there",
        };
        let number = book.add(Severity::Harm, Some(&path), 0, what);
        book.image(mark.image.clone(), number);
    }
    let listed = ids.into_iter().map(|id| {
        let path = store.pack_path(id);
        let file = store.disk().open(&path, Open::Read);
        // What cannot be opened is told when its turn comes.
        let len = file.and_then(|file| file.len()).unwrap_or(0);
        Listed { id, path, len }
    });
    Ok(listed.collect())
}

/// Checks the structure of every pack; answers with those that something can be found in.
pub(super) fn check_packs(
    store: &Store,
    listed: &[Listed],
    marks: &[ImageMark],
    scene: &mut Scene<'_>,
    done: &mut dyn FnMut(u64),
) -> Vec<Held> {
    let mut held: Vec<Held> = Vec::new();
    for pack in listed {
        let marks: Vec<&ImageMark> = marks
            .iter()
            .filter(|mark| mark.mark.pack == pack.id)
            .collect();
        let opened = store.disk().open(&pack.path, Open::Read);
        match opened.and_then(|file| Ok((file.len()?, file))) {
            Ok((len, file)) => held.extend(check_pack(pack, file, len, marks, held.len(), scene)),
            // A writer that gave up takes its pack away.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound && marks.is_empty() => {}
            Err(source) => {
                let what = What::Unreadable { source };
                let number = scene.book.add(Severity::Harm, Some(&pack.path), 0, what);
                for mark in marks {
                    scene.book.image(mark.image.clone(), number);
                }
            }
        }
        done(pack.len);
    }
    held
}

fn check_pack(
    pack: &Listed,
    file: Arc<dyn DiskFile>,
    len: u64,
    marks: Vec<&ImageMark>,
    number: usize,
    scene: &mut Scene<'_>,
) -> Option<Held> {
    let pack = PackFile {
        id: pack.id,
        path: &pack.path,
        file,
        len,
        marks,
        number,
    };
    pack.check(scene)
}

/// Checks the structure in this thread and hashes in others.
pub(super) fn deep(
    store: &Store,
    listed: &[Listed],
    marks: &[ImageMark],
    threads: usize,
    book: &mut Book,
    report: &mut Report,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Held>, StoreError> {
    let total = listed.iter().map(|pack| pack.len).sum();
    let hashed = AtomicU64::new(0);
    let count = |len| {
        // Relaxed: a number to look at, pairs with nothing.
        hashed.fetch_add(len, Ordering::Relaxed);
    };
    let no_thread = |source| StoreError::io("starting a thread to read", store.packs_dir(), source);
    let (send, jobs) = bounded::<Job>(2 * threads);
    let (held, results) = thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (jobs, count) = (jobs.clone(), &count);
            let worker = thread::Builder::new()
                .name("segvm-fsck".to_owned())
                .spawn_scoped(scope, move || work(&jobs, count));
            match worker {
                Ok(worker) => workers.push(worker),
                // Fewer will do.
                Err(_) if !workers.is_empty() => break,
                Err(source) => return Err(no_thread(source)),
            }
        }
        // From here on the workers alone: if they are all gone, sending fails instead of waiting for ever.
        drop(jobs);
        let mut told = || {
            let done = hashed.load(Ordering::Relaxed).min(total);
            progress(Progress::Packs { done, total });
        };
        let mut hand_on = |job| {
            let _their_failure_is_told_below = send.send(job);
            told();
        };
        let mut scene = Scene {
            book,
            report,
            jobs: Some(&mut hand_on),
        };
        let held = check_packs(store, listed, marks, &mut scene, &mut |_len| {});
        drop(send);
        let results: Vec<_> = workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        Ok((held, results))
    })?;
    for result in results {
        let done = result.unwrap_or_else(|_panicked| Err(io::Error::other("a thread panicked")));
        note(book, report, &held, done.map_err(no_thread)?);
    }
    progress(Progress::Packs { done: total, total });
    Ok(held)
}

/// Enters what a thread found.
fn note(book: &mut Book, report: &mut Report, held: &[Held], done: Done) {
    report.hashed += done.hashed;
    report.bytes += done.bytes;
    for fault in done.faults {
        let path = held.get(fault.number).map(|held| held.path.as_path());
        let (pack, offset) = (fault.pack, fault.offset);
        let (entry, severity, what) = match fault.what {
            FaultKind::Gap(len) => (None, Severity::Unreached, What::Gap { pack, len }),
            FaultKind::Read(entry, source) => (entry, Severity::Harm, What::Unreadable { source }),
            FaultKind::Hash(entry) => {
                let id = *entry.id();
                let what = match entry.kind() {
                    Some(Kind::Node) => What::Node {
                        id: NodeId::from_bytes(id),
                        pack,
                        elsewhere: None,
                    },
                    Some(Kind::Block) | None => What::Block {
                        id: BlockId::from_bytes(id),
                        pack,
                        elsewhere: None,
                    },
                };
                (Some(entry), Severity::Harm, what)
            }
        };
        let number = book.add(severity, path, offset, what);
        if let Some(entry) = entry {
            book.bad_copy(fault.number, offset, *entry.id(), number);
        }
    }
}
