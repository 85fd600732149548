//! What is there, compared with what should be.

use std::{collections::BTreeSet, rc::Rc};

use segvm::Verify;
use segvm_home::ImageName;

use crate::model::{Death, Entry, Unsure, World, content, segment};

impl World {
    /// After a death: everything that was promised is there, and at most what `unsure` says is new.
    pub(crate) fn reconcile(&mut self, unsure: &Unsure, death: Death) {
        let home = self.home();
        let on_disk: BTreeSet<String> = home
            .images()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        for image in &on_disk {
            if self.images.contains_key(image) {
                continue;
            }
            let ghost = self
                .ghosts
                .remove(image)
                .filter(|_| death == Death::PowerCut);
            assert!(
                ghost.is_some() || *image == unsure.image,
                "image {image} came from nowhere"
            );
            self.images.insert(image.clone(), ghost.unwrap_or_default());
        }
        let names: Vec<String> = self.images.keys().cloned().collect();
        for name in names {
            if !on_disk.contains(&name) {
                let of = &self.images[&name];
                let never = of.line.iter().all(|entry| !entry.durable) && death == Death::PowerCut;
                let removed = unsure.removed && unsure.image == name;
                assert!(
                    never || removed || of.line.is_empty(),
                    "image {name} is gone"
                );
                if let Some(ghost) = self.images.remove(&name).filter(|_| removed) {
                    self.ghosts.insert(name, ghost);
                }
                continue;
            }
            let image: ImageName = name.parse().unwrap();
            let mut found: Vec<String> = home
                .log(&image)
                .unwrap()
                .map(|record| record.unwrap().commit_id.to_string())
                .collect();
            found.reverse();
            self.compare_line(&name, &found, unsure, death);
            self.compare_tags(&name, &image, unsure, death);
        }
        if death == Death::PowerCut {
            self.ghosts.clear();
        }
    }

    fn compare_line(&mut self, name: &str, found: &[String], unsure: &Unsure, death: Death) {
        let line = &mut self.images.get_mut(name).unwrap().line;
        let same = line.iter().zip(found);
        let same = same
            .take_while(|(entry, found)| entry.commit == **found)
            .count();
        for lost in line.drain(same..) {
            assert!(
                death == Death::PowerCut && !lost.durable,
                "{name}: commit {:.12} is gone",
                lost.commit
            );
        }
        for (at, commit) in found[same..].iter().enumerate() {
            let bytes = unsure
                .commit
                .as_ref()
                .filter(|_| unsure.image == name && at == 0);
            let Some(bytes) = bytes else {
                panic!("{name}: commit {commit:.12} came from nowhere");
            };
            line.push(Entry {
                commit: commit.clone(),
                bytes: Rc::clone(bytes),
                durable: false,
            });
        }
        if death == Death::PowerCut {
            // What the power cut left is on the platter.
            line.iter_mut().for_each(|entry| entry.durable = true);
        }
    }

    fn compare_tags(&mut self, name: &str, image: &ImageName, unsure: &Unsure, death: Death) {
        let found = self.home().tags(image).unwrap();
        let of = self.images.get_mut(name).unwrap();
        of.tags.retain(|tag, (commit, _, durable)| {
            let there = found.iter().any(|found| {
                found.name.as_str() == tag && found.record.commit_id.to_string() == *commit
            });
            assert!(
                there || (death == Death::PowerCut && !*durable),
                "{name}@{tag} is gone"
            );
            *durable |= death == Death::PowerCut;
            there
        });
        for tag in found {
            let tag_name = tag.name.to_string();
            if of.tags.contains_key(&tag_name) {
                continue;
            }
            assert!(
                unsure.image == name && unsure.tag.as_ref() == Some(&tag_name),
                "{name}@{tag_name} came from nowhere"
            );
            let commit = tag.record.commit_id.to_string();
            // It may be of a commit that belongs to another image's line: then what it holds is not looked at.
            let known = of.line.iter().find(|entry| entry.commit == commit);
            if let Some(bytes) = known.map(|entry| Rc::clone(&entry.bytes)) {
                let durable = death == Death::PowerCut;
                of.tags.insert(tag_name, (commit, bytes, durable));
            }
        }
    }

    /// What is in memory is what should be.
    pub(crate) fn look_at_memory(&self) {
        for process in &self.processes {
            assert!(
                content(&process.segment) == process.memory,
                "{:?} of {}: not what it should be",
                process.role,
                process.image
            );
        }
    }

    /// Nobody is there: every image is whole, seen by one who checks everything.
    pub(crate) fn look_at_all(&self) {
        for (name, image) in &self.images {
            let Some(newest) = image.line.last() else {
                continue;
            };
            let options = self.process().verify(Verify::All);
            let session = options.open(name).unwrap();
            let memory = segment(&session).unwrap();
            assert!(content(&memory) == *newest.bytes, "{name}");
            for entry in &image.line {
                session.restore(&entry.commit[..16]).unwrap();
                assert!(
                    content(&memory) == *entry.bytes,
                    "{name}@{:.12}",
                    entry.commit
                );
            }
            for (tag, (_, bytes, _)) in &image.tags {
                session.restore(tag).unwrap();
                assert!(content(&memory) == **bytes, "{name}@{tag}");
            }
        }
    }
}
