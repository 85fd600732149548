//! The shape of a tree: a function of its length, block size and fan-out alone.

/// Children per node. A constant of the format: another value gives other ids for the same bytes.
///
/// - **Source**: docs/design/fanout.md.
pub const FANOUT: usize = 64;

/// The longest segment that a tree can describe: 64 PiB, which is more than any page table spans today.
pub const MAX_LEN: u64 = 1 << 56;

/// How many blocks a node at `level` covers; level 0 is a block.
///
/// Never overflows: the highest level in use covers less than `F` times the 2^44 blocks of [`MAX_LEN`].
pub(super) const fn span<const F: usize>(level: u8) -> u64 {
    (F as u64).pow(level as u32)
}

/// How many blocks a node at `level` covers, with the fan-out of the format; at most a `u64` holds for any level.
pub(crate) const fn span_of(level: u8) -> u64 {
    (FANOUT as u64).saturating_pow(level as u32)
}

/// How many levels of nodes lie between the head and the blocks: as few as cover them, and at least one.
pub(super) const fn height<const F: usize>(blocks: u64) -> u8 {
    let mut height = 1;
    while span::<F>(height) < blocks {
        height += 1;
    }
    height
}

/// The place, among the children of a node at `level`, of the one that covers the block at `index`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder of F, which is a usize"
)]
pub(super) const fn slot<const F: usize>(level: u8, index: u64) -> usize {
    ((index / span::<F>(level - 1)) % F as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn height_is_the_least_that_covers() {
        assert_eq!(height::<4>(0), 1);
        assert_eq!(height::<4>(4), 1);
        assert_eq!(height::<4>(5), 2);
        assert_eq!(height::<4>(16), 2);
        assert_eq!(height::<4>(17), 3);
        assert_eq!(height::<4>(MAX_LEN >> 12), 22);
        assert_eq!(height::<512>(MAX_LEN >> 12), 5);
    }

    #[test]
    fn slots_are_the_digits_of_the_index() {
        assert_eq!([3, 2, 1].map(|level| slot::<10>(level, 789)), [7, 8, 9]);
    }
}
