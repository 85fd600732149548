//! What happens, one step at a time, each of which may be the last of its process, or of all.

use std::rc::Rc;

use segvm::{CheckpointError, OpenError, Rounds, Session, Verify};
use segvm_blockcache::{
    Alone, StoreError,
    gc::{Mode, Options, collect},
};
use segvm_home::{AcquireError, Holder, PublishError, RemoveError, Roots, Timestamp};

use crate::model::{Death, Died, LEN, Process, Role, Unsure, World, content, segment};

/// How a step ended: as it should, or with a death and what may have come of it.
type Step = Result<(), Died>;

impl World {
    pub(crate) fn step(&mut self) {
        let mut unsure = Unsure::default();
        if self.rng.below(6) == 0 {
            let death = [Death::Kill, Death::Kill, Death::PowerCut][self.rng.below(3)];
            let at = self.disk.operations() + self.rng.below(14) as u64;
            self.doom = Some((at, death));
            self.disk.power_off_at(at);
        }
        // A step of one process has it at the end of the list.
        let alive = self.processes.len();
        let lone = alive == 0 || self.rng.below(6) == 0;
        if !lone {
            let at = self.rng.below(alive);
            self.processes.swap(at, alive - 1);
        }
        let (what, step) = if lone {
            self.lone_step(&mut unsure)
        } else {
            self.process_step(&mut unsure)
        };
        if let Some((_, death)) = self.doom {
            let interrupted = step.is_err();
            // Whether or not it came to it: this process goes now.
            self.disk.power_off_at(0);
            if death == Death::PowerCut {
                self.processes.clear();
                self.disk = self.disk.crash();
            } else {
                // The one that took the step, unless it suspended; or the one that just came.
                if self.processes.len() == alive + usize::from(lone) {
                    self.processes.pop();
                }
                self.disk.power_off_at(u64::MAX);
            }
            self.doom = None;
            if interrupted {
                let how = if death == Death::Kill {
                    "killed in"
                } else {
                    "cut in"
                };
                self.did(&format!("{how} {what}"));
            }
            self.reconcile(&unsure, death);
        } else {
            assert!(step.is_ok(), "{what}: nobody was to die");
        }
        self.look_at_memory();
    }

    /// What may be an error because the power went, and nothing else.
    fn survived<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Result<T, Died> {
        match result {
            Ok(value) => Ok(value),
            Err(_) if self.is_dark() => Err(Died),
            Err(error) => panic!("{error}"),
        }
    }

    fn lone_step(&mut self, unsure: &mut Unsure) -> (&'static str, Step) {
        match self.rng.below(14) {
            0 => ("collection", self.collect()),
            1 => ("remove", self.remove(unsure)),
            2 => {
                self.everybody_leaves();
                ("leave", Ok(()))
            }
            _ if self.processes.len() > 5 => ("nothing", Ok(())),
            3 | 4 => ("steal", self.steal()),
            5..=9 => ("read", self.read()),
            _ => ("open", self.open()),
        }
    }

    fn process_step(&mut self, unsure: &mut Unsure) -> (&'static str, Step) {
        // A migration, when there is one, is another of these: a commit of the image, with what the new schema makes of the memory.
        let most = match self.this().role {
            Role::Reader => 18,
            _ => 14,
        };
        match self.rng.below(most) {
            0..=3 => {
                self.write();
                ("write", Ok(()))
            }
            4..=7 => ("checkpoint", self.checkpoint(unsure)),
            8 => ("suspend", self.suspend(unsure)),
            9 => ("restore", self.restore()),
            10 => ("branch", self.branch(unsure)),
            11 => ("branch here", self.branch_here(unsure)),
            12 => ("tag", self.tag(unsure)),
            13 => ("follow", self.follow()),
            _ => ("commit of a reader", self.commit(unsure)),
        }
    }

    fn add(&mut self, session: Session, image: String, role: Role, memory: Vec<u8>) -> Step {
        let segment = self.survived(segment(&session))?;
        let base = session.head().map(|head| head.to_string());
        assert!(
            content(&segment) == memory,
            "{role:?} of {image}: not what it should be"
        );
        self.processes.push(Process {
            session,
            segment,
            image,
            role,
            memory,
            base,
        });
        Ok(())
    }

