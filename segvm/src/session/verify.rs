//! Checking what the store holds before it is shown.

use std::ops::ControlFlow;

use segvm_blockcache::{BlockIndex, Store};
use segvm_home::SegmentRecord;

use super::{error::OpenError, plan::Plan};

/// How much of what this store itself wrote is checked before it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// What has to be read anyway: commit, nodes, headers, and the blocks that are read in. Blocks that are mapped are not
    /// read.
    #[default]
    AsRead,
    /// The hash of every block of every segment, where it is going to be mapped from.
    All,
}

/// Reads every block that `plans` would show and checks that its bytes are what its id names.
///
/// - **Cost**: reads and hashes all of it; the pages stay in the page cache, where the program finds them.
pub(super) fn verify(
    store: &Store,
    records: &[&SegmentRecord],
    plans: &[Plan],
) -> Result<(), OpenError> {
    for (record, plan) in records.iter().zip(plans) {
        let mut block = vec![0; record.block_size.bytes()];
        let all = BlockIndex(0)..BlockIndex(plan.tree.blocks());
        let (mut failed, mut blocks) = (Ok(()), 0);
        let visited = plan.tree.for_each_block(store, all, |index, id| {
            blocks += 1;
            failed = match plan.layout.get(index) {
                Some(place) => {
                    let read = store.read_place(&id, place, &mut block);
                    read.map_err(|source| OpenError::Damaged {
                        segment: record.name.clone(),
                        offset: record.block_size.offset(index),
                        source,
                    })
                }
                // The tree has a block there, and the map of its places a hole.
                None => Err(OpenError::BadRecord {
                    segment: record.name.clone(),
                }),
            };
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        visited.map_err(|source| OpenError::Tree {
            segment: record.name.clone(),
            source,
        })?;
        failed?;
        // And a place where the tree has a hole would show bytes that nobody asked for.
        let placed: u64 = plan.layout.runs().map(|run| run.blocks).sum();
        if placed != blocks {
            return Err(OpenError::BadRecord {
                segment: record.name.clone(),
            });
        }
    }
    Ok(())
}
