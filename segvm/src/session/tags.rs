//! Names for the commits of a session's image.

use segvm_home::{ImageName, Ref, Tag, Timestamp};

use super::{Session, error::OpenError};

impl Session {
    /// Gives the commit that memory continues (a writer's newest checkpoint) a name, by which
    /// [`restore`](Session::restore), [`branch_from`](Session::branch_from) and readers find it, and which keeps it.
    ///
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`OpenError::NothingSaved`] before the first checkpoint; [`OpenError::Tag`] where another commit has the name,
    ///   or the name would be read as a time or the beginning of an id.
    pub fn tag(&self, name: &str) -> Result<Tag, OpenError> {
        let head = self.head().ok_or_else(|| OpenError::NothingSaved {
            image: self.image(),
        })?;
        // Not "the newest": somebody may have stolen the image a moment ago.
        self.tag_as(name, &Ref::Prefix(head.to_string()))
    }

    /// Gives an older commit a name: `reference` is as for [`restore`](Session::restore).
    pub fn tag_at(&self, reference: &str, name: &str) -> Result<Tag, OpenError> {
        self.tag_as(name, &reference.parse()?)
    }

    fn tag_as(&self, name: &str, at: &Ref) -> Result<Tag, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        let name: ImageName = name.parse()?;
        let now = Timestamp::from((core.world.now)());
        Ok(core.home.tag(&core.image(), &name, at, now)?)
    }

    /// Takes a name away from its commit, which stays as long as the image does.
    pub fn untag(&self, name: &str) -> Result<(), OpenError> {
        self.core.check_process()?;
        let name: ImageName = name.parse()?;
        Ok(self.core.home.untag(&self.core.image(), &name)?)
    }

    /// The image's tags, sorted by name.
    pub fn tags(&self) -> Result<Vec<Tag>, OpenError> {
        self.core.check_process()?;
        Ok(self.core.home.tags(&self.core.image())?)
    }
}
