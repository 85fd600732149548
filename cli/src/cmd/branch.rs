//! `segvm branch`: a new image that starts at a commit of another.

use serde_json::json;

use segvm_home::{Commit, ImageName, ImageRef};

use super::seal;
use crate::{
    failure::Failure,
    local::Local,
    output::{Output, Paint},
};

pub(super) fn run(
    local: &Local,
    from: &ImageRef,
    new: &ImageName,
    out: &mut Output,
) -> Result<(), Failure> {
    local.must_be_there()?;
    // Open until the end: what the new image names is not collected meanwhile.
    let store = local.store()?;
    let record = local.resolve(from)?;
    seal::of(local, &store, &from.name, &record)?;
    let mut lease = local.home.acquire(new, local.holder())?;
    if lease.head().is_some() {
        return Err(Failure::Exists(new.clone()));
    }
    let attribute = from.name.as_str().as_bytes().to_vec();
    let commit = Commit {
        parents: vec![record.commit_id],
        time: local.now,
        host: segvm_os::host_name(),
        // A session that opens it goes on from here by a random step.
        generation: record.commit.generation.saturating_add(1),
        attributes: [("branched-from".to_owned(), attribute)].into(),
        // The program too: it is the one that can open the image, and what is in it is its work.
        ..record.commit
    };
    let commit_id = lease.publish(&commit, &[])?;
    if out.is_json() {
        return out.json(&json!({
            "image": new.as_str(),
            "commit": commit_id.to_string(),
            "from": record.commit_id.to_string(),
        }));
    }
    let new = out.paint(Paint::Good, new.as_str());
    out.line(format!(
        "{new} starts at {}@{:.12}",
        from.name, record.commit_id
    ))
}
