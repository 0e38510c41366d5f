//! Templates: a user's own, and the system's defaults to fall back to.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use crate::db::id::{debug_fields, id, text_enum};
use crate::db::page::limit_offset;
use crate::db::{Error, Patch, Reason, Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

id!(
    /// Identifies a [`Template`].
    TemplateId
);

text_enum!(
    /// What a template is for.
    TemplateType {
        /// A post on LinkedIn.
        LinkedIn = "linkedin",
        /// A post on Twitter.
        Twitter = "twitter",
        /// An article.
        Blog = "blog",
        /// An e-mail.
        Email = "email",
    }
);

/// A template.
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Template {
    /// Its identifier.
    pub id: TemplateId,
    /// Whose it is; none: the system's, for everybody.
    pub user_id: Option<UserId>,
    /// What it is for.
    pub template_type: TemplateType,
    /// Its name, unique for its owner and type.
    pub template_name: String,
    /// The text, with places to fill in.
    pub template_content: String,
    /// What those places are called: a JSON array.
    pub variables: Value,
    /// Whether it is the one to take when no other is asked for.
    pub is_default: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(Template { id, user_id, template_type, is_default, created_at, updated_at });

/// A template as a list shows it: without content and variables.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TemplateSummary {
    /// Its identifier.
    pub id: TemplateId,
    /// Whose it is; none for the system's.
    pub user_id: Option<UserId>,
    /// What it is for.
    pub template_type: TemplateType,
    /// Its name.
    pub template_name: String,
    /// Whether it is the one to take for its type.
    pub is_default: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(TemplateSummary { id, user_id, template_type, is_default, created_at, updated_at });

/// A template to be made.
#[derive(Clone, PartialEq)]
pub struct NewTemplate {
    /// None: the system's.
    pub user_id: Option<UserId>,
    /// What it is for.
    pub template_type: TemplateType,
    /// 1 to 255 characters.
    pub template_name: String,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub template_content: String,
    /// A JSON array; `[]` unless said.
    pub variables: Value,
    /// False unless said.
    pub is_default: bool,
}

debug_fields!(NewTemplate { user_id, template_type, is_default });

impl NewTemplate {
    /// With what every template has.
    pub fn new(
        user_id: Option<UserId>,
        template_type: TemplateType,
        template_name: impl Into<String>,
        template_content: impl Into<String>,
    ) -> Self {
        Self {
            user_id,
            template_type,
            template_name: template_name.into(),
            template_content: template_content.into(),
            variables: json!([]),
            is_default: false,
        }
    }

    /// With the names of the places to fill in.
    pub fn variables(mut self, variables: Value) -> Self {
        self.variables = variables;
        self
    }

    /// As the one to take when no other is asked for.
    pub fn default_for_type(mut self) -> Self {
        self.is_default = true;
        self
    }

    fn check(&self) -> Result<()> {
        input::name("template_name", &self.template_name, 255)?;
        input::long_text("template_content", &self.template_content)?;
        check_variables(&self.variables)
    }
}

fn check_variables(variables: &Value) -> Result<()> {
    if !variables.is_array() {
        return Err(Error::invalid("variables", Reason::Malformed("a JSON array")));
    }
    input::json("variables", variables)
}

/// What to change of a template; see [`Patch`].
#[derive(Clone, Default)]
pub struct TemplatePatch {
    /// 1 to 255 characters.
    pub template_name: Patch<String>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub template_content: Patch<String>,
    /// A JSON array.
    pub variables: Patch<Value>,
    /// Whether it is the one to take when no other is asked for.
    pub is_default: Patch<bool>,
}

debug_fields!(TemplatePatch { is_default });

impl TemplatePatch {
    fn check(&self) -> Result<()> {
        self.template_name.as_ref().map_or(Ok(()), |v| input::name("template_name", v, 255))?;
        self.template_content
            .as_ref()
            .map_or(Ok(()), |v| input::long_text("template_content", v))?;
        self.variables.as_ref().map_or(Ok(()), check_variables)
    }
}

repository!(
    /// Templates: [`Database::templates`](crate::Database::templates).
    TemplateRepository
);

impl TemplateRepository<'_> {
    /// Makes a template.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) when its owner has one of that type and name, the system
    /// included; [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create_template(self, new: NewTemplate) -> Result<Template> {
        new.check()?;
        Ok(sqlx::query_as!(
            Template,
            "insert into templates (id, user_id, template_type, template_name, template_content,
                                    variables, is_default)
             values ($1, $2, $3, $4, $5, $6, $7)
             returning id, user_id, template_type, template_name, template_content, variables,
                       is_default, created_at, updated_at",
            TemplateId::new().as_uuid(),
            new.user_id.map(|id| id.as_uuid()),
            new.template_type.as_str(),
            new.template_name,
            new.template_content,
            new.variables,
            new.is_default,
        )
        .fetch_one(self.conn)
        .await?)
    }
}