    fn options(&mut self) -> segvm::SessionOptions {
        let options = self.process();
        match self.rng.below(3) {
            0 => options.verify(Verify::All),
            _ => options,
        }
    }

    fn open(&mut self) -> Step {
        let image = match self.pick_image() {
            Some(image) if self.images.len() > 2 || self.rng.below(3) > 0 => image,
            _ => self.new_name("image"),
        };
        let head = self.newest(&image).map(|newest| newest.bytes.to_vec());
        let opened = self.options().open(&image);
        if let Err(OpenError::Lease(AcquireError::Held { .. })) = &opened {
            assert!(self.has(&image, Role::Writer) || self.has(&image, Role::Unsure));
            return Ok(());
        }
        let session = self.survived(opened)?;
        assert!(!self.has(&image, Role::Writer), "two writers of {image}");
        self.lost_for_sure(&image);
        self.did("open");
        self.add(
            session,
            image,
            Role::Writer,
            head.unwrap_or_else(|| vec![0; LEN]),
        )
    }

    /// Whoever may have been stolen from, was.
    fn lost_for_sure(&mut self, image: &str) {
        for process in &mut self.processes {
            if process.image == image && process.role == Role::Unsure {
                process.role = Role::Orphan;
            }
        }
    }

    fn steal(&mut self) -> Step {
        let Some(image) = self.pick_image() else {
            return Ok(());
        };
        let Some(head) = self.newest(&image).map(|newest| newest.bytes.to_vec()) else {
            return Ok(());
        };
        let opened = self.options().steal().open(&image);
        let stolen = self.survived(opened);
        for process in &mut self.processes {
            if process.image == image && matches!(process.role, Role::Writer | Role::Unsure) {
                process.role = match stolen {
                    Ok(_) => Role::Orphan,
                    Err(Died) => Role::Unsure,
                };
            }
        }
        let session = stolen?;
        self.did("steal");
        self.add(session, image, Role::Writer, head)
    }

    fn read(&mut self) -> Step {
        let Some(image) = self.pick_image() else {
            return Ok(());
        };
        let of = &self.images[&image];
        let Some(newest) = of.line.last() else {
            return Ok(());
        };
        let (at, wanted) = match (self.rng.below(3), of.tags.iter().next()) {
            (0, Some((tag, (_, bytes, _)))) => (format!("{image}@{tag}"), bytes),
            (1, _) => {
                let entry = &of.line[self.rng.below(of.line.len())];
                (format!("{image}@{}", &entry.commit[..16]), &entry.bytes)
            }
            _ => (image.clone(), &newest.bytes),
        };
        let wanted = wanted.to_vec();
        let opened = self.options().reader().open(&at);
        let session = self.survived(opened)?;
        self.did("read");
        self.add(session, image, Role::Reader, wanted)
    }

    fn this(&mut self) -> &mut Process {
        self.processes.last_mut().unwrap()
    }

    fn write(&mut self) {
        for _ in 0..=self.rng.below(3) {
            let most = [8, 5000, 60_000, LEN - 1][self.rng.below(4)];
            let len = 1 + self.rng.below(most);
            let offset = self.rng.below(LEN - len);
            let (seed, zero) = (self.rng.below(251), self.rng.below(6) == 0);
            let bytes: Vec<u8> = (0..len)
                .map(|n| {
                    if zero {
                        0
                    } else {
                        ((seed + n + n / 4096 * 7) % 251) as u8
                    }
                })
                .collect();
            let process = self.this();
            process.segment.write(offset, &bytes).unwrap();
            process.memory[offset..offset + len].copy_from_slice(&bytes);
        }
    }

