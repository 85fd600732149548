//! `segvm restore`: an older commit becomes the newest, as a commit that equals it.

use serde_json::json;

use segvm_home::{Commit, ImageRef};

use super::seal;
use crate::{
    failure::Failure,
    local::Local,
    output::{Output, Paint},
};

pub(super) fn run(local: &Local, image: &ImageRef, out: &mut Output) -> Result<(), Failure> {
    let is_head = || Failure::IsHead(Box::new(image.clone()));
    if image.at.is_none() {
        return Err(is_head());
    }
    local.must_be_there()?;
    let store = local.store()?;
    // Looked up first, so that a mistyped name makes no lease; and again below, where nothing moves any more.
    local.resolve(image)?;
    let mut lease = local.home.acquire(&image.name, local.holder())?;
    let record = local.resolve(image)?;
    let Some(head) = lease.head().cloned() else {
        return Err(Failure::NoCommit(image.name.clone()));
    };
    if head.commit.segments == record.commit.segments {
        return Err(is_head());
    }
    seal::as_holder(&store, &lease)?;
    seal::check(&store, &image.name, &record, 0)?;
    let from = record.commit_id;
    let commit = Commit {
        parents: vec![head.commit_id],
        time: local.now,
        host: segvm_os::host_name(),
        generation: head.commit.generation.saturating_add(1),
        attributes: [("restored-from".to_owned(), from.as_bytes().to_vec())].into(),
        ..record.commit
    };
    let commit_id = lease.publish(&commit, &[])?;
    if out.is_json() {
        return out.json(&json!({
            "image": image.name.as_str(),
            "commit": commit_id.to_string(),
            "from": from.to_string(),
            "before": head.commit_id.to_string(),
        }));
    }
    let name = out.paint(Paint::Good, image.name.as_str());
    out.line(format!(
        "{name} is as it was at {} ({from:.12}); to take that back: segvm restore {}@{:.12}",
        record.commit.time, image.name, head.commit_id
    ))
}
