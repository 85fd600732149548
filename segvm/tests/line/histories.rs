//! Random histories of several processes and images agree with a model in plain memory: writes, checkpoints, crashes,
//! suspends, restores, branches, thefts, tags, readers that follow and branch, in any order.

use std::collections::BTreeMap;

use segvm::{CheckpointError, OpenError, Rounds, Verify};

use super::{support::Rng, *};

type Bytes = Vec<u8>;

/// An image as it should be: what each commit of its line holds, oldest first, and what its tags mean.
#[derive(Default)]
struct Image {
    line: Vec<(String, Bytes)>,
    tags: BTreeMap<String, Bytes>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Role {
    Writer,
    /// Stolen from; told or not.
    Orphan,
    Reader,
}

/// A process as it should be.
struct Process {
    session: Session,
    segment: Segment,
    image: String,
    role: Role,
    memory: Bytes,
}

#[derive(Default)]
struct Model {
    images: BTreeMap<String, Image>,
    processes: Vec<Process>,
    made: usize,
    /// How often each thing was done: a history that never does one of them shows nothing of it.
    did: BTreeMap<&'static str, u32>,
}

fn content(segment: &Segment) -> Bytes {
    let mut bytes = vec![0; LEN];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

impl Model {
    fn new_name(&mut self) -> String {
        self.made += 1;
        format!("image-{}", self.made)
    }

    fn pick_image(&self, rng: &mut Rng) -> Option<String> {
        let names: Vec<_> = self.images.keys().collect();
        (!names.is_empty()).then(|| names[rng.below(names.len())].clone())
    }

    fn has_writer(&self, image: &str) -> bool {
        let mut all = self.processes.iter();
        all.any(|process| process.image == image && process.role == Role::Writer)
    }

    fn newest(&self, image: &str) -> Option<&Bytes> {
        let (_, bytes) = self.images.get(image)?.line.last()?;
        Some(bytes)
    }

    fn add(&mut self, session: Session, image: String, role: Role, memory: Bytes, what: &str) {
        let segment = super::memory(&session);
        assert!(
            content(&segment) == memory,
            "{what} of {image}: not what it should be"
        );
        self.processes.push(Process {
            session,
            segment,
            image,
            role,
            memory,
        });
    }

    fn open(&mut self, disk: &MemDisk, rng: &mut Rng) {
        let image = match self.pick_image(rng) {
            Some(image) if self.images.len() > 2 || rng.below(3) > 0 => image,
            _ => self.new_name(),
        };
        let options = match rng.below(3) {
            0 => process(disk).verify(Verify::All),
            _ => process(disk),
        };
        let zeros = vec![0; LEN];
        let head = self.newest(&image).cloned();
        match rng.below(4) {
            0 | 1 => {
                let opened = options.open(&image);
                if self.has_writer(&image) {
                    assert!(matches!(opened, Err(OpenError::Lease(_))));
                    return;
                }
                self.did("open");
                self.add(
                    opened.unwrap(),
                    image,
                    Role::Writer,
                    head.unwrap_or(zeros),
                    "opening",
                );
            }
            2 => {
                let Some(head) = head else { return };
                let opened = options.steal().open(&image).unwrap();
                for process in &mut self.processes {
                    if process.image == image && process.role == Role::Writer {
                        process.role = Role::Orphan;
                    }
                }
                self.did("steal");
                self.add(opened, image, Role::Writer, head, "stealing");
            }
            _ => {
                let options = options.reader();
                let Some(head) = head else {
                    assert!(matches!(
                        refused(&options, &image),
                        OpenError::NoImage { .. }
                    ));
                    return;
                };
                let of = &self.images[&image];
                let (at, want) = match (rng.below(3), of.tags.iter().next()) {
                    (0, Some((tag, bytes))) => (format!("{image}@{tag}"), bytes.clone()),
                    (1, _) => {
                        let (commit, bytes) = &of.line[rng.below(of.line.len())];
                        (format!("{image}@{}", &commit[..16]), bytes.clone())
                    }
                    _ => (image.clone(), head),
                };
                self.did("read");
                self.add(options.open(&at).unwrap(), image, Role::Reader, want, &at);
            }
        }
    }

    fn did(&mut self, what: &'static str) {
        *self.did.entry(what).or_default() += 1;
    }

    fn saved(&mut self, image: &str, commit: String, bytes: Bytes) {
        let line = &mut self.images.entry(image.to_owned()).or_default().line;
        line.push((commit, bytes));
    }

    fn step(&mut self, disk: &MemDisk, rng: &mut Rng) {
        if self.processes.is_empty() || (self.processes.len() < 5 && rng.below(6) == 0) {
            return self.open(disk, rng);
        }
        let at = rng.below(self.processes.len());
        let process = &mut self.processes[at];
        let (image, role) = (process.image.clone(), process.role);
        match rng.below(12) {
            0..=3 => {
                for _ in 0..1 + rng.below(4) {
                    let most = [8, 5000, 30_000][rng.below(3)];
                    let len = 1 + rng.below(most);
                    let offset = rng.below(LEN - len);
                    let seed = rng.below(251);
                    let zero = rng.below(6) == 0;
                    let bytes: Bytes = (0..len)
                        .map(|n| if zero { 0 } else { ((seed + n) % 251) as u8 })
                        .collect();
                    process.segment.write(offset, &bytes).unwrap();
                    process.memory[offset..offset + len].copy_from_slice(&bytes);
                }
            }
            4..=6 => {
                let rounds = [Rounds::Auto, Rounds::Off][rng.below(2)];
                match (role, process.session.checkpoint_with(rounds)) {
                    (Role::Writer, Ok(saved)) => {
                        let bytes = process.memory.clone();
                        if saved.changed {
                            self.saved(&image, saved.commit.to_string(), bytes);
                        }
                        self.did("checkpoint");
                    }
                    // Nothing changed is no commit, and needs no lease.
                    (Role::Orphan, Ok(saved)) => assert!(!saved.changed),
                    (Role::Orphan, Err(CheckpointError::Orphaned { .. })) => self.did("refuse"),
                    (Role::Reader, Err(CheckpointError::ReadOnly { .. })) => {}
                    (role, other) => panic!("{role:?}: {other:?}"),
                }
            }
            7 => {
                let process = self.processes.swap_remove(at);
                if role == Role::Writer && rng.below(2) == 0 {
                    let saved = process.session.suspend().unwrap();
                    if saved.changed {
                        self.saved(&image, saved.commit.to_string(), process.memory);
                    }
                    self.did("suspend");
                } else {
                    // A crash: whatever was not saved is gone.
                    self.did("crash");
                }
            }
            8 => {
                let Some(of) = self.images.get(&image).filter(|of| !of.line.is_empty()) else {
                    return;
                };
                let (commit, bytes) = &of.line[rng.below(of.line.len())];
                process.session.restore(&commit[..16]).unwrap();
                process.memory.clone_from(bytes);
                self.did("restore");
            }
            9 => {
                let Some(head) = process.session.head() else {
                    return;
                };
                let tag = format!("t{}", self.made);
                self.made += 1;
                let process = &self.processes[at];
                process.session.tag(&tag).unwrap();
                // What the commit is that memory continues, which is not what is in memory.
                let of = self.images.get_mut(&image).unwrap();
                let head = head.to_string();
                let found = of.line.iter().find(|(commit, _)| *commit == head);
                if let Some((_, bytes)) = found {
                    of.tags.insert(tag, bytes.clone());
                }
                self.did("tag");
            }
            10 => {
                let name = format!("image-{}", self.made + 1);
                self.made += 1;
                let process = &mut self.processes[at];
                if rng.below(2) == 0 {
                    let saved = process.session.branch_here(&name).unwrap();
                    process.image.clone_from(&name);
                    process.role = Role::Writer;
                    let bytes = process.memory.clone();
                    self.saved(&name, saved.commit.to_string(), bytes);
                    self.did("branch here");
                    return;
                }
                let Some(of) = self.images.get(&image).filter(|of| !of.line.is_empty()) else {
                    return;
                };
                let (commit, bytes) = of.line[rng.below(of.line.len())].clone();
                match process.session.branch_from(&commit[..16], &name) {
                    Ok(first) => {
                        self.saved(&name, first.to_string(), bytes);
                        self.did("branch");
                    }
                    // A reader, or a thief whose victim has not completed its pack.
                    Err(OpenError::Unsealed { .. }) => self.did("unsealed"),
                    Err(error) => panic!("{error}"),
                }
            }
            _ => {
                if role != Role::Reader {
                    return;
                }
                let newest = self.newest(&image).cloned().unwrap();
                let process = &mut self.processes[at];
                process.session.follow().unwrap();
                process.memory = newest;
                self.did("follow");
            }
        }
    }

    fn check(&self) {
        for process in &self.processes {
            assert!(
                content(&process.segment) == process.memory,
                "{:?} of {}: not what it should be",
                process.role,
                process.image
            );
        }
    }
}

#[test]
fn random_histories_of_several_processes_agree_with_a_model() {
    let mut did: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 1..=60_u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (disk, mut model) = (MemDisk::new(), Model::default());
        for step in 0..120 {
            model.step(&disk, &mut rng);
            if step % 4 == 0 {
                model.check();
            }
        }
        model.check();
        model.processes.clear();
        for (image, of) in &model.images {
            let Some((_, newest)) = of.line.last() else {
                continue;
            };
            // Nobody is there any more: every image is whole, opened by one who checks everything.
            let (session, segment) = with(&process(&disk).verify(Verify::All), image);
            assert!(content(&segment) == *newest, "seed {seed}: {image}");
            for (commit, bytes) in &of.line {
                session.restore(&commit[..16]).unwrap();
                assert!(
                    content(&segment) == *bytes,
                    "seed {seed}: {image}@{commit:.12}"
                );
            }
        }
        for (what, times) in model.did {
            *did.entry(what).or_default() += times;
        }
    }
    let wanted = [
        "open",
        "steal",
        "read",
        "checkpoint",
        "refuse",
        "suspend",
        "crash",
        "restore",
        "tag",
        "branch here",
        "branch",
        "unsealed",
        "follow",
    ];
    for what in wanted {
        let times = did.get(what).copied().unwrap_or_default();
        assert!(times > 5, "`{what}` happened {times} times only: {did:?}");
    }
}