    fn checkpoint(&mut self, unsure: &mut Unsure) -> Step {
        let rounds = [Rounds::Auto, Rounds::Off][self.rng.below(2)];
        let process = self.this();
        let (image, role) = (process.image.clone(), process.role);
        let bytes = Rc::new(process.memory.clone());
        let saved = process.session.checkpoint_with(rounds);
        match (role, saved) {
            (Role::Writer | Role::Unsure, Ok(saved)) => {
                self.did("checkpoint");
                let commit = saved.commit.to_string();
                if !saved.changed {
                    self.confirmed(&image, &commit);
                    return Ok(());
                }
                self.promised(&image, commit, bytes);
                self.this().role = Role::Writer;
            }
            // Nothing changed is no commit, and needs no lease.
            (Role::Orphan, Ok(saved)) => assert!(!saved.changed),
            (Role::Orphan | Role::Unsure, Err(CheckpointError::Orphaned { .. })) => {
                self.this().role = Role::Orphan;
                self.did("orphaned");
            }
            (Role::Reader, Err(CheckpointError::ReadOnly { .. })) => {}
            (role, Err(_)) if self.is_dark() => {
                if matches!(role, Role::Writer | Role::Unsure) {
                    unsure.image = image;
                    unsure.commit = Some(bytes);
                }
                return Err(Died);
            }
            (role, other) => panic!("{role:?}: {other:?}"),
        }
        Ok(())
    }

