//! Which of many packs may have an id: one table instead of a question to each of them.
//!
//! A slot is four bytes, the pack's number and eight bits of the id: six bytes of memory an entry, and an answer that is
//! exact only after the pack's own index was asked. Of a thousand look-ups of what is nowhere about ten ask one.
//! What a slot lacks of the id is why a table cannot grow: it is made for so many entries, and made again for more.

/// A table of ids and packs.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// 0 is free; otherwise the pack's number plus one, then eight bits of the id. At least a third is free.
    slots: Vec<u32>,
}

impl Lookup {
    /// Packs have numbers below this.
    pub(crate) const MAX_PACKS: usize = (1 << 24) - 1;

    /// A table for at most so many entries; `None` where there is no memory for it.
    pub(crate) fn with_room(entries: usize) -> Option<Self> {
        let len = entries.checked_add(entries / 2)?.checked_add(8)?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(len).ok()?;
        slots.resize(len, 0);
        Some(Self { slots })
    }

    /// Says that a pack has an id. More entries than there was room asked for, and packs with too high a number, are
    /// refused: `false`.
    #[must_use]
    pub(crate) fn insert(&mut self, id: &[u8; 32], pack: usize) -> bool {
        let Some(number) = u32::try_from(pack).ok().filter(|_| pack < Self::MAX_PACKS) else {
            return false;
        };
        let slot = (number + 1) << 8 | u32::from(check(id));
        let from = self.home(id);
        let (before, after) = self.slots.split_at_mut(from);
        for place in after.iter_mut().chain(before) {
            if *place == 0 {
                *place = slot;
                return true;
            }
            if *place == slot {
                return true;
            }
        }
        false
    }

    /// The packs that may have an id, in no order; a pack that has it is always among them.
    pub(crate) fn candidates<'a>(&'a self, id: &[u8; 32]) -> impl Iterator<Item = usize> + use<'a> {
        let (before, after) = self.slots.split_at(self.home(id));
        let check = u32::from(check(id));
        after
            .iter()
            .chain(before)
            .take_while(|slot| **slot != 0)
            .filter(move |slot| **slot & 0xff == check)
            .map(|slot| (slot >> 8) as usize - 1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the length, which is a usize"
    )]
    fn home(&self, id: &[u8; 32]) -> usize {
        // Not the first bytes: whoever fills the table comes in their order.
        let (_, last) = id.split_last_chunk::<8>().unwrap_or((&[], &[0; 8]));
        let wide = u128::from(u64::from_le_bytes(*last)) * self.slots.len() as u128;
        (wide >> 64) as usize
    }
}

fn check(id: &[u8; 32]) -> u8 {
    id.get(16).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::BlockId;

    proptest! {
        #[test]
        fn whoever_has_an_id_is_among_the_candidates(puts in prop::collection::vec((0_u64..60, 0_usize..9), 0..200)) {
            let mut table = Lookup::with_room(puts.len()).unwrap();
            let mut twin: HashMap<u64, HashSet<usize>> = HashMap::new();
            let id = |seed: u64| *BlockId::of(&seed.to_le_bytes()).as_bytes();
            for (seed, pack) in &puts {
                prop_assert!(table.insert(&id(*seed), *pack));
                twin.entry(*seed).or_default().insert(*pack);
            }
            for (seed, packs) in &twin {
                let found: HashSet<usize> = table.candidates(&id(*seed)).collect();
                prop_assert!(found.is_superset(packs));
            }
        }
    }

    #[test]
    fn hardly_anybody_is_asked_for_what_is_nowhere() {
        let mut table = Lookup::with_room(10_000).unwrap();
        for n in 0..10_000_u64 {
            let id = BlockId::of(&n.to_le_bytes());
            assert!(table.insert(id.as_bytes(), usize::try_from(n % 100).unwrap()));
        }
        let asked: usize = (10_000..20_000_u64)
            .map(|n| {
                let id = BlockId::of(&n.to_le_bytes());
                table.candidates(id.as_bytes()).count()
            })
            .sum();
        assert!(asked < 500, "{asked} of 10,000");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut table = Lookup::with_room(1).unwrap();
        let put = |table: &mut Lookup, n: u64, pack| {
            table.insert(BlockId::of(&n.to_le_bytes()).as_bytes(), pack)
        };
        assert!(!put(&mut table, 0, Lookup::MAX_PACKS));
        let fit = (0..1000).take_while(|n| put(&mut table, *n, 3)).count();
        assert_eq!(fit, 9, "a full table ends, and says so");
        assert!(Lookup::with_room(usize::MAX).is_none());
    }
}
