//! Projects: what a set of design tokens belongs to.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::db::id::{debug_fields, id};
use crate::db::page::{List, limit_offset};
use crate::db::{Error, Page, PageRequest, Patch, Result, input};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

id!(
    /// Identifies a [`Project`].
    ProjectId
);

/// A project.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Project {
    /// Its identifier.
    pub id: ProjectId,
    /// Whose it is; none: nobody's, only the service works on it.
    pub user_id: Option<UserId>,
    /// What it is called. Names need not be unique.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(Project { id, user_id, created_at, updated_at });

/// A project to be made.
///
/// ```
/// use chancery::NewProject;
///
/// let project = NewProject::new("Spring catalogue").description("Colours and spacing");
/// assert_eq!(project.user_id, None);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NewProject {
    /// None: nobody's.
    pub user_id: Option<UserId>,
    /// 1 to 255 characters.
    pub name: String,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub description: Option<String>,
}

debug_fields!(NewProject { user_id });

impl NewProject {
    /// With a name, and nobody's.
    pub fn new(name: impl Into<String>) -> Self {
        Self { user_id: None, name: name.into(), description: None }
    }

    /// With an owner.
    pub fn owner(mut self, user_id: UserId) -> Self {
        self.user_id = Some(user_id);
        self
    }

    /// With a description.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    fn check(&self) -> Result<()> {
        input::name("name", &self.name, 255)?;
        self.description.as_deref().map_or(Ok(()), |v| input::long_text("description", v))
    }
}

/// What to change of a project; see [`Patch`].
#[derive(Clone, Default)]
pub struct ProjectPatch {
    /// None: nobody's any more.
    pub user_id: Patch<Option<UserId>>,
    /// 1 to 255 characters.
    pub name: Patch<String>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub description: Patch<Option<String>>,
}

debug_fields!(ProjectPatch { user_id });

impl ProjectPatch {
    fn check(&self) -> Result<()> {
        self.name.as_ref().map_or(Ok(()), |v| input::name("name", v, 255))?;
        self.description.set_text().map_or(Ok(()), |v| input::long_text("description", v))
    }
}

repository!(
    /// Projects: [`Database::projects`](crate::Database::projects).
    ProjectRepository
);

impl ProjectRepository<'_> {
    /// Makes a project.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewProject) -> Result<Project> {
        new.check()?;
        Ok(sqlx::query_as!(
            Project,
            "insert into projects (id, user_id, name, description) values ($1, $2, $3, $4)
             returning id, user_id, name, description, created_at, updated_at",
            ProjectId::new().as_uuid(),
            new.user_id.map(|id| id.as_uuid()),
            new.name,
            new.description,
        )
        .fetch_one(self.conn)
        .await?)
    }
}

impl<A: Access> ProjectRepository<'_, A> {
    /// The project with this identifier.
    pub async fn get_by_id(self, id: ProjectId) -> Result<Option<Project>> {
        Ok(sqlx::query_as!(
            Project,
            "select id, user_id, name, description, created_at, updated_at
               from projects
              where id = $1",
            id.as_uuid(),
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }

    /// Everybody's projects, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list(self, limit: i64, offset: i64) -> Result<Vec<Project>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Project,
            "select id, user_id, name, description, created_at, updated_at
               from projects
              order by created_at desc, id desc
              limit $1 offset $2",
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }

    /// A user's projects, newest first. For long lists use [`page_by_user`](Self::page_by_user): an
    /// offset reads what it skips.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Project>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Project,
            "select id, user_id, name, description, created_at, updated_at
               from projects
              where user_id = $1
              order by created_at desc, id desc
              limit $2 offset $3",
            user_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }

    /// A page of a user's projects, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_user(self, user_id: UserId, page: PageRequest) -> Result<Page<Project>> {
        let list = List::by("projects of a user", user_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = sqlx::query_as!(
            Project,
            "select id, user_id, name, description, created_at, updated_at
               from projects
              where user_id = $1
                and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                        coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              order by created_at desc, id desc
              limit $4",
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn.repeatable())
        .await?;
        Ok(Page::new(&page, list, items, |p| (p.created_at, p.id.as_uuid())))
    }

    /// How many projects there are. Reads them all, or an index of them.
    pub async fn count(self) -> Result<i64> {
        Ok(sqlx::query_scalar!(r#"select count(*) as "count!" from projects"#)
            .fetch_one(self.conn.repeatable())
            .await?)
    }
}

impl ProjectRepository<'_> {
    /// Changes what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); otherwise as [`create`](Self::create).
    pub async fn update(self, id: ProjectId, patch: ProjectPatch) -> Result<Project> {
        patch.check()?;
        sqlx::query_as!(
            Project,
            "update projects
                set user_id = case when $2 then $3 else user_id end,
                    name = coalesce($4, name),
                    description = case when $5 then $6 else description end
              where id = $1
             returning id, user_id, name, description, created_at, updated_at",
            id.as_uuid(),
            patch.user_id.is_set(),
            patch.user_id.as_ref().copied().flatten().map(|id| id.as_uuid()),
            patch.name.as_ref(),
            patch.description.is_set(),
            patch.description.set_text(),
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("project"))
    }

    /// Deletes a project with its jobs; a worker that is at one finds its lease lost. Says whether
    /// there was one.
    pub async fn delete(self, id: ProjectId) -> Result<bool> {
        let done = sqlx::query!("delete from projects where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
