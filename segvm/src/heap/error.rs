use super::space::SpaceError;

/// Why a heap could not be made, found or asked for memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeapError {
    /// The reservation is used up.
    #[error(
        "no room for {wanted} more bytes: the heap has {used} of the {reserved} bytes reserved for it; \
         reserve more when the image is created"
    )]
    OutOfMemory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes of the reservation that are handed out to blocks and runs.
        used: usize,
        /// Bytes reserved.
        reserved: usize,
    },
    /// The segment could not grow although its reservation is not used up.
    #[error("the heap's segment could not grow to {to} bytes")]
    Grow {
        /// The length asked for.
        to: usize,
        /// What the segment said.
        source: SpaceError,
    },
    /// No block is aligned to more than a unit.
    #[error("blocks are aligned to 64 KiB at most, not to {wanted}")]
    Alignment {
        /// The alignment asked for.
        wanted: usize,
    },
    /// The memory cannot hold a heap.
    #[error(
        "a heap needs a base and a reservation that are multiples of 64 KiB, not {base:#x} and {reserved:#x}"
    )]
    Unsuitable {
        /// Address of the first byte.
        base: usize,
        /// Bytes reserved.
        reserved: usize,
    },
    /// The bytes are no heap.
    #[error("there is no heap at {base:#x}: it begins with {found:02x?}")]
    NotAHeap {
        /// Address of the first byte.
        base: usize,
        /// What lies where the magic should be.
        found: [u8; 8],
    },
    /// Another version's heap.
    #[error("the heap at {base:#x} has format {found}; this library reads format {wanted}")]
    Version {
        /// Address of the first byte.
        base: usize,
        /// The version found.
        found: u32,
        /// The version of this library.
        wanted: u32,
    },
    /// A heap made with an option that this library does not know, or a restore brought another one than the one that was opened.
    #[error("the heap at {base:#x} has the flags {found:#x}, and was opened with {wanted:#x}")]
    Flags {
        /// Address of the first byte.
        base: usize,
        /// The flags in its header.
        found: u64,
        /// What is known, or was there before.
        wanted: u64,
    },
    /// The header is damaged, or a restore brought another heap than the one that was opened.
    #[error(
        "the heap at {base:#x} says that it has {found} shards, which is not what it was opened with"
    )]
    Shards {
        /// Address of the first byte.
        base: usize,
        /// The number in its header.
        found: u32,
    },
    /// A heap is full of absolute addresses and works only where it was made.
    #[error(
        "the heap was made at {made:#x} for {made_reserved} bytes and is mapped at {base:#x} for {reserved}"
    )]
    Moved {
        /// Where it is.
        base: usize,
        /// How much is reserved there.
        reserved: usize,
        /// Where it was made.
        made: u64,
        /// How much was reserved when it was made.
        made_reserved: u64,
    },
    /// Part of it is missing.
    #[error("the heap at {base:#x} uses {used} bytes but only {len} are there")]
    Truncated {
        /// Address of the first byte.
        base: usize,
        /// Bytes it uses.
        used: u64,
        /// Bytes that are there.
        len: usize,
    },
    /// There is no such root.
    #[error("there is no root {name:?}")]
    NoRoot {
        /// The name.
        name: String,
    },
    /// A root's name is empty, too long, or has a NUL.
    #[error("a root's name has 1 to 64 bytes and no NUL; this one has {}: {name:?}", name.len())]
    RootName {
        /// The name.
        name: String,
    },
}
