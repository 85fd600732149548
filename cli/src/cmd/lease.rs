//! `segvm lease`: who has an image open for writing.

use serde_json::json;

use segvm_home::ImageName;

use super::{holder_json, whereabouts};
use crate::{
    failure::Failure,
    local::Local,
    output::{Output, age, printable},
};

pub(super) fn run(local: &Local, image: &ImageName, out: &mut Output) -> Result<(), Failure> {
    let holder = local.home.holder(image)?;
    // A program that has not come to its first commit has the lease of what is no image yet.
    let head = match &holder {
        Some(_) => local.home.image(image)?.and_then(|state| state.head),
        None => Some(local.head(image)?),
    };
    if out.is_json() {
        return out.json(&json!({
            "image": image.as_str(),
            "lease": holder_json(holder.as_ref()),
            "head_token": head.map(|head| head.token.number()),
        }));
    }
    match holder {
        Some(holder) => out.line(format!(
            "{image} is open for writing by {}, {}, since {} ({})",
            printable(&holder.program),
            whereabouts(&holder),
            holder.since,
            age(local.now, holder.since)
        )),
        None => out.line(format!("{image} is free: nobody has it open for writing")),
    }
}
