//! The dice of a crash: one seed, one outcome.

/// SplitMix64: enough for choosing what survives, and no dependency.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// How likely what was not synced survives this time, of 8: never, always, or something between. The two ends
    /// are the outcomes that people think of, and are as likely as any other.
    pub(super) fn luck(&mut self) -> Luck {
        Luck(self.next() % 9)
    }

    pub(super) fn survives(&mut self, luck: Luck) -> bool {
        self.next() % 8 < luck.0
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Luck(u64);
