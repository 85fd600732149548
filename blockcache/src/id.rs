//! Names of immutable things: BLAKE3 in three domains, so that no block passes for a node or a commit.

use std::{fmt, str::FromStr, sync::LazyLock};

use blake3::Hasher;

/// The `derive_key` contexts of the three domains. They are part of the format and never change.
pub const BLOCK_CONTEXT: &str = "segvm 2026-11 block v1";
/// See [`BLOCK_CONTEXT`].
pub const NODE_CONTEXT: &str = "segvm 2026-11 node v1";
/// See [`BLOCK_CONTEXT`].
pub const COMMIT_CONTEXT: &str = "segvm 2026-11 commit v1";

// Deriving the context key costs two compressions: done once per process.
static BLOCK_HASHER: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key(BLOCK_CONTEXT));
static NODE_HASHER: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key(NODE_CONTEXT));
static COMMIT_HASHER: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key(COMMIT_CONTEXT));

fn hash(domain: &Hasher, bytes: &[u8]) -> [u8; 32] {
    *domain.clone().update(bytes).finalize().as_bytes()
}

/// What is wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is {wanted} hexadecimal digits, not {got:?}")]
pub struct ParseIdError {
    got: String,
    wanted: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let bad = || ParseIdError {
        got: text.chars().take(80).collect(),
        wanted: 2 * N,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(bad());
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_not_text| bad())?;
        if pair.starts_with('+') {
            return Err(bad());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_not_hex| bad())?;
    }
    Ok(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes for an id: what was read from disk or wire, to be checked by whoever reads the thing.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `{:.12}` prints a prefix, as people type them.
                let digits = f.precision().unwrap_or(64);
                for (at, byte) in self.0.iter().enumerate() {
                    match digits.saturating_sub(2 * at) {
                        0 => break,
                        1 => write!(f, "{:x}", byte >> 4)?,
                        _ => write!(f, "{byte:02x}")?,
                    }
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:.12})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id! {
    /// Names a block: the hash of its uncompressed, unencrypted bytes.
    BlockId
}
id! {
    /// Names an interior node of a tree: the hash of its encoded bytes.
    NodeId
}
id! {
    /// Names a tree: the id of its head node, which covers length and block size.
    TreeId
}
id! {
    /// Names a commit: the hash of its encoded bytes.
    CommitId
}

impl BlockId {
    /// Hashes the bytes of a block.
    ///
    /// - **Cost**: 5.5 GB/s from 16 KiB on, 3.6 GB/s at 4 KiB, one core with AVX-512.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hash(&BLOCK_HASHER, bytes))
    }
}

impl NodeId {
    /// Hashes the encoded bytes of a node.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hash(&NODE_HASHER, bytes))
    }
}

impl From<NodeId> for TreeId {
    /// The head node's id is the tree's.
    fn from(head: NodeId) -> Self {
        Self(head.0)
    }
}

impl From<TreeId> for NodeId {
    fn from(tree: TreeId) -> Self {
        Self(tree.0)
    }
}

impl CommitId {
    /// Hashes the encoded bytes of a commit.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hash(&COMMIT_HASHER, bytes))
    }
}

/// Names a pack in its store: a random number, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u64);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

impl FromStr for PackId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_domains_never_agree() {
        let bytes = b"the same bytes";
        let ids = [
            *BlockId::of(bytes).as_bytes(),
            *NodeId::of(bytes).as_bytes(),
            *CommitId::of(bytes).as_bytes(),
        ];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_ne!(ids[0], *blake3::hash(bytes).as_bytes());
    }

    #[test]
    fn text_and_back_and_prefixes() {
        let id = BlockId::of(b"x");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:.7}"), id.to_string()[..7]);
        assert!("+f".repeat(32).parse::<BlockId>().is_err());
        assert!("ab".parse::<BlockId>().is_err());
        assert!("é".repeat(32).parse::<BlockId>().is_err());
        assert_eq!("00000000000000ff".parse(), Ok(PackId(255)));
    }
}
