//! One file of a crashing disk: what the process sees beside what is on the platter.

use std::{io, ops::Range};

use super::{
    super::mem::{read_from, write_to},
    dice::{Dice, Luck},
};

/// What a disk writes in one piece, or not at all.
const SECTOR: usize = 512;

/// A file's content. Bytes of `live` that no change in `pending` wrote are those of `durable`, unless a failed sync
/// lost them.
#[derive(Debug, Default)]
pub(super) struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    /// Whole sectors as they were in memory after a write: a disk knows no smaller piece.
    Sectors { offset: u64, bytes: Vec<u8> },
    /// The file's new length, by a write beyond its end or by a cut.
    Len(usize),
}

impl Inode {
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_from(&self.live, offset, buf)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let before = self.live.len();
        write_to(&mut self.live, offset, bytes)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len()).next_multiple_of(SECTOR);
        let start = start - start % SECTOR;
        if let Some(sectors) = self.live.get(start..end.min(self.live.len())) {
            self.pending.push(Change::Sectors {
                offset: start as u64,
                bytes: sectors.to_vec(),
            });
        }
        if self.live.len() != before {
            self.pending.push(Change::Len(self.live.len()));
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.pending.push(Change::Len(len));
    }

    /// A sync that works: all that is pending reaches the platter, in order.
    ///
    /// Not `durable = live`: what an earlier failed sync lost stays lost.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Sectors { offset, bytes } => land(&mut self.durable, offset, &bytes),
                Change::Len(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// A sync that fails: some of what is pending reached the platter, and the kernel takes the rest for clean. The
    /// process goes on seeing it, and no later sync writes it.
    pub(super) fn sync_and_lose(&mut self, dice: &mut Dice, luck: Luck) {
        self.durable = self.after_crash(dice, luck);
        self.pending.clear();
    }

    /// One of the contents that a power cut now may leave.
    pub(super) fn after_crash(&self, dice: &mut Dice, luck: Luck) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut lengths = vec![image.len()];
        for change in &self.pending {
            match change {
                Change::Sectors { offset, bytes } => {
                    for (at, sector) in (*offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
                        if dice.survives(luck) {
                            land(&mut image, at, sector);
                        }
                    }
                }
                Change::Len(len) => {
                    if dice.survives(luck) {
                        image.truncate(*len);
                        lengths.push(*len);
                    }
                }
            }
        }
        // Lengths travel by themselves: any that survived may be the one that counts.
        let chosen = lengths.get(dice.below(lengths.len())).copied();
        image.resize(chosen.unwrap_or_default(), 0);
        image
    }

    /// Damages the bytes on the platter and in memory alike: what a failing disk does.
    pub(super) fn flip(&mut self, range: Range<usize>) {
        for image in [&mut self.live, &mut self.durable] {
            for byte in image.get_mut(range.clone()).unwrap_or_default() {
                *byte ^= 0xff;
            }
        }
    }
}

impl From<Vec<u8>> for Inode {
    fn from(durable: Vec<u8>) -> Self {
        Self {
            live: durable.clone(),
            durable,
            pending: Vec::new(),
        }
    }
}

fn land(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    // It fitted into the live image, so it fits here.
    drop(write_to(image, offset, bytes));
}