    fn suspend(&mut self, unsure: &mut Unsure) -> Step {
        if self.this().role != Role::Writer {
            return Ok(());
        }
        let process = self.processes.pop().unwrap();
        let (image, bytes) = (process.image, Rc::new(process.memory));
        match process.session.suspend() {
            Ok(saved) => {
                let commit = saved.commit.to_string();
                if saved.changed {
                    self.promised(&image, commit, bytes);
                } else {
                    self.confirmed(&image, &commit);
                }
                self.did("suspend");
                Ok(())
            }
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = image;
                unsure.commit = Some(bytes);
                // It goes with its process.
                self.processes.push(Process {
                    segment: process.segment,
                    image: unsure.image.clone(),
                    role: Role::Writer,
                    memory: unsure.commit.as_deref().unwrap().clone(),
                    base: None,
                    session: error.into_session(),
                });
                Err(Died)
            }
        }
    }

    /// A commit of the line of this process's image.
    fn pick_commit(&mut self) -> Option<(String, Rc<Vec<u8>>)> {
        let image = self.this().image.clone();
        let len = self.images.get(&image)?.line.len();
        let at = self.rng.below(len.max(1));
        let entry = self.images[&image].line.get(at)?;
        Some((entry.commit.clone(), Rc::clone(&entry.bytes)))
    }

    fn restore(&mut self) -> Step {
        let Some((commit, bytes)) = self.pick_commit() else {
            return Ok(());
        };
        let restored = self.this().session.restore(&commit[..16]);
        self.survived(restored)?;
        let process = self.this();
        process.memory.clone_from(&bytes);
        if process.role == Role::Reader {
            process.base = Some(commit);
        }
        self.did("restore");
        Ok(())
    }

    fn branch(&mut self, unsure: &mut Unsure) -> Step {
        let Some((commit, bytes)) = self.pick_commit() else {
            return Ok(());
        };
        let name = self.new_name("branch");
        match self.this().session.branch_from(&commit[..16], &name) {
            Ok(first) => {
                self.promised(&name, first.to_string(), bytes);
                self.did("branch");
                Ok(())
            }
            // A reader, or a thief whose victim has not completed its pack.
            Err(OpenError::Unsealed { .. }) => Ok(()),
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = name;
                unsure.commit = Some(bytes);
                Err(Died)
            }
        }
    }

    fn branch_here(&mut self, unsure: &mut Unsure) -> Step {
        let name = self.new_name("here");
        let process = self.this();
        let bytes = Rc::new(process.memory.clone());
        match process.session.branch_here(&name) {
            Ok(saved) => {
                process.image.clone_from(&name);
                process.role = Role::Writer;
                self.promised(&name, saved.commit.to_string(), bytes);
                self.did("branch here");
                Ok(())
            }
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = name;
                unsure.commit = Some(bytes);
                Err(Died)
            }
        }
    }

    fn tag(&mut self, unsure: &mut Unsure) -> Step {
        let tag = self.new_name("tag");
        let process = self.this();
        let Some(head) = process.session.head() else {
            return Ok(());
        };
        let image = process.image.clone();
        match process.session.tag(&tag) {
            Ok(_) => {
                let head = head.to_string();
                let of = self.images.get_mut(&image).unwrap();
                let known = of.line.iter().find(|entry| entry.commit == head);
                if let Some(bytes) = known.map(|entry| Rc::clone(&entry.bytes)) {
                    of.tags.insert(tag, (head, bytes, true));
                }
                self.did("tag");
                Ok(())
            }
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = image;
                unsure.tag = Some(tag);
                Err(Died)
            }
        }
    }

    fn follow(&mut self) -> Step {
        let process = self.this();
        let image = process.image.clone();
        if process.role != Role::Reader {
            return Ok(());
        }
        let followed = self.this().session.follow();
        let commit = self.survived(followed)?.to_string();
        let newest = self.newest(&image).unwrap();
        assert_eq!(newest.commit, commit, "{image}");
        let bytes = newest.bytes.to_vec();
        let process = self.this();
        (process.memory, process.base) = (bytes, Some(commit));
        self.did("follow");
        Ok(())
    }

    fn commit(&mut self, unsure: &mut Unsure) -> Step {
        if self.this().role != Role::Reader {
            return Ok(());
        }
        let process = self.this();
        let image = process.image.clone();
        let bytes = Rc::new(process.memory.clone());
        let base = process.base.clone();
        let committed = process.session.commit();
        let is_newest = self.newest(&image).map(|newest| &newest.commit) == base.as_ref();
        match committed {
            Ok(saved) => {
                let commit = saved.commit.to_string();
                self.did("commit of a reader");
                if !saved.changed {
                    return Ok(());
                }
                assert!(is_newest && !self.has(&image, Role::Writer), "{image}");
                self.lost_for_sure(&image);
                self.this().base = Some(commit.clone());
                self.promised(&image, commit, bytes);
                Ok(())
            }
            Err(CheckpointError::Publish(PublishError::Moved { .. })) => {
                assert!(!is_newest, "{image} has not moved");
                self.did("refused: moved");
                Ok(())
            }
            Err(CheckpointError::Publish(PublishError::Held { .. })) => {
                assert!(self.has(&image, Role::Writer) || self.has(&image, Role::Unsure));
                self.did("refused: held");
                Ok(())
            }
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = image;
                unsure.commit = Some(bytes);
                Err(Died)
            }
        }
    }

    /// Removes an image that nobody has open.
    fn remove(&mut self, unsure: &mut Unsure) -> Step {
        let Some(image) = self.pick_image().filter(|_| self.images.len() > 3) else {
            return Ok(());
        };
        if self.processes.iter().any(|process| process.image == image) {
            return Ok(());
        }
        let holder = Holder {
            pid: std::process::id(),
            host: "here".into(),
            program: "segvm".into(),
            since: Timestamp::default(),
        };
        match self.home().remove(&image.parse().unwrap(), &holder) {
            Ok(()) => {
                self.images.remove(&image);
                self.did("remove");
                Ok(())
            }
            // Made, and never committed to.
            Err(RemoveError::NoImage { .. }) => {
                assert!(self.images[&image].line.is_empty());
                Ok(())
            }
            Err(error) => {
                assert!(self.is_dark(), "{error}");
                unsure.image = image;
                unsure.removed = true;
                Err(Died)
            }
        }
    }

    fn collect(&mut self) -> Step {
        let disk = std::sync::Arc::new(self.disk.clone());
        let alone = match Alone::open(disk, Self::store()) {
            Err(StoreError::InUse { .. }) => {
                assert!(!self.processes.is_empty());
                return Ok(());
            }
            other => self.survived(other)?,
        };
        assert!(self.processes.is_empty(), "somebody was there");
        let roots = self.survived(Roots::of(&self.home()))?;
        let options = Options {
            mode: Mode::Collect,
            ..Options::default()
        };
        let report = collect(&alone, &roots.trees, &roots.marks, options, &mut |_| ());
        let report = self.survived(report)?;
        assert!(report.damaged.is_empty(), "{report:?}");
        self.did("collection");
        Ok(())
    }

    /// At the end, when nobody is there.
    pub(crate) fn collect_for_good(&mut self) {
        assert!(self.collect().is_ok());
    }

    pub(crate) fn everybody_leaves(&mut self) {
        self.processes.clear();
        self.did("leave");
    }
}