impl<A: Access> TemplateRepository<'_, A> {
    /// The template with this identifier.
    pub async fn get_by_id(self, id: TemplateId) -> Result<Option<Template>> {
        rows::one(self.conn.repeatable(), "templates", || {
            sqlx::query_as!(
                Template,
                "select id, user_id, template_type, template_name, template_content, variables,
                    is_default, created_at, updated_at
               from templates
              where id = $1",
                id.as_uuid(),
            )
        })
        .await
    }

    /// The template to use: the user's own of this type if there is one (the default before the
    /// others, then the one that was changed last), else the system's default. One statement.
    pub async fn get_template(
        self,
        user_id: UserId,
        template_type: TemplateType,
    ) -> Result<Option<Template>> {
        rows::one(self.conn.repeatable(), "templates", || {
            sqlx::query_as!(
                Template,
                r#"select id as "id!: TemplateId", user_id as "user_id: UserId",
                      template_type as "template_type!: TemplateType",
                      template_name as "template_name!", template_content as "template_content!",
                      variables as "variables!", is_default as "is_default!",
                      created_at as "created_at!", updated_at as "updated_at!"
                 from ((select 1 as choice, id, user_id, template_type, template_name,
                               template_content, variables, is_default, created_at, updated_at
                          from templates
                         where user_id = $1 and template_type = $2
                         order by is_default desc, updated_at desc, id desc
                         limit 1)
                       union all
                       (select 2, id, user_id, template_type, template_name, template_content,
                               variables, is_default, created_at, updated_at
                          from templates
                         where user_id is null and template_type = $2 and is_default
                         order by updated_at desc, id desc
                         limit 1)) t
                order by choice
                limit 1"#,
                user_id.as_uuid(),
                template_type.as_str(),
            )
        })
        .await
    }

    /// A user's own templates, by type and name.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<TemplateSummary>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "templates", || {
            sqlx::query_as!(
            TemplateSummary,
            "select id, user_id, template_type, template_name, is_default, created_at, updated_at
               from templates
              where user_id = $1
              order by template_type, template_name
              limit $2 offset $3",
            user_id.as_uuid(),
            limit,
            offset,
        )
        })
        .await
    }

    /// All default templates of a type, the system's first.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_defaults(
        self,
        template_type: TemplateType,
        limit: i64,
    ) -> Result<Vec<TemplateSummary>> {
        let (limit, _) = limit_offset(limit, 0)?;
        rows::all(self.conn.repeatable(), "templates", || {
            sqlx::query_as!(
            TemplateSummary,
            "select id, user_id, template_type, template_name, is_default, created_at, updated_at
               from templates
              where template_type = $1 and is_default
              order by user_id nulls first, id
              limit $2",
            template_type.as_str(),
            limit,
        )
        })
        .await
    }
}

impl TemplateRepository<'_> {
    /// Changes what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); otherwise as [`create_template`](Self::create_template).
    pub async fn update(self, id: TemplateId, patch: TemplatePatch) -> Result<Template> {
        patch.check()?;
        sqlx::query_as!(
            Template,
            "update templates
                set template_name = coalesce($2, template_name),
                    template_content = coalesce($3, template_content),
                    variables = coalesce($4, variables),
                    is_default = coalesce($5, is_default)
              where id = $1
             returning id, user_id, template_type, template_name, template_content, variables,
                       is_default, created_at, updated_at",
            id.as_uuid(),
            patch.template_name.as_ref(),
            patch.template_content.as_ref(),
            patch.variables.as_ref(),
            patch.is_default.as_ref().copied(),
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("template"))
    }

    /// Deletes a template. Says whether there was one.
    pub async fn delete(self, id: TemplateId) -> Result<bool> {
        let done = sqlx::query!("delete from templates where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
